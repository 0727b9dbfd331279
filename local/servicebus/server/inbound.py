"""Links from a client: messages to a queue or topic, requests to a node."""

from ..broker.entity import Entity
from ..broker.errors import MessageTooLargeError, ServerBusyError, ServiceBusError
from ..broker.message import Message
from ..codec import performatives as p
from ..codec.reading import DecodeError
from ..codec.sections import unbatch
from ..codec.values import Described, Symbol, UInt
from . import requests
from .faults import Kind, Operation
from .link import AmqpSession, Link

_CREDIT = 1000
_MAX_REQUEST_FACTOR = 4  # a request may schedule several messages


class Inbound(Link):
    """Messages from a client, which may each come in several transfers."""

    def __init__(self, session: AmqpSession, client: p.Attach, path: str) -> None:
        super().__init__(session, client, path)
        self.delivery_count = client.initial_delivery_count or 0
        self.entity: Entity | None = None
        self._first: p.Transfer | None = None
        self._data = bytearray()

    def open(self) -> None:
        """Open the link and let the client send."""
        batch = {
            Symbol("com.microsoft:max-message-batch-size"): UInt(self.services.limits.max_message)
        }
        self.accept(properties=batch)
        self._grant()

    def _grant(self) -> None:
        self.credit = _CREDIT
        self.session.flow(self)

    def receive(self, transfer: p.Transfer, payload: bytes) -> None:
        """Take a transfer; once the message is complete, deal with it."""
        if self.detached:
            return
        first = self._first = self._first or transfer
        # Of a message that is too large, no more is kept than it takes to see that.
        if len(self._data) <= self._limit():
            self._data += payload
        if transfer.more and not transfer.aborted:
            return
        data, self._first, self._data = bytes(self._data), None, bytearray()
        self.delivery_count = (self.delivery_count + 1) % 2**32
        self.credit -= 1
        if not transfer.aborted:
            self._handle(first, data)
        if self.credit <= _CREDIT // 2:
            self._grant()

    def _limit(self) -> int:
        limit = self.services.limits.max_message
        return limit if self.entity is not None else _MAX_REQUEST_FACTOR * limit

    def _handle(self, first: p.Transfer, data: bytes) -> None:
        if self.entity is None:
            if len(data) > self._limit():
                raise DecodeError("the request is too large")
            requests.answer(self, data)
            self._confirm(first, p.outcome(p.ACCEPTED))
            return
        fault = self.services.faults.draw(Operation.SEND, self.path)
        if fault and fault.kind == Kind.DROP:
            self.session.peer.abort()
            return
        try:
            if fault and fault.kind == Kind.BUSY:
                raise ServerBusyError
            if len(data) > self._limit():
                raise MessageTooLargeError(
                    f"The received message is larger than the limit of {self._limit()} bytes."
                )
            _take(self.entity, unbatch(data, first.message_format or 0))
            outcome = p.outcome(p.ACCEPTED)
        except DecodeError as error:
            outcome = p.outcome(p.REJECTED, p.error("amqp:decode-error", str(error)))
        except ServiceBusError as refusal:
            outcome = p.outcome(p.REJECTED, p.error(refusal.condition, str(refusal)))
        self.after(fault, lambda: self._confirm(first, outcome))

    def _confirm(self, first: p.Transfer, outcome: Described) -> None:
        if not first.settled and first.delivery_id is not None:
            number = first.delivery_id
            self.session.send(p.Disposition(True, number, number, True, outcome))


def _take(entity: Entity, encoded: list[bytes]) -> None:
    """Take in all messages of a batch or, if one is refused, none."""
    messages = [Message.parse(one) for one in encoded]
    for message in messages:
        entity.check(message)
    for message in messages:
        entity.accept(message)
