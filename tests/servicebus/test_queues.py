"""What a queue promises, by a clock that only the test moves."""

import uuid
from typing import Any

import pytest

from local.servicebus.broker.errors import (
    EntityNotFoundError,
    MessageLockLostError,
    MessageNotFoundError,
    NotAllowedError,
)
from local.servicebus.broker.message import Message, State
from local.servicebus.broker.queues import Queue

from .support import (
    Clock,
    Taker,
    body_of,
    correlation,
    encoded,
    make_broker,
    namespace,
    queue,
    sql,
    subscription,
    topic,
)

MINUTE = 60_000


class World:
    """One queue named q, its dead letters, and a clock."""

    def __init__(self, **properties: Any) -> None:
        self.clock = Clock()
        self.broker = make_broker(namespace(queue("q", **properties)), self.clock)
        self.queue = self.broker.queue("q")
        self.dead_letters = self.broker.queue("q/$DeadLetterQueue")

    def send(self, *bodies: bytes, delay_ms: int = 0, **fields: Any) -> list[int]:
        numbers = []
        for body in bodies:
            message = Message.parse(encoded(body, **fields))
            message.scheduled_ms = self.clock.now + delay_ms if delay_ms else 0
            numbers.append(self.queue.accept(message))
        self.broker.pump()
        return numbers

    def taker(self, queue: Queue | None = None, **options: Any) -> Taker:
        taker = Taker(**options)
        (queue or self.queue).consumers.append(taker)
        self.broker.wake(queue or self.queue)
        self.broker.pump()
        return taker

    def pass_time(self, milliseconds: int) -> None:
        """Move the clock, stopping wherever the broker says that something is due."""
        end = self.clock.now + milliseconds
        while (due := self.broker.next_due()) is not None and due <= end:
            self.clock.now = max(self.clock.now, due)
            self.broker.tick()
        self.clock.now = end
        self.broker.tick()


def token(message: Message) -> uuid.UUID:
    assert message.lock_token is not None
    return message.lock_token


def test_messages_go_out_in_order_as_far_as_there_is_credit() -> None:
    world = World()
    world.send(b"1", b"2", b"3")
    taker = world.taker(credit=2)
    assert taker.bodies() == [b"1", b"2"]
    taker.credit = 1
    world.broker.wake(world.queue)
    world.broker.pump()
    assert taker.bodies() == [b"1", b"2", b"3"]


def test_consumers_take_turns() -> None:
    world = World()
    takers = [world.taker(), world.taker(), world.taker(credit=0)]
    world.send(*(str(number).encode() for number in range(6)))
    assert [taker.bodies() for taker in takers] == [[b"0", b"2", b"4"], [b"1", b"3", b"5"], []]


def test_a_locked_message_is_with_one_consumer_until_the_lock_expires() -> None:
    world = World(LockDuration="PT1M")
    first, second = world.taker(credit=1), world.taker(credit=1)
    world.send(b"m")
    held = token(first.messages[0])
    world.pass_time(MINUTE - 1)
    assert second.messages == []
    world.pass_time(1)
    [again] = second.messages
    assert again.delivery_count == 1
    for settle in (world.queue.complete, world.queue.abandon, world.queue.defer):
        with pytest.raises(MessageLockLostError):
            settle(held)
    world.queue.complete(token(again))
    assert world.queue.messages == {}
    assert world.broker.next_due() is None


def test_a_lock_is_lost_at_its_time_even_before_the_tick() -> None:
    world = World(LockDuration="PT1M")
    taker = world.taker()
    world.send(b"m")
    world.clock.now += MINUTE
    with pytest.raises(MessageLockLostError):
        world.queue.complete(token(taker.messages[0]))
    with pytest.raises(MessageLockLostError):
        world.queue.renew(token(taker.messages[0]))


def test_renewal_moves_the_end_of_one_lock_only() -> None:
    world = World(LockDuration="PT1M")
    taker = world.taker(credit=2)
    world.send(b"renewed", b"left")
    world.pass_time(MINUTE // 2)
    until = world.queue.renew(token(taker.messages[0]))
    assert until == world.clock.now + MINUTE
    other = world.taker(credit=2)
    world.pass_time(MINUTE // 2)
    assert other.bodies() == [b"left"]
    world.pass_time(MINUTE // 2)
    assert other.bodies() == [b"left", b"renewed"]


def test_abandon_counts_release_does_not() -> None:
    world = World(MaxDeliveryCount=3)
    taker = world.taker()
    world.send(b"m")
    for _ in range(5):
        world.queue.release(token(taker.messages[-1]))
        world.broker.pump()
    for _ in range(3):
        world.queue.abandon(token(taker.messages[-1]))
        world.broker.pump()
    assert [m.delivery_count for m in taker.messages] == [3] * 8  # one message, seen eight times
    assert world.queue.messages == {}
    [letter] = world.taker(world.dead_letters).messages
    facts = letter.facts()
    assert facts.application["DeadLetterReason"] == "MaxDeliveryCountExceeded"
    assert letter.dead_letter_source == "q"


def test_the_dead_letter_queue_keeps_its_messages() -> None:
    world = World(MaxDeliveryCount=1, LockDuration="PT1M", DefaultMessageTimeToLive="PT2M")
    world.taker()
    world.send(b"m")
    world.pass_time(MINUTE)
    taker = world.taker(world.dead_letters)
    for _ in range(3):
        world.dead_letters.abandon(token(taker.messages[-1]))
        world.broker.pump()
    world.pass_time(100 * MINUTE)
    [letter] = world.dead_letters.messages.values()
    with pytest.raises(NotAllowedError):
        world.dead_letters.dead_letter(token(letter))
    world.dead_letters.complete(token(letter))
    assert world.dead_letters.messages == {}


def test_dead_lettering_says_why_and_keeps_the_other_properties() -> None:
    world = World()
    taker = world.taker()
    world.send(b"m", colour="red", DeadLetterReason="older")
    world.queue.dead_letter(token(taker.messages[0]), "bad", "very bad", {"tried": 1})
    [letter] = world.dead_letters.messages.values()
    assert letter.facts().application == {
        "colour": "red",
        "tried": 1,
        "DeadLetterReason": "bad",
        "DeadLetterErrorDescription": "very bad",
    }
    assert body_of(letter) == b"m"


def test_deferred_messages_wait_for_their_number() -> None:
    world = World(LockDuration="PT1M")
    taker = world.taker()
    [number, other] = world.send(b"deferred", b"ready")
    world.queue.defer(token(taker.messages[0]))
    assert world.queue.messages[number].state == State.DEFERRED
    with pytest.raises(MessageNotFoundError):
        world.queue.receive_deferred([number, other], delete=False)
    assert world.queue.messages[number].lock_token is None
    [message] = world.queue.receive_deferred([number], delete=False)
    with pytest.raises(MessageNotFoundError):
        world.queue.receive_deferred([number], delete=False)
    world.queue.abandon(token(message))
    world.broker.pump()
    assert len(taker.messages) == 2
    [message] = world.queue.receive_deferred([number], delete=True)
    assert number not in world.queue.messages


def test_a_number_asked_for_twice_is_one_message() -> None:
    world = World(LockDuration="PT1M")
    taker = world.taker()
    [number] = world.send(b"deferred")
    world.queue.defer(token(taker.messages[0]))
    [message] = world.queue.receive_deferred([number, number], delete=False)
    world.queue.complete(token(message))
    world.pass_time(2 * MINUTE)
    assert world.queue.messages == {}
    assert len(taker.messages) == 1


def test_what_expired_since_the_last_look_is_not_handed_out() -> None:
    world = World(DeadLetteringOnMessageExpiration=True)
    world.send(b"late", ttl_ms=MINUTE)
    world.clock.now += MINUTE
    assert world.taker().bodies() == []
    assert [body_of(letter) for letter in world.dead_letters.messages.values()] == [b"late"]


def test_receive_and_delete_leaves_nothing() -> None:
    world = World()
    world.send(b"m", ttl_ms=MINUTE)
    assert world.taker(deletes_on_receive=True).bodies() == [b"m"]
    assert world.queue.messages == {}
    assert world.broker.next_due() is None


def test_scheduled_messages_come_at_their_time_with_a_new_number() -> None:
    world = World()
    taker = world.taker()
    [later] = world.send(b"later", delay_ms=MINUTE)
    [cancelled] = world.send(b"cancelled", delay_ms=MINUTE)
    [now] = world.send(b"now")
    world.queue.defer(token(taker.messages[0]))
    world.queue.cancel_scheduled(cancelled)
    for number in (cancelled, now, 99):
        with pytest.raises(MessageNotFoundError):
            world.queue.cancel_scheduled(number)
    world.pass_time(MINUTE - 1)
    assert taker.bodies() == [b"now"]
    world.pass_time(1)
    assert taker.bodies() == [b"now", b"later"]
    assert taker.messages[1].sequence > max(later, cancelled, now)
    assert taker.messages[1].enqueued_ms == world.clock.now


@pytest.mark.parametrize(
    ("default", "own_ms", "lives_ms"),
    [
        ("PT1M", None, MINUTE),
        ("PT1M", MINUTE // 2, MINUTE // 2),
        ("PT1M", 5 * MINUTE, MINUTE),
        (None, 2 * MINUTE, 2 * MINUTE),
    ],
)
def test_the_shorter_time_to_live_counts(
    default: str | None, own_ms: int | None, lives_ms: int
) -> None:
    world = World(DefaultMessageTimeToLive=default, DeadLetteringOnMessageExpiration=True)
    world.send(b"m", ttl_ms=own_ms)
    world.pass_time(lives_ms - 1)
    assert len(world.queue.messages) == 1
    world.pass_time(1)
    assert world.queue.messages == {}
    [letter] = world.dead_letters.messages.values()
    assert letter.facts().application["DeadLetterReason"] == "TTLExpiredException"


def test_a_message_does_not_expire_under_a_lock() -> None:
    world = World(LockDuration="PT1M")
    taker = world.taker(credit=2)
    world.send(b"completed", b"abandoned", ttl_ms=1000)
    world.pass_time(2000)
    world.queue.complete(token(taker.messages[0]))
    world.queue.abandon(token(taker.messages[1]))
    world.broker.pump()
    assert len(taker.messages) == 2
    assert world.queue.messages == {}


def test_a_scheduled_message_lives_from_its_scheduled_time() -> None:
    world = World()
    world.send(b"m", delay_ms=10 * MINUTE, ttl_ms=MINUTE)
    world.pass_time(10 * MINUTE)
    assert world.taker(credit=0).messages == []
    assert len(world.queue.messages) == 1
    world.pass_time(MINUTE)
    assert world.queue.messages == {}


def test_duplicates_are_dropped_within_the_window() -> None:
    world = World(RequiresDuplicateDetection=True, DuplicateDetectionHistoryTimeWindow="PT1M")
    assert world.send(b"1", message_id="a") == [1]
    assert world.send(b"2", message_id="a") == [0]
    assert world.send(b"3", message_id="b") == [2]
    assert world.send(b"4", b"5") == [3, 4]  # without an id there is nothing to compare
    world.pass_time(MINUTE)
    assert world.send(b"6", message_id="a") == [5]
    assert world.taker().bodies() == [b"1", b"3", b"4", b"5", b"6"]


def test_peek_shows_messages_of_every_state_in_order() -> None:
    world = World()
    taker = world.taker(credit=2)
    world.send(b"deferred", b"locked", b"ready")
    world.send(b"scheduled", delay_ms=MINUTE)
    world.queue.defer(token(taker.messages[0]))
    peeked = world.queue.peek(0, 10)
    assert [body_of(m) for m in peeked] == [b"deferred", b"locked", b"ready", b"scheduled"]
    assert [m.sequence for m in world.queue.peek(2, 2)] == [2, 3]
    assert world.queue.peek(5, 10) == []


def test_entities_are_found_whatever_their_case() -> None:
    space = namespace(queue("Jobs"), topics=(topic("Status", subscription("All")),))
    broker = make_broker(space, Clock())
    assert broker.queue("jobs/$deadletterqueue").path == "Jobs/$DeadLetterQueue"
    assert broker.queue("status/subscriptions/ALL").path == "Status/Subscriptions/All"
    with pytest.raises(NotAllowedError):
        broker.queue("status")
    for unknown in ("nothing", "status/subscriptions/none", "jobs/$other", ""):
        with pytest.raises(EntityNotFoundError):
            broker.entity(unknown)


def test_a_topic_copies_to_each_matching_subscription_once() -> None:
    space = namespace(
        topics=(
            topic(
                "t",
                subscription("all"),
                subscription("red", sql("colour = 'red'"), correlation(Properties={"n": 1})),
                DefaultMessageTimeToLive="PT1M",
            ),
        )
    )
    clock = Clock()
    broker = make_broker(space, clock)
    for body, fields in ((b"both", {"colour": "red", "n": 1}), (b"blue", {"colour": "blue"})):
        broker.entity("t").accept(Message.parse(encoded(body, **fields)))
    everything, red = broker.queue("t/subscriptions/all"), broker.queue("t/subscriptions/red")
    assert [body_of(m) for m in everything.peek(0, 9)] == [b"both", b"blue"]
    assert [body_of(m) for m in red.peek(0, 9)] == [b"both"]
    taker = Taker()
    red.consumers.append(taker)
    broker.pump()
    red.complete(token(taker.messages[0]))
    assert len(everything.messages) == 2
    clock.now += MINUTE
    broker.tick()
    assert everything.messages == {}
