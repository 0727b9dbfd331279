"""What queues and topics share: numbering, duplicate detection and scheduled messages."""

import uuid
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .errors import MessageNotFoundError
from .index import PriorityIndex
from .journal import Journal, NoJournal
from .message import Message, State


class Pumped(Protocol):
    """What hands out its messages: a queue, which knows entities and is not known by them."""

    def pump(self) -> None:
        """Hand ready messages to those who wait for them."""


@dataclass
class Surroundings:
    """What an entity needs from outside.

    `now` gives milliseconds since the epoch. `awake` collects the queues in which a message may
    have become available, for the broker to pump.
    """

    now: Callable[[], int]
    journal: Journal = field(default_factory=NoJournal)
    new_token: Callable[[], uuid.UUID] = uuid.uuid4
    awake: set[Pumped] = field(default_factory=set)


class Entity(ABC):
    """A place to send messages to.

    Sequence numbers grow by one. As in Service Bus, a scheduled message has a number for as long
    as it is scheduled, and gets another one when its time comes.
    """

    def __init__(self, path: str, duplicate_window_ms: int, around: Surroundings) -> None:
        self.path = path
        self.messages: dict[int, Message] = {}  # in the order of their sequence numbers
        self._around = around
        self._duplicate_window_ms = duplicate_window_ms
        self._next_sequence = 1
        self._scheduled = PriorityIndex()
        # Message id -> when it is forgotten, in that order. An OrderedDict finds its oldest entry
        # at once; a dict would look at the places of all that were removed before it.
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    @abstractmethod
    def check(self, message: Message) -> None:
        """Raise what this entity refuses the message with, if it does.

        Raises:
            ServiceBusError: it has no place here.
            DecodeError: it cannot be read as far as this entity has to.
        """

    @abstractmethod
    def _activate(self, message: Message) -> None:
        """The time of an accepted message has come."""

    def accept(self, message: Message) -> int:
        """Take in a message that `check` let pass; returns its number, 0 for a duplicate."""
        if self._is_duplicate(message):
            return 0
        if message.scheduled_ms > self._around.now():
            message.state = State.SCHEDULED
            message.enqueued_ms = self._around.now()
            self._store(message)
            self._scheduled.add(message.sequence, message.scheduled_ms)
            return message.sequence
        self._activate(message)
        return message.enqueued_sequence

    def cancel_scheduled(self, sequence: int) -> None:
        """Take back a scheduled message.

        Raises:
            MessageNotFoundError: no message of this number is scheduled.
        """
        message = self.messages.get(sequence)
        if message is None or message.state != State.SCHEDULED:
            raise MessageNotFoundError(f"no scheduled message has the number {sequence}")
        self._scheduled.remove(sequence)
        self._discard(message)

    def tick(self) -> None:
        """Do what has become due."""
        now = self._around.now()
        for sequence in self._scheduled.pop_due(now):
            message = self.messages[sequence]
            self._discard(message)
            message.state = State.ACTIVE
            self._activate(message)
        self._forget_old_ids(now)

    def next_due(self) -> int | None:
        """When `tick` has something to do again."""
        return self._scheduled.first()

    def restore(self, message: Message) -> None:
        """Put a message of an earlier process in its place; messages come in number order."""
        self.messages[message.sequence] = message
        self._scheduled.add(message.sequence, message.scheduled_ms)

    def restore_next_sequence(self, next_sequence: int) -> None:
        """Go on numbering where an earlier process stopped."""
        self._next_sequence = next_sequence

    def restore_id(self, message_id: bytes, until_ms: int) -> None:
        """Remember a message id of an earlier process; ids come in the order of their times."""
        self._seen[message_id] = until_ms

    def _number(self, message: Message) -> None:
        message.sequence = self._next_sequence
        message.enqueued_sequence = message.enqueued_sequence or message.sequence
        self._next_sequence += 1
        self._around.journal.numbered(self.path, self._next_sequence)

    def _store(self, message: Message) -> None:
        self._number(message)
        self.messages[message.sequence] = message
        self._around.journal.added(self.path, message)

    def _discard(self, message: Message) -> None:
        del self.messages[message.sequence]
        self._around.journal.removed(self.path, message.sequence)

    def _is_duplicate(self, message: Message) -> bool:
        if not self._duplicate_window_ms or message.message_id is None:
            return False
        now = self._around.now()
        self._forget_old_ids(now)
        if message.message_id in self._seen:
            return True
        self._seen[message.message_id] = now + self._duplicate_window_ms
        self._around.journal.saw(self.path, message.message_id, self._seen[message.message_id])
        return False

    def _forget_old_ids(self, now: int) -> None:
        while self._seen:
            oldest = next(iter(self._seen))
            if self._seen[oldest] > now:
                return
            del self._seen[oldest]
            self._around.journal.forgot(self.path, oldest)
