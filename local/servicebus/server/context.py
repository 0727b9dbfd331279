"""What the parts of a connection need of what surrounds them.

`Peer` is the client at the other end of the connection, `Services` is what the server offers to
all clients. Channels, links and requests know these two and neither the connection nor the server,
which make them.
"""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from ..broker.broker import Broker
from ..codec.values import Value
from .faults import Faults


@dataclass(frozen=True)
class Limits:
    """What a client may ask for; sizes in bytes. `max_message` is that of the Standard tier."""

    max_message: int = 256 * 1024
    max_frame: int = 1024 * 1024
    idle_ms: int = 240_000
    handshake_seconds: float = 30.0


class Peer(Protocol):
    """The client at the other end of a connection.

    `authorized` says whether the client has put a token that is good; `peer_max_frame` is the size
    in bytes of the largest frame that the client takes.
    """

    authorized: bool
    peer_max_frame: int

    def send(self, channel: int, performative: object, payload: bytes = b"") -> None:
        """Queue a frame for the end of the turn."""

    def abort(self) -> None:
        """Break the connection at once, as a failing network would."""

    def authorize(self, token: str) -> None:
        """Let the client use the namespace from now on.

        Raises:
            UnauthorizedError: the token is not good.
        """

    def reply(self, channel: int, node: str, address: Value, data: bytes) -> None:
        """Send an encoded message to the client's receiver on a node that answers requests.

        Of several receivers, the one with this address is meant, and the channel's own before
        those of other channels. A client without any did not want to know.
        """


class Services(Protocol):
    """What the server has for all connections; `loop` is where timers are set."""

    broker: Broker
    faults: Faults
    limits: Limits
    loop: asyncio.AbstractEventLoop
