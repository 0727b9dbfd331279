"""What both directions of a link share: how it opens and ends, and what carries it."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ..broker.errors import ServiceBusError
from ..codec import performatives as p
from ..codec.reading import DecodeError
from ..codec.values import Described, ULong, Value
from .context import Peer, Services
from .faults import Fault, Kind


class Delivery(NamedTuple):
    """A message on its way to the client, over a link.

    `settle` takes the delivery's number and what the client decided about it, and returns whether
    the delivery is done with; it is None where nothing is to be settled.
    """

    link: "Link"
    tag: bytes
    payload: bytes
    settle: Callable[[int, p.Disposition], bool] | None


class AmqpSession(Protocol):
    """What a link needs of the AMQP session that carries it (a `Channel`)."""

    peer: Peer
    services: Services

    def send(self, performative: object, payload: bytes = b"") -> None:
        """Queue a frame."""

    def flow(self, link: "Link | None" = None, *, drained: bool | None = None) -> None:
        """Tell the client where the session, and one of its links, stands."""

    def deliver(self, delivery: Delivery) -> None:
        """Send a message, now or when the client's window allows."""

    def settled(self, number: int, state: Described) -> None:
        """Confirm to the client what became of a delivery."""

    def reply(self, node: str, address: Value, data: bytes) -> None:
        """Send an encoded message to the client's receiver on a node that answers requests."""


def terminus_fields(terminus: Described | None, count: int) -> list[Value]:
    """The first fields of a link's source or target, which begin with its address.

    Raises:
        DecodeError: it is no list.
    """
    fields = terminus.value if terminus is not None else []
    if not isinstance(fields, list):
        raise DecodeError("a source or target is no list")
    return [*fields, *[None] * count][: max(count, len(fields))]


class Link:
    """What both directions share; `node` is empty but where requests are answered."""

    def __init__(self, session: AmqpSession, client: p.Attach, path: str) -> None:
        self.session, self.services = session, session.services
        self.handle = client.handle
        self.attach, self.path = client, path
        self.credit = self.delivery_count = 0
        self.node = ""
        self.target_address = terminus_fields(client.target, 1)[0]
        self.detached = False

    def accept(self, **changes: Any) -> None:
        """Answer the client's attach: the link is open."""
        reply = self.attach._replace(
            is_receiver=not self.attach.is_receiver,
            source=self.attach.source or Described(ULong(p.SOURCE), [None]),
            target=self.attach.target or Described(ULong(p.TARGET), [None]),
            unsettled=None,
            max_message_size=self.services.limits.max_message,
            properties=None,
        )
        self.session.send(reply._replace(**changes))

    def refuse(self, refusal: ServiceBusError) -> None:
        """Answer the client's attach with an error: empty ends first, then a detach."""
        self.session.send(
            p.Attach(
                self.attach.name,
                self.handle,
                not self.attach.is_receiver,
                initial_delivery_count=0 if self.attach.is_receiver else None,
            )
        )
        self.detach(refusal)

    def detach(self, refusal: ServiceBusError | None = None) -> None:
        """End the link, for a reason if there is one."""
        if self.detached:
            return
        reason = p.error(refusal.condition, str(refusal)) if refusal else None
        self.session.send(p.Detach(self.handle, closed=True, error=reason))
        self.leave()

    def closed_by_client(self, detach: p.Detach) -> None:
        """The client ended the link: agree, unless it only agrees itself."""
        if not self.detached:
            self.session.send(p.Detach(self.handle, closed=detach.closed))
            self.leave()

    def leave(self) -> None:
        """The link is gone, with or without its connection."""
        self.detached = True

    def receive_flow(self, flow: p.Flow) -> None:
        """Take note of the client's view of the link."""
        if flow.echo:
            self.session.flow(self)

    def after(self, fault: Fault | None, confirm: Callable[[], None]) -> None:
        """Confirm an operation that has had its effect, in the way that its fault, if any, says."""
        if fault is None or fault.kind == Kind.BUSY:
            confirm()
        elif fault.kind == Kind.DELAY_ACK:
            self.services.loop.call_later(fault.delay, confirm)
        else:
            self.session.peer.abort()
