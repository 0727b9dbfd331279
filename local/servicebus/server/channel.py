"""One AMQP session of a connection (called channel here: Service Bus has sessions of its own).

It numbers deliveries, keeps the client's transfer window, and brings frames to their links.
"""

from collections import deque
from random import randrange

from ..codec import performatives as p
from ..codec.values import Described, Value
from .attaching import open_link
from .context import Peer, Services
from .errors import ProtocolError
from .inbound import Inbound
from .link import Delivery, Link
from .outbound import Outbound

HANDLE_MAX = 255
_WINDOW = 2**31 - 1
_SERIAL = 2**32


class Channel:
    """An AMQP session."""

    def __init__(self, peer: Peer, services: Services, number: int, client: p.Begin) -> None:
        self.peer, self.services = peer, services
        self.links: dict[int, Inbound | Outbound] = {}
        # A client may settle, after its connection broke, by the number that a delivery had on the
        # old one. Starting anywhere makes such a number mean nothing here, instead of another
        # message.
        self.next_outgoing = self._next_delivery = randrange(1, 2**31)
        self._next_incoming = client.next_outgoing_id
        self._window = client.incoming_window
        self._pending: deque[Delivery] = deque()
        self._unsettled: dict[int, Delivery] = {}
        self._number = number

    def send(self, performative: object, payload: bytes = b"") -> None:
        """Queue a frame."""
        self.peer.send(self._number, performative, payload)

    def leave(self) -> None:
        """The session is over: its links are gone."""
        for link in self.links.values():
            link.leave()
        self.links.clear()

    def receive(self, performative: p.Performative, payload: bytes) -> None:
        """Handle a frame of this session."""
        match performative:
            case p.Transfer():
                self._next_incoming = (self._next_incoming + 1) % _SERIAL
                link = self.links.get(performative.handle)
                if isinstance(link, Inbound):
                    link.receive(performative, payload)
            case p.Disposition(is_receiver=True):
                self._settle(performative)
            case p.Flow():
                self._flow(performative)
            case p.Attach(handle=handle) if handle in self.links:
                raise ProtocolError("amqp:session:handle-in-use", f"handle {handle} is in use")
            case p.Attach(handle=handle) if handle > HANDLE_MAX:
                raise ProtocolError("amqp:connection:framing-error", f"no handle may be {handle}")
            case p.Attach():
                self.links[performative.handle] = open_link(self, performative)
            case p.Detach():
                link = self.links.pop(performative.handle, None)
                if link is not None:
                    link.closed_by_client(performative)
                    self._forget(link)
            case _:
                pass  # a sender's word on its own deliveries changes nothing here

    def _forget(self, link: Link) -> None:
        """Nothing is delivered or settled any more over a link that is closed."""
        self._pending = deque(item for item in self._pending if item.link is not link)
        for number, delivery in list(self._unsettled.items()):
            if delivery.link is link:
                del self._unsettled[number]

    # ---------------------------------------------------------------- to the client

    def deliver(self, delivery: Delivery) -> None:
        """Send a message, now or when the client's window allows."""
        self._pending.append(delivery)
        self._send_pending()

    def _send_pending(self) -> None:
        while self._pending and self._window > 0:
            self._transfer(self._pending.popleft())

    def _transfer(self, delivery: Delivery) -> None:
        link, payload, limit = delivery.link, delivery.payload, self.peer.peer_max_frame - 64
        number, self._next_delivery = self._next_delivery, (self._next_delivery + 1) % _SERIAL
        if delivery.settle is not None:
            self._unsettled[number] = delivery
        transfer = p.Transfer(link.handle, number, delivery.tag, 0, delivery.settle is None)
        for start in range(0, len(payload), limit):
            more = start + limit < len(payload)
            self.send(transfer._replace(more=more), payload[start : start + limit])
            transfer = p.Transfer(link.handle)
            self._window -= 1
            self.next_outgoing = (self.next_outgoing + 1) % _SERIAL

    def flow(self, link: Link | None = None, *, drained: bool | None = None) -> None:
        """Tell the client where the session, and one of its links, stands."""
        flow = p.Flow(self._next_incoming, _WINDOW, self.next_outgoing, _WINDOW)
        if link is not None:
            flow = flow._replace(
                handle=link.handle,
                delivery_count=link.delivery_count,
                link_credit=link.credit,
                drain=drained,
            )
        self.send(flow)

    # ---------------------------------------------------------------- from the client

    def _flow(self, flow: p.Flow) -> None:
        next_id = flow.next_incoming_id
        expected = self.next_outgoing if next_id is None else next_id
        in_flight = (self.next_outgoing - expected) % _SERIAL
        self._window = max(0, flow.incoming_window - in_flight)
        self._send_pending()
        link = self.links.get(flow.handle) if flow.handle is not None else None
        if link is not None:
            link.receive_flow(flow)
        elif flow.echo:
            self.flow()

    def _settle(self, disposition: p.Disposition) -> None:
        first = disposition.first
        last = first if disposition.last is None else disposition.last
        # The range is the client's word: walk what is known, not what it may span.
        known = [first] if first == last else [n for n in self._unsettled if first <= n <= last]
        for number in known:
            delivery = self._unsettled.get(number)
            if delivery is not None and delivery.settle is not None:
                if delivery.settle(number, disposition):
                    del self._unsettled[number]
            elif not disposition.settled:
                self.settled(number, p.outcome(p.REJECTED, _unknown_delivery()))

    def settled(self, number: int, state: Described) -> None:
        """Confirm to the client what became of a delivery."""
        self.send(
            p.Disposition(is_receiver=False, first=number, last=number, settled=True, state=state)
        )

    def reply(self, node: str, address: Value, data: bytes) -> None:
        """Send an encoded message to the client's receiver on a node that answers requests."""
        self.peer.reply(self._number, node, address, data)

    def receivers(self, node: str) -> list[Outbound]:
        """The links over which the client takes what a node answers."""
        links = self.links.values()
        return [link for link in links if isinstance(link, Outbound) and link.node == node]


def _unknown_delivery() -> Described:
    return p.error(
        "com.microsoft:message-lock-lost",
        "The delivery is not known here: it is settled, or came over another connection.",
    )
