"""A queue whose messages are received by session: one consumer a session, in order."""

from collections.abc import Iterable
from typing import Protocol

from .configuration import QueueSettings
from .consumers import Consumer
from .entity import Surroundings
from .errors import NotAllowedError, SessionCannotBeLockedError, SessionLockLostError
from .index import PriorityIndex
from .message import Message
from .queues import Queue


class SessionConsumer(Consumer, Protocol):
    """A consumer that asks for sessions."""

    def session_granted(self, session: "Session") -> None:
        """A session is this consumer's; its messages follow as there is credit."""

    def session_lost(self) -> None:
        """The session's lock has expired."""


class Session:
    """The messages of one session id, and who may receive them.

    `owner` is the consumer that holds the session's lock until `locked_until_ms`.
    """

    def __init__(self, session_id: str) -> None:
        self.id = session_id
        self.state: bytes | None = None
        self.ready = PriorityIndex()
        self.owner: SessionConsumer | None = None
        self.locked_until_ms = 0


class SessionQueue(Queue):
    """A queue with RequiresSession.

    The lock is the session's: its messages have no time of their own, and all come back when the
    session's lock expires (which counts as a delivery) or its consumer leaves (which does not).
    Source: "Message sessions", "Impact of delivery count", Microsoft Learn.
    """

    def __init__(self, path: str, settings: QueueSettings, around: Surroundings) -> None:
        super().__init__(path, settings, around)
        self._sessions: dict[str, Session] = {}
        self._held_sessions: dict[str, Session] = {}
        self._waiting: list[SessionConsumer] = []

    def check(self, message: Message) -> None:
        """Refuse a message without a session.

        Raises:
            NotAllowedError: it has no session id.
        """
        if not message.session_id:
            raise NotAllowedError(
                "The SessionId was not set on a message, and it cannot be sent to the entity. "
                "Entities that have session support enabled can only receive messages that have "
                "the SessionId set to a valid value."
            )

    def _activate(self, message: Message) -> None:
        if message.session_id:
            super()._activate(message)
            return
        # A topic takes any message; only this subscription of it has no place for this one.
        message.enqueued_ms = self._around.now()
        self._store(message)
        self._set_aside(message, "Session id is null.", "Session enabled entity.")

    # ---------------------------------------------------------------- who holds what

    def acquire(self, consumer: SessionConsumer, session_id: str) -> Session:
        """Give a consumer the session it names, which need not have messages yet.

        Raises:
            SessionCannotBeLockedError: another consumer holds it.
        """
        self._expire_locks()
        if session_id in self._held_sessions:
            raise SessionCannotBeLockedError(
                f"The requested session '{session_id}' cannot be accepted. It may be locked by "
                "another receiver."
            )
        return self._grant(self._session(session_id), consumer)

    def wait_for_session(self, consumer: SessionConsumer) -> None:
        """Give a consumer the next session that has messages, at the next `pump` that can."""
        self._waiting.append(consumer)
        self._around.awake.add(self)

    def stop_waiting(self, consumer: SessionConsumer) -> None:
        """The consumer has waited long enough."""
        if consumer in self._waiting:
            self._waiting.remove(consumer)

    def leave(self, consumer: SessionConsumer) -> None:
        """The consumer is gone: its session is free, what it had locked comes back uncounted."""
        self.stop_waiting(consumer)
        for session in list(self._held_sessions.values()):
            if session.owner is consumer:
                self._free(session, counted=False)

    def renew_session(self, session_id: str) -> int:
        """Begin the session lock's duration anew; returns when it ends, in milliseconds."""
        session = self._held_session(session_id)
        session.locked_until_ms = self._around.now() + self.settings.lock_ms
        for message in self._locked.values():
            if message.session_id == session_id:
                message.locked_until_ms = session.locked_until_ms
        return session.locked_until_ms

    def session_state(self, session_id: str) -> bytes | None:
        """The state that was last set; raises SessionLockLostError where nobody holds it."""
        return self._held_session(session_id).state

    def set_session_state(self, session_id: str, state: bytes | None) -> None:
        """Keep a state with the session; raises SessionLockLostError where nobody holds it."""
        self._held_session(session_id).state = state
        self._around.journal.session(self.path, session_id, state)

    def receive_deferred(self, sequences: Iterable[int], *, delete: bool) -> list[Message]:
        """Lock, or take out, deferred messages of sessions that are held.

        A message's lock ends with its session's.

        Raises:
            SessionLockLostError: nobody holds the session of one of them.
        """
        numbers = list(sequences)
        for number in numbers:
            if (message := self.messages.get(number)) is not None:
                self._held_session(message.session_id or "")
        return super().receive_deferred(numbers, delete=delete)

    def restore_session(self, session_id: str, state: bytes) -> None:
        """Put a session's state of an earlier process in its place."""
        self._session(session_id).state = state

    def sessions_with_messages(self) -> list[str]:
        """The ids of the sessions in which a message is ready."""
        return [session.id for session in self._sessions.values() if session.ready]

    def _session(self, session_id: str) -> Session:
        return self._sessions.setdefault(session_id, Session(session_id))

    def _held_session(self, session_id: str) -> Session:
        self._expire_locks()
        session = self._held_sessions.get(session_id)
        if session is None:
            raise SessionLockLostError(f"The lock of the session '{session_id}' has expired.")
        return session

    def _grant(self, session: Session, consumer: SessionConsumer) -> Session:
        session.owner = consumer
        session.locked_until_ms = self._around.now() + self.settings.lock_ms
        self._held_sessions[session.id] = session
        self._around.awake.add(self)
        return session

    def _free(self, session: Session, *, counted: bool) -> None:
        session.owner = None
        del self._held_sessions[session.id]
        for token, message in list(self._locked.items()):
            if message.session_id == session.id:
                del self._locked[token]
                self._release(message, counted=counted)
        if session.state is None and not session.ready:
            self._sessions.pop(session.id, None)
        self._around.awake.add(self)

    # ---------------------------------------------------------------- a queue's work, by session

    def _make_ready(self, message: Message) -> None:
        self._session(message.session_id or "").ready.add(message.sequence, message.sequence)
        self._around.awake.add(self)

    def _forget_ready(self, message: Message) -> None:
        session = self._sessions.get(message.session_id or "")
        if session is None:
            return
        session.ready.remove(message.sequence)
        if not session.ready and session.owner is None and session.state is None:
            del self._sessions[session.id]

    def pump(self) -> None:
        """Grant free sessions to those who wait; hand messages to those who hold one."""
        while self._waiting and (session := self._next_free_session()):
            consumer = self._waiting.pop(0)
            self._grant(session, consumer)
            consumer.session_granted(session)
        for session in list(self._held_sessions.values()):
            while session.owner is not None and session.owner.credit > 0:
                sequence = session.ready.pop()
                if sequence is None:
                    break
                self._hand_over(self.messages[sequence], session.owner)

    def _next_free_session(self) -> Session | None:
        free = (s for s in self._sessions.values() if s.owner is None and s.ready)
        return min(free, key=lambda session: session.ready.first() or 0, default=None)

    def _lock(self, message: Message) -> None:
        super()._lock(message)
        held = self._held_sessions.get(message.session_id or "")
        if held is not None:
            message.locked_until_ms = held.locked_until_ms

    def _expire_locks(self) -> None:
        now = self._around.now()
        for session in list(self._held_sessions.values()):
            if session.locked_until_ms <= now and session.owner is not None:
                owner = session.owner
                self._free(session, counted=True)
                owner.session_lost()

    def _next_lock_expiry(self) -> int | None:
        return min((s.locked_until_ms for s in self._held_sessions.values()), default=None)

    def restored(self) -> None:
        """All messages are in their places; sessions ended with the connections that held them."""
        for token, message in list(self._locked.items()):
            del self._locked[token]
            self._release(message, counted=False)
