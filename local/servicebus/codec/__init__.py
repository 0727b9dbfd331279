"""The first layer: AMQP 1.0 as bytes.

`values` the types · `reading` and `writing` bytes to values and back · `performatives` the frames
that two peers exchange · `sections` the parts of a message. This layer knows nothing of
Service Bus.
"""
