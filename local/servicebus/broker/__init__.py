"""The second layer: what Service Bus promises, without I/O.

`broker` all entities by their paths · `entity` numbering, duplicates and scheduling, which queues
and topics share · `queues` locks, settlement and dead letters · `sessions` queues whose messages
are received by session · `consumers` who receives · `topics`, `filters`, `sql` and `operators`
fan-out · `message` one message · `index` which comes next · `configuration` reads Config.json ·
`errors` the refusals · `journal` what must outlive the process.

Nothing here awaits, reads a clock or draws randomness: `Surroundings` carries both. Time is in
milliseconds since the epoch. Changes are made at once and in memory; what is due at a later time
happens when `Broker.tick` is called.
"""
