"""A queue, the queue of a subscription, or a dead-letter sub-queue: locks and settlement."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from ..codec.values import Value
from .configuration import QueueSettings
from .consumers import Consumer
from .entity import Entity, Surroundings
from .errors import MessageLockLostError, MessageNotFoundError, NotAllowedError
from .index import PriorityIndex
from .message import Message, State

DEAD_LETTER_SUFFIX = "/$DeadLetterQueue"


class Queue(Entity):
    """Messages in the order of their numbers, each with at most one consumer at a time.

    A message is in one of four places: scheduled, ready, locked or deferred. It leaves by being
    completed, by expiring, or for the queue of dead letters.
    """

    def __init__(
        self,
        path: str,
        settings: QueueSettings,
        around: Surroundings,
        *,
        is_dead_letter: bool = False,
    ) -> None:
        super().__init__(path, settings.duplicate_window_ms, around)
        self.settings = settings
        self.consumers: list[Consumer] = []
        self.dead_letters: Queue | None = None
        if not is_dead_letter:
            # Nothing expires or is counted out where the dead letters are.
            kept = replace(
                settings,
                default_ttl_ms=0,
                max_delivery_count=0,
                duplicate_window_ms=0,
                requires_session=False,
            )
            self.dead_letters = Queue(path + DEAD_LETTER_SUFFIX, kept, around, is_dead_letter=True)
        self._ready = PriorityIndex()
        self._expiring = PriorityIndex()
        # All locks last equally long and a renewed lock moves to the end, so that the order of
        # the dictionary is the order in which they expire.
        self._locked: OrderedDict[UUID, Message] = OrderedDict()
        self._turn = 0

    # ---------------------------------------------------------------- coming in

    def check(self, message: Message) -> None:
        """Every message is welcome."""

    def _activate(self, message: Message) -> None:
        message.enqueued_ms = self._around.now()
        ttl = min(filter(None, (message.ttl_ms, self.settings.default_ttl_ms)), default=0)
        message.ttl_ms = ttl
        message.expires_ms = message.enqueued_ms + ttl if ttl else 0
        self._enqueue(message)

    def _enqueue(self, message: Message) -> None:
        self._store(message)
        if message.expires_ms:
            self._expiring.add(message.sequence, message.expires_ms)
        self._make_ready(message)

    def _make_ready(self, message: Message) -> None:
        self._ready.add(message.sequence, message.sequence)
        self._around.awake.add(self)

    def _forget_ready(self, message: Message) -> None:
        self._ready.remove(message.sequence)

    def restore(self, message: Message) -> None:
        """Put a message of an earlier process in its place; messages come in number order."""
        if message.state == State.SCHEDULED:
            super().restore(message)
            return
        self.messages[message.sequence] = message
        if message.expires_ms:
            self._expiring.add(message.sequence, message.expires_ms)
        if message.lock_token is not None:
            self._locked[message.lock_token] = message
        elif message.state == State.ACTIVE:
            self._make_ready(message)

    def restored(self) -> None:
        """All messages of an earlier process are in their places."""
        in_order = sorted(self._locked.items(), key=lambda item: item[1].locked_until_ms)
        self._locked = OrderedDict(in_order)

    # ---------------------------------------------------------------- going out

    def pump(self) -> None:
        """Hand ready messages to the consumers that have credit, in turn."""
        while self._ready:
            consumer = self._next_consumer()
            sequence = self._ready.pop() if consumer else None
            if consumer is None or sequence is None:
                return
            self._hand_over(self.messages[sequence], consumer)

    def _next_consumer(self) -> Consumer | None:
        count = len(self.consumers)
        for step in range(count):
            consumer = self.consumers[(self._turn + step) % count]
            if consumer.credit > 0:
                self._turn = (self._turn + step + 1) % count
                return consumer
        return None

    def _hand_over(self, message: Message, consumer: Consumer) -> None:
        if self._has_expired(message):  # since the last tick
            self._expire(message)
            return
        if consumer.deletes_on_receive:
            self._remove(message)
        else:
            self._lock(message)
        consumer.deliver(message)

    def receive_deferred(self, sequences: Iterable[int], *, delete: bool) -> list[Message]:
        """Lock, or take out, deferred messages by their numbers: all of them or none.

        Raises:
            MessageNotFoundError: one of them is not deferred or is locked.
        """
        messages = []
        for sequence in dict.fromkeys(sequences):
            message = self.messages.get(sequence)
            if message is None or message.state != State.DEFERRED or message.lock_token:
                raise MessageNotFoundError(f"no deferred message has the number {sequence}")
            messages.append(message)
        for message in messages:
            if delete:
                self._remove(message)
            else:
                self._lock(message)
        return messages

    def peek(self, start: int, count: int, session_id: str | None = None) -> list[Message]:
        """The first `count` messages from the number `start` on, whatever their state."""
        found: list[Message] = []
        for sequence, message in self.messages.items():
            if len(found) == count:
                break
            if sequence >= start and session_id in (None, message.session_id):
                found.append(message)
        return found

    # ---------------------------------------------------------------- locks

    def _lock(self, message: Message) -> None:
        message.lock_token = self._around.new_token()
        message.locked_until_ms = self._around.now() + self.settings.lock_ms
        self._locked[message.lock_token] = message
        self._around.journal.changed(self.path, message)

    def _held(self, token: UUID) -> Message:
        message = self._locked.get(token)
        if message is None or message.locked_until_ms <= self._around.now():
            raise MessageLockLostError(
                "The lock supplied is invalid. Either the lock expired, or the message has already "
                "been removed from the queue."
            )
        return message

    def _unlock(self, token: UUID) -> Message:
        message = self._held(token)
        del self._locked[token]
        message.lock_token = None
        return message

    def renew(self, token: UUID) -> int:
        """Begin the lock's duration anew; returns when it ends, in milliseconds.

        Raises:
            MessageLockLostError: the lock has expired or its message is settled.
        """
        message = self._held(token)
        message.locked_until_ms = self._around.now() + self.settings.lock_ms
        self._locked.move_to_end(token)
        self._around.journal.changed(self.path, message)
        return message.locked_until_ms

    def _release(self, message: Message, *, counted: bool) -> None:
        """Make a message that is no longer locked available again, if it still may be."""
        message.lock_token = None
        limit = self.settings.max_delivery_count
        message.delivery_count += counted
        if counted and limit and message.delivery_count >= limit:
            self._set_aside(
                message,
                "MaxDeliveryCountExceeded",
                f"Message could not be consumed after {message.delivery_count} delivery attempts.",
            )
        elif self._has_expired(message):
            self._expire(message)
        else:
            self._around.journal.changed(self.path, message)
            if message.state == State.ACTIVE:
                self._make_ready(message)

    # ---------------------------------------------------------------- settlement

    def complete(self, token: UUID) -> None:
        """Remove a message for good.

        Raises:
            MessageLockLostError: the lock has expired or its message is settled.
        """
        self._remove(self._unlock(token))

    def release(self, token: UUID) -> None:
        """Give a message back without counting the delivery."""
        self._release(self._unlock(token), counted=False)

    def abandon(self, token: UUID, properties: dict[str, Value] | None = None) -> None:
        """Give a message back for another try."""
        message = self._unlock(token)
        self._change_properties(message, properties)
        self._release(message, counted=True)

    def defer(self, token: UUID, properties: dict[str, Value] | None = None) -> None:
        """Set a message apart: from now on it is received by its number only."""
        message = self._unlock(token)
        self._change_properties(message, properties)
        message.state = State.DEFERRED
        message.delivery_count += 1
        self._around.journal.changed(self.path, message)

    def dead_letter(
        self,
        token: UUID,
        reason: str | None = None,
        description: str | None = None,
        properties: dict[str, Value] | None = None,
    ) -> None:
        """Move a message to the dead-letter queue.

        Raises:
            NotAllowedError: this is the dead-letter queue.
        """
        if self.dead_letters is None:
            raise NotAllowedError("a message of a dead-letter queue cannot be dead-lettered")
        message = self._unlock(token)
        self._change_properties(message, properties)
        self._set_aside(message, reason, description)

    def _change_properties(self, message: Message, properties: dict[str, Value] | None) -> None:
        if properties:
            message.set_application_properties(properties)
            self._around.journal.added(self.path, message)

    def _remove(self, message: Message) -> None:
        self._expiring.remove(message.sequence)
        self._discard(message)

    def _set_aside(self, message: Message, reason: str | None, description: str | None) -> None:
        self._remove(message)
        if self.dead_letters is None:
            raise AssertionError("dead letters stay where they are")
        why = {"DeadLetterReason": reason, "DeadLetterErrorDescription": description}
        message.set_application_properties({key: text for key, text in why.items() if text})
        message.state, message.dead_letter_source = State.ACTIVE, self.path
        message.scheduled_ms = message.expires_ms = 0
        self.dead_letters._enqueue(message)

    # ---------------------------------------------------------------- time

    def tick(self) -> None:
        """Do what has become due: scheduled messages, expired locks, expired messages."""
        super().tick()
        self._expire_locks()
        for sequence in self._expiring.pop_due(self._around.now()):
            message = self.messages[sequence]
            # A locked message may still be settled; it expires when it comes back.
            if message.lock_token is None:
                self._forget_ready(message)
                self._expire(message)

    def _expire_locks(self) -> None:
        now = self._around.now()
        while self._locked:
            token, message = next(iter(self._locked.items()))
            if message.locked_until_ms > now:
                return
            del self._locked[token]
            self._release(message, counted=True)

    def _has_expired(self, message: Message) -> bool:
        return 0 < message.expires_ms <= self._around.now()

    def _expire(self, message: Message) -> None:
        if self.settings.dead_letter_on_expiration and self.dead_letters is not None:
            self._set_aside(
                message, "TTLExpiredException", "The message expired and was dead lettered."
            )
        else:
            self._remove(message)

    def next_due(self) -> int | None:
        """When `tick` has something to do again."""
        times = (super().next_due(), self._expiring.first(), self._next_lock_expiry())
        return min((time for time in times if time is not None), default=None)

    def _next_lock_expiry(self) -> int | None:
        return next((message.locked_until_ms for message in self._locked.values()), None)
