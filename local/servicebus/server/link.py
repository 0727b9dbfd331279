"""What both directions of a link share: how it opens, is refused, and ends."""

from typing import TYPE_CHECKING, Any

from ..broker.errors import ServiceBusError
from ..codec import performatives as p
from ..codec.reading import DecodeError
from ..codec.values import Described, ULong, Value

if TYPE_CHECKING:
    from .channel import Channel


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
    """What both directions share. `node` is set where requests are answered, else `entity`."""

    def __init__(self, channel: "Channel", client: p.Attach, path: str) -> None:
        self.channel, self.server = channel, channel.server
        self.handle = client.handle
        self.attach, self.path = client, path
        self.credit = self.delivery_count = 0
        self.node: str | None = None
        self.target_address = terminus_fields(client.target, 1)[0]
        self.detached = False

    def accept(self, **changes: Any) -> None:
        """Answer the client's attach: the link is open."""
        reply = self.attach._replace(
            is_receiver=not self.attach.is_receiver,
            source=self.attach.source or Described(ULong(p.SOURCE), [None]),
            target=self.attach.target or Described(ULong(p.TARGET), [None]),
            unsettled=None,
            max_message_size=self.server.limits.max_message,
            properties=None,
        )
        self.channel.send(reply._replace(**changes))

    def refuse(self, refusal: ServiceBusError) -> None:
        """Answer the client's attach with an error: empty ends first, then a detach."""
        self.channel.send(
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
        self.channel.send(p.Detach(self.handle, closed=True, error=reason))
        self.leave()

    def closed_by_client(self, detach: p.Detach) -> None:
        """The client ended the link: agree, unless it only agrees itself."""
        if not self.detached:
            self.channel.send(p.Detach(self.handle, closed=detach.closed))
            self.leave()

    def leave(self) -> None:
        """The link is gone, with or without its connection."""
        self.detached = True

    def receive_flow(self, flow: p.Flow) -> None:
        """Take note of the client's view of the link."""
        if flow.echo:
            self.channel.flow(self)
