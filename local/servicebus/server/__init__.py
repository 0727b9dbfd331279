"""The third layer: everything that touches a socket, a file or the clock.

`serving` the listener and its turns · `connection` bytes to frames · `channel` one AMQP session ·
`attaching` what a link ends at · `link`, `inbound` and `outbound` messages in and out · `requests`
and `management` the nodes that answer · `context` what channels, links and requests know of their
client and the server · `tokens` who may connect · `faults` misbehaviour on request · `errors` what
clients do wrong on the wire · `store` messages on disk.

Work is done in *turns* of the event loop. Reading from sockets changes the broker and collects
answers; then one turn hands out messages, commits all changes to the store, and only then writes
the answers to the sockets. So nobody is told of what a crash could undo, and one commit serves all
that happened since the last one.
"""
