"""Queues whose messages are received by session."""

import uuid

import pytest

from local.servicebus.broker.errors import (
    MessageLockLostError,
    NotAllowedError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)
from local.servicebus.broker.message import Message
from local.servicebus.broker.sessions import SessionQueue

from .support import (
    Clock,
    SessionTaker,
    encoded,
    make_broker,
    namespace,
    queue,
    subscription,
    topic,
)

MINUTE = 60_000


class World:
    """One session queue and a clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        config = namespace(queue("q", RequiresSession=True, LockDuration="PT1M"))
        self.broker = make_broker(config, self.clock)
        found = self.broker.queue("q")
        assert isinstance(found, SessionQueue)
        self.queue = found

    def send(self, *messages: tuple[str, bytes]) -> None:
        for session_id, body in messages:
            self.queue.accept(Message.parse(encoded(body, session_id=session_id)))
        self.broker.pump()

    def take(self, session_id: str) -> SessionTaker:
        taker = SessionTaker()
        taker.session = self.queue.acquire(taker, session_id)
        self.broker.pump()
        return taker

    def take_next(self) -> SessionTaker:
        taker = SessionTaker()
        self.queue.wait_for_session(taker)
        self.broker.pump()
        return taker

    def pass_time(self, milliseconds: int) -> None:
        self.clock.now += milliseconds
        self.broker.tick()


def token(message: Message) -> uuid.UUID:
    assert message.lock_token is not None
    return message.lock_token


def test_a_session_is_received_by_one_consumer_in_order() -> None:
    world = World()
    world.send(("A", b"a1"), ("B", b"b1"), ("A", b"a2"))
    taker = world.take("A")
    world.send(("A", b"a3"), ("B", b"b2"))
    assert taker.bodies() == [b"a1", b"a2", b"a3"]
    with pytest.raises(SessionCannotBeLockedError):
        world.take("A")
    assert world.take("B").bodies() == [b"b1", b"b2"]


def test_those_who_wait_get_the_oldest_free_session() -> None:
    world = World()
    first, second = world.take_next(), world.take_next()
    assert first.session is None
    world.send(("A", b"a1"), ("B", b"b1"))
    assert [first.bodies(), second.bodies()] == [[b"a1"], [b"b1"]]
    third = world.take_next()
    world.queue.stop_waiting(third)
    world.send(("C", b"c1"))
    assert third.messages == []
    assert world.take_next().bodies() == [b"c1"]


def test_a_message_without_a_session_is_refused() -> None:
    world = World()
    with pytest.raises(NotAllowedError):
        world.queue.check(Message.parse(encoded(b"m")))
    world.queue.check(Message.parse(encoded(b"m", session_id="S")))


def test_a_topic_dead_letters_it_for_a_subscription_with_sessions() -> None:
    config = namespace(topics=(topic("t", subscription("s", RequiresSession=True)),))
    broker = make_broker(config, Clock())
    broker.entity("t").accept(Message.parse(encoded(b"m")))
    assert broker.queue("t/subscriptions/s").messages == {}
    [letter] = broker.queue("t/subscriptions/s/$deadletterqueue").messages.values()
    assert letter.facts().application["DeadLetterReason"] == "Session id is null."


def test_leaving_returns_messages_uncounted() -> None:
    world = World()
    world.send(("A", b"a1"), ("A", b"a2"))
    taker = world.take("A")
    world.queue.complete(token(taker.messages[0]))
    world.queue.leave(taker)
    other = world.take("A")
    assert other.bodies() == [b"a2"]
    assert other.messages[0].delivery_count == 0
    assert not taker.lost


def test_expiry_returns_messages_counted_and_tells_the_consumer() -> None:
    world = World()
    world.send(("A", b"a1"))
    taker = world.take("A")
    held = token(taker.messages[0])
    world.pass_time(MINUTE - 1)
    assert not taker.lost
    world.pass_time(1)
    assert taker.lost
    with pytest.raises(MessageLockLostError):
        world.queue.complete(held)
    with pytest.raises(SessionLockLostError):
        world.queue.renew_session("A")
    other = world.take_next()
    assert other.messages[0].delivery_count == 1


def test_renewal_prolongs_the_session_and_its_messages() -> None:
    world = World()
    world.send(("A", b"a1"))
    taker = world.take("A")
    world.pass_time(MINUTE // 2)
    assert world.queue.renew_session("A") == world.clock.now + MINUTE
    world.pass_time(MINUTE - 1)
    assert not taker.lost
    world.queue.complete(token(taker.messages[0]))
    assert world.broker.next_due() == world.clock.now + 1
    world.pass_time(1)
    assert taker.lost


def test_the_state_stays_with_the_session() -> None:
    world = World()
    taker = world.take("A")
    assert world.queue.session_state("A") is None
    world.queue.set_session_state("A", b"half way")
    world.queue.leave(taker)
    for ask in (world.queue.session_state, world.queue.renew_session):
        with pytest.raises(SessionLockLostError):
            ask("A")
    world.take("A")
    assert world.queue.session_state("A") == b"half way"


def test_abandon_dead_letter_and_expiry_work_within_a_session() -> None:
    world = World()
    world.send(("A", b"a1"), ("A", b"a2"))
    world.queue.accept(Message.parse(encoded(b"brief", session_id="B", ttl_ms=1000)))
    taker = world.take("A")
    world.queue.abandon(token(taker.messages[0]))
    world.queue.dead_letter(token(taker.messages[1]), "bad")
    world.broker.pump()
    assert taker.bodies() == [b"a1", b"a2", b"a1"]
    assert world.queue.sessions_with_messages() == ["B"]
    world.pass_time(1000)
    assert world.queue.sessions_with_messages() == []
    [letter] = world.broker.queue("q/$DeadLetterQueue").messages.values()
    assert letter.session_id == "A"


def test_deferred_messages_are_received_in_their_session_only() -> None:
    world = World()
    world.send(("A", b"a"))
    taker = world.take("A")
    [message] = taker.messages
    assert message.lock_token is not None
    world.queue.defer(message.lock_token)
    world.queue.leave(taker)
    with pytest.raises(SessionLockLostError):
        world.queue.receive_deferred([message.sequence], delete=False)
    other = world.take("A")
    [deferred] = world.queue.receive_deferred([message.sequence], delete=False)
    assert deferred.lock_token is not None
    world.pass_time(MINUTE)
    assert other.lost
    assert message.lock_token is None
