"""Service Bus in memory: queues with peek-lock, topics that keep what was published; any clock.

The receiving side is for whoever plays the Functions host. A receiver that dies simply never
settles: its locks run out and its messages come again.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from workers.ports import OutMessage, Received
from workers.ports.errors import Unavailable

MESSAGE_BYTES = 256 * 1024
DEAD_LETTERS = "/$deadletterqueue"


class LockLost(Exception):
    """The message is not locked by this delivery any more; it may be somebody else's by now."""


@dataclass(frozen=True, slots=True)
class QueueRules:
    """A queue's properties, with the defaults of `Config.json`."""

    lock_seconds: float = 60.0
    max_deliveries: int = 10


@dataclass(frozen=True, slots=True)
class Delivery:
    """A locked message. `delivery_count` is 1 on the first delivery, as triggers show it."""

    queue: str
    message: OutMessage
    sequence: int
    delivery_count: int
    locked_until: float
    dead_letter_reason: str | None = None


@dataclass(slots=True)
class _Kept:
    """A message in a queue; `lock` is the delivery that has it."""

    message: OutMessage
    sequence: int
    visible_at: float
    deliveries: int = 0
    lock: Delivery | None = None
    reason: str | None = None


@dataclass(slots=True)
class _Queue:
    rules: QueueRules
    kept: dict[int, _Kept] = field(default_factory=dict)


def received(delivery: Delivery) -> Received:
    """A delivery as a handler gets it."""
    return Received(
        body=delivery.message.body,
        message_id=delivery.message.message_id,
        correlation_id=delivery.message.correlation_id,
        deliveries=delivery.delivery_count,
        properties=dict(delivery.message.properties),
    )


class MemoryBus:
    """Queues by name with their rules (or names alone), topics by name.

    A topic drops a repeated message id for `duplicate_seconds`, as `job-status` does.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        queues: Mapping[str, QueueRules] | Iterable[str] = ("jobs", "shards", "webhooks"),
        topics: Iterable[str] = ("job-status",),
        duplicate_seconds: float = 600.0,
    ) -> None:
        rules = dict(queues) if isinstance(queues, Mapping) else {n: QueueRules() for n in queues}
        self.published: dict[str, list[OutMessage]] = {topic: [] for topic in topics}
        self._clock = clock
        self._sequences = count(1)
        self._seen: dict[tuple[str, str], float] = {}
        self._duplicate_seconds = duplicate_seconds
        self._queues: dict[str, _Queue] = {}
        for name, rule in rules.items():
            self._queues[name] = _Queue(rule)
            # What lies there stays there, however often it is looked at.
            self._queues[name + DEAD_LETTERS] = _Queue(replace(rule, max_deliveries=1 << 31))

    async def send(self, entity: str, messages: Sequence[OutMessage]) -> None:
        await asyncio.sleep(0)
        if any(len(message.body) > MESSAGE_BYTES for message in messages):
            raise ValueError(f"a message to {entity} is too large")
        if not messages:
            return
        if entity in self.published:
            self._publish(entity, messages)
        elif entity in self._queues and not entity.endswith(DEAD_LETTERS):
            for message in messages:
                self._keep(self._queues[entity], message)
        else:
            raise Unavailable(f"no entity {entity}")

    async def take_dead(
        self, queue: str, handle: Callable[[Received], Awaitable[None]], most: int
    ) -> int:
        if queue not in self._queues:
            raise Unavailable(f"no queue {queue}")
        for taken in range(most):
            await asyncio.sleep(0)
            delivery = self.receive(queue + DEAD_LETTERS)
            if delivery is None:
                return taken
            try:
                await handle(received(delivery))
            except BaseException:
                with contextlib.suppress(LockLost):
                    self.abandon(delivery)
                raise
            with contextlib.suppress(LockLost):
                self.complete(delivery)
        return most

    async def reach(self, queue: str) -> None:
        await asyncio.sleep(0)
        if queue not in self._queues:
            raise Unavailable(f"no queue {queue}")

    def receive(self, queue: str) -> Delivery | None:
        """Lock the oldest message that can be had; None where there is none now."""
        if not self._queues[queue].kept:
            return None
        now = self._clock()
        self._expire(queue)
        ready = [
            kept
            for kept in self._queues[queue].kept.values()
            if kept.lock is None and kept.visible_at <= now
        ]
        if not ready:
            return None
        first = min(ready, key=lambda kept: (kept.visible_at, kept.sequence))
        first.deliveries += 1
        first.lock = Delivery(
            queue=queue,
            message=first.message,
            sequence=first.sequence,
            delivery_count=first.deliveries,
            locked_until=now + self._queues[queue].rules.lock_seconds,
            dead_letter_reason=first.reason,
        )
        return first.lock

    def renew(self, delivery: Delivery) -> Delivery:
        """The same delivery, locked for longer."""
        kept = self._locked(delivery)
        rules = self._queues[delivery.queue].rules
        kept.lock = replace(delivery, locked_until=self._clock() + rules.lock_seconds)
        return kept.lock

    def complete(self, delivery: Delivery) -> None:
        """Settle: the message is gone."""
        self._locked(delivery)
        del self._queues[delivery.queue].kept[delivery.sequence]

    def abandon(self, delivery: Delivery) -> None:
        """Give back: it comes again at once, or goes to the dead letters after its last time."""
        self._give_back(delivery.queue, self._locked(delivery))

    def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Put aside at once."""
        self._bury(delivery.queue, self._locked(delivery), reason)

    def waiting(self, queue: str) -> Sequence[OutMessage]:
        """All unsettled messages of a queue, scheduled and locked ones too, oldest first."""
        if not self._queues[queue].kept:
            return []
        self._expire(queue)
        return [kept.message for _, kept in sorted(self._queues[queue].kept.items())]

    def next_change(self) -> float | None:
        """When a message can be had that cannot now, at the latest: a schedule or a lock's end."""
        now = self._clock()
        times = [
            kept.lock.locked_until if kept.lock else kept.visible_at
            for queue in self._queues.values()
            for kept in queue.kept.values()
        ]
        return min((time for time in times if time > now), default=None)

    def _publish(self, topic: str, messages: Sequence[OutMessage]) -> None:
        now = self._clock()
        for message in messages:
            seen = self._seen.get((topic, message.message_id))
            if seen is None or now - seen >= self._duplicate_seconds:
                self._seen[topic, message.message_id] = now
                self.published[topic].append(message)

    def _keep(self, queue: _Queue, message: OutMessage) -> _Kept:
        now = self._clock()
        sequence = next(self._sequences)
        visible_at = now if message.at is None else max(now, message.at)
        queue.kept[sequence] = _Kept(message, sequence, visible_at)
        return queue.kept[sequence]

    def _expire(self, queue: str) -> None:
        now = self._clock()
        late = [
            kept
            for kept in self._queues[queue].kept.values()
            if kept.lock is not None and kept.lock.locked_until <= now
        ]
        for kept in late:
            self._give_back(queue, kept)

    def _locked(self, delivery: Delivery) -> _Kept:
        self._expire(delivery.queue)
        kept = self._queues[delivery.queue].kept.get(delivery.sequence)
        if kept is None or kept.lock is None or kept.deliveries != delivery.delivery_count:
            raise LockLost(f"{delivery.queue}: {delivery.message.message_id}")
        return kept

    def _give_back(self, queue: str, kept: _Kept) -> None:
        kept.lock = None
        if kept.deliveries >= self._queues[queue].rules.max_deliveries:
            self._bury(queue, kept, "MaxDeliveryCountExceeded")

    def _bury(self, queue: str, kept: _Kept, reason: str) -> None:
        del self._queues[queue].kept[kept.sequence]
        properties = {**kept.message.properties, "DeadLetterReason": reason}
        message = replace(kept.message, at=None, properties=properties)
        dead = self._keep(self._queues[queue + DEAD_LETTERS], message)
        dead.deliveries, dead.reason = kept.deliveries, reason
