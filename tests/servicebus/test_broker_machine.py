"""Any sequence of operations: nothing is lost, nothing is with two consumers, restarts included.

The machine drives a queue through its operations in random order, with a plain model beside it,
and restarts the broker from its store at random moments.
"""

import tempfile
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from local.servicebus.broker.broker import Broker
from local.servicebus.broker.errors import MessageLockLostError
from local.servicebus.broker.message import Message, State
from local.servicebus.broker.queues import Queue
from local.servicebus.server.store import Store

from .support import Clock, Taker, body_of, encoded, make_broker, namespace, queue

LOCK_MS = 60_000
MAX_DELIVERIES = 4
CONFIG = namespace(queue("q", LockDuration="PT1M", MaxDeliveryCount=MAX_DELIVERIES))


class BrokerMachine(RuleBasedStateMachine):
    """Locks are held by token; the model knows which are alive and until when."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.sent = 0
        self.finished: set[bytes] = set()
        self.alive: dict[UUID, tuple[bytes, int]] = {}
        self.dead: list[UUID] = []
        self.start()

    def start(self) -> None:
        self.store = Store(Path(self.directory.name) / "data.sqlite")
        self.broker: Broker = make_broker(CONFIG, self.clock, self.store)
        self.store.restore(self.broker)
        self.queue: Queue = self.broker.queue("q")
        self.letters = self.broker.queue("q/$deadletterqueue")

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    # ---------------------------------------------------------------- operations

    @rule(count=st.integers(1, 3), delay=st.sampled_from([0, 0, 1, LOCK_MS]))
    def send(self, count: int, delay: int) -> None:
        for _ in range(count):
            message = Message.parse(encoded(f"{self.sent}".encode()))
            message.scheduled_ms = self.clock.now + delay
            assert self.queue.accept(message) > 0
            self.sent += 1

    @rule(credit=st.integers(1, 3))
    def receive(self, credit: int) -> None:
        taker = Taker(credit)
        self.queue.consumers.append(taker)
        self.broker.wake(self.queue)
        self.broker.pump()
        self.queue.consumers.remove(taker)
        held = {body for body, _ in self.alive.values()}
        for message in taker.messages:
            assert message.lock_token is not None
            assert body_of(message) not in held
            self.alive[message.lock_token] = (body_of(message), message.locked_until_ms)

    @precondition(lambda self: self.alive)
    @rule(
        data=st.data(), how=st.sampled_from(["complete", "abandon", "release", "letter", "defer"])
    )
    def settle(self, data: st.DataObject, how: str) -> None:
        # In the order of their delivery: tokens are drawn at random, and an example has to replay.
        token = data.draw(st.sampled_from(list(self.alive)))
        body, _ = self.alive.pop(token)
        match how:
            case "complete":
                self.queue.complete(token)
                self.finished.add(body)
            case "abandon":
                self.queue.abandon(token, {"tried": True})
            case "release":
                self.queue.release(token)
            case "letter":
                self.queue.dead_letter(token, "bad")
            case _:
                self.queue.defer(token)
        self.dead.append(token)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(list(self.alive)))
        self.alive[token] = (self.alive[token][0], self.queue.renew(token))

    @rule()
    def receive_deferred(self) -> None:
        deferred = [
            number
            for number, message in self.queue.messages.items()
            if message.state == State.DEFERRED and not message.lock_token
        ]
        for message in self.queue.receive_deferred(deferred[:1], delete=False):
            assert message.lock_token is not None
            self.alive[message.lock_token] = (body_of(message), message.locked_until_ms)

    @rule(milliseconds=st.sampled_from([1, LOCK_MS // 2, LOCK_MS]))
    def pass_time(self, milliseconds: int) -> None:
        self.clock.now += milliseconds
        self.broker.tick()
        for token, (_, until) in list(self.alive.items()):
            if until <= self.clock.now:
                self.dead.append(token)
                del self.alive[token]

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.start()

    # ---------------------------------------------------------------- what always holds

    @invariant()
    def no_message_is_lost_or_doubled(self) -> None:
        there = [body_of(m) for q in (self.queue, self.letters) for m in q.messages.values()]
        everything = sorted([*there, *self.finished])
        assert everything == sorted(f"{number}".encode() for number in range(self.sent))

    @invariant()
    def each_lock_that_should_live_does_and_no_other(self) -> None:
        held = {m.lock_token for m in self.queue.messages.values() if m.lock_token}
        assert held == set(self.alive)
        for token in self.dead[-3:]:
            with pytest.raises(MessageLockLostError):
                self.queue.renew(token)

    @invariant()
    def nobody_is_tried_too_often(self) -> None:
        assert all(m.delivery_count <= 2 * MAX_DELIVERIES for m in self.queue.messages.values())

    @invariant()
    def what_is_due_is_in_the_future(self) -> None:
        due = self.broker.next_due()
        assert due is None or due > self.clock.now - LOCK_MS


BrokerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBroker = BrokerMachine.TestCase
