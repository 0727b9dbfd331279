"""Links to a client: a consumer of a queue, or the way back of replies."""

import asyncio
import uuid
from functools import partial

from ..broker.errors import (
    NotAllowedError,
    ServerBusyError,
    ServiceBusError,
    SessionLockLostError,
    WaitTimeoutError,
)
from ..broker.message import Message
from ..broker.queues import Queue
from ..broker.sessions import Session, SessionQueue
from ..codec import performatives as p
from ..codec.reading import DecodeError
from ..codec.values import Described, Symbol, ULong, Value
from .faults import Kind, Operation
from .link import AmqpSession, Delivery, Link, terminus_fields

_SETTLED = 1  # snd-settle-mode: the sender does not wait for an outcome
_SESSION_FILTER = "com.microsoft:session-filter"
_TICKS_AT_EPOCH = 621_355_968_000_000_000  # of 100 ns, as .NET counts them from the year 1
_DEFAULT_SESSION_WAIT_MS = 60_000


class Outbound(Link):
    """Messages to a client: a consumer of a queue, or the way replies take."""

    def __init__(self, session: AmqpSession, client: p.Attach, path: str) -> None:
        super().__init__(session, client, path)
        self.queue: Queue | None = None
        self._wait: asyncio.TimerHandle | None = None
        self.deletes_on_receive = client.snd_settle_mode == _SETTLED

    # ---------------------------------------------------------------- a consumer

    def open(self) -> None:
        """Open the link; at a queue with sessions, the link opens once a session is free."""
        if isinstance(self.queue, SessionQueue):
            self._ask_for_session(self.queue)
            return
        if self.queue is not None:
            if self._session_filter() is not None:
                raise NotAllowedError("A session receiver cannot be created on this entity.")
            self.queue.consumers.append(self)
        self.accept(initial_delivery_count=0)

    def _session_filter(self) -> tuple[Value, Value] | None:
        """The key and value of the client's session filter; a None value asks for any session."""
        filters = terminus_fields(self.attach.source, 8)[7] or {}
        if not isinstance(filters, dict):
            raise DecodeError("the filters of a source are no map")
        for key, value in filters.items():
            if key == _SESSION_FILTER:
                return key, value.value if isinstance(value, Described) else value
        return None

    def _ask_for_session(self, queue: SessionQueue) -> None:
        wanted = self._session_filter()
        if wanted is None:
            raise NotAllowedError(
                "It is not possible for an entity that requires sessions to create a "
                "non-sessionful message receiver."
            )
        if wanted[1] is not None:
            self.session_granted(queue.acquire(self, str(wanted[1])))
            return
        wait_ms = (self.attach.properties or {}).get(
            "com.microsoft:timeout", _DEFAULT_SESSION_WAIT_MS
        )
        if not isinstance(wait_ms, int):
            raise DecodeError("the time to wait for a session is no number")
        queue.wait_for_session(self)
        self._wait = self.services.loop.call_later(wait_ms / 1000, self._waited_enough, queue)

    def _waited_enough(self, queue: SessionQueue) -> None:
        queue.stop_waiting(self)
        if not self.detached:
            self.refuse(WaitTimeoutError("No session with messages became free in time."))

    def session_granted(self, session: Session) -> None:
        """A session is this link's: tell the client which."""
        if self._wait is not None:
            self._wait.cancel()
        key = (self._session_filter() or (Symbol(_SESSION_FILTER), None))[0]
        source = terminus_fields(self.attach.source, 11)
        source[7] = {key: session.id}
        ticks = session.locked_until_ms * 10_000 + _TICKS_AT_EPOCH
        self.accept(
            source=Described(ULong(p.SOURCE), source),
            initial_delivery_count=0,
            properties={Symbol("com.microsoft:locked-until-utc"): ticks},
        )

    def session_lost(self) -> None:
        """The session's lock has expired: the link ends with it."""
        self.detach(SessionLockLostError("The session lock has expired on the receiver."))

    def deliver(self, message: Message) -> None:
        """Send a message of the queue."""
        fault = self.services.faults.draw(Operation.DELIVER, self.path)
        token = message.lock_token
        tag = (token or uuid.uuid4()).bytes_le
        self.send(tag, message.wire(), token)
        if fault and fault.kind == Kind.DROP:
            self.services.loop.call_soon(self.session.peer.abort)
        elif fault and self.queue is not None and token is not None:
            self.queue.abandon(token)

    def send(self, tag: bytes, payload: bytes, token: uuid.UUID | None = None) -> None:
        """Send an encoded message; without a token it is settled as it is sent."""
        self.credit -= 1
        self.delivery_count = (self.delivery_count + 1) % 2**32
        settle = partial(self.settle, token) if token is not None else None
        self.session.deliver(Delivery(self, tag, payload, settle))

    def receive_flow(self, flow: p.Flow) -> None:
        """Take the client's credit; with `drain`, use what can be used of it at once."""
        sent = (self.delivery_count - (flow.delivery_count or 0)) % 2**32
        self.credit = max(0, (flow.link_credit or 0) - sent)
        if self.queue is not None:
            self.services.broker.wake(self.queue)
        if flow.drain:
            self.services.broker.pump()
            self.delivery_count = (self.delivery_count + self.credit) % 2**32
            self.credit = 0
            self.session.flow(self, drained=True)
        elif flow.echo:
            self.session.flow(self)

    def leave(self) -> None:
        """Messages that were delivered stay locked until they are settled or their locks expire."""
        self.detached = True
        if self.queue is not None and self in self.queue.consumers:
            self.queue.consumers.remove(self)
        if isinstance(self.queue, SessionQueue):
            self.queue.leave(self)
        if self._wait is not None:
            self._wait.cancel()

    # ---------------------------------------------------------------- settlement

    def settle(self, token: uuid.UUID, number: int, disposition: p.Disposition) -> bool:
        """Do what the client decided about a delivery, and confirm it if it waits for that.

        Returns whether the delivery is done with; a client may ask again if it is not.
        """
        fault = self.services.faults.draw(Operation.SETTLE, self.path)
        if fault and fault.kind == Kind.DROP:
            self.session.peer.abort()
            return False
        busy = fault is not None and fault.kind == Kind.BUSY
        try:
            if busy:
                raise ServerBusyError
            outcome = self._apply(token, disposition.state or p.outcome(p.ACCEPTED))
        except ServiceBusError as refusal:
            outcome = p.outcome(p.REJECTED, p.error(refusal.condition, str(refusal)))
        if not disposition.settled:
            self.after(fault, lambda: self.session.settled(number, outcome))
        return not busy

    def _apply(self, token: uuid.UUID, state: Described) -> Described:
        """Settle by the client's outcome; returns the outcome that confirms it."""
        queue = self.queue
        if queue is None:
            raise NotAllowedError("replies are not settled")
        fields = [*state.value, None, None, None] if isinstance(state.value, list) else [None] * 3
        match state.descriptor:
            case p.ACCEPTED:
                queue.complete(token)
            case p.RELEASED:
                queue.release(token)
            case p.MODIFIED if fields[1]:
                queue.defer(token, _text_keys(fields[2]))
            case p.MODIFIED:
                queue.abandon(token, _text_keys(fields[2]))
            case p.REJECTED:
                details = _rejection(fields[0])
                reason = details.pop("DeadLetterReason", None)
                description = details.pop("DeadLetterErrorDescription", None)
                queue.dead_letter(token, reason, description, details)
                # An error here would tell the client that dead-lettering failed.
                return p.outcome(p.REJECTED)
            case other:
                raise NotAllowedError(f"a delivery cannot be settled with {other!r}")
        return state


def _text_keys(values: Value) -> dict[str, Value]:
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}


def _rejection(error: Value) -> dict[str, Value]:
    """The details of a rejection, with its description where they have none."""
    if not isinstance(error, Described) or not isinstance(error.value, list):
        return {}
    _, description, details = [*error.value, None, None, None][:3]
    return {"DeadLetterErrorDescription": description, **_text_keys(details)}
