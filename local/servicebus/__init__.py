"""A local Service Bus: an AMQP 1.0 broker that the unmodified azure-servicebus clients talk to.

It serves local runs and tests, and needs the standard library only. It has three layers, each of
which knows only those before it: `codec` (AMQP as bytes), `broker` (what Service Bus promises,
without I/O), `server` (connections, the clock, the disk). `docs/servicebus.md` says how to run it
and what it does not do.
"""

from .server.context import Limits
from .server.faults import Fault, Faults
from .server.serving import Server, serve

__all__ = ["Fault", "Faults", "Limits", "Server", "serve"]
