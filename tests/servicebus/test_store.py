"""What is in the file after the process is gone."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from local.servicebus.broker.broker import Broker
from local.servicebus.broker.message import Message
from local.servicebus.broker.sessions import SessionQueue
from local.servicebus.server.store import Store, StoreInUseError

from .support import (
    Clock,
    SessionTaker,
    Taker,
    body_of,
    encoded,
    make_broker,
    namespace,
    queue,
    subscription,
    topic,
)

MINUTE = 60_000
CONFIG = namespace(
    queue("q", RequiresDuplicateDetection=True, DuplicateDetectionHistoryTimeWindow="PT1M"),
    queue("s", RequiresSession=True),
    topics=(topic("t", subscription("all")),),
)


class World:
    """A broker over a file that can die and come back."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, Clock()
        self.revive()

    def revive(self, config: dict[str, Any] = CONFIG) -> int:
        self.store = Store(self.path)
        self.broker: Broker = make_broker(config, self.clock, self.store)
        return self.store.restore(self.broker)

    def die(self) -> None:
        """End as kill -9 does: what was not committed is gone."""
        self.store._database.close()

    def send(self, path: str, body: bytes, delay_ms: int = 0, **fields: Any) -> int:
        message = Message.parse(encoded(body, **fields))
        message.scheduled_ms = self.clock.now + delay_ms if delay_ms else 0
        return self.broker.entity(path).accept(message)

    def take(self, path: str, credit: int = 10) -> list[Message]:
        taker, source = Taker(credit), self.broker.queue(path)
        source.consumers.append(taker)
        self.broker.wake(source)
        self.broker.pump()
        source.consumers.remove(taker)
        return taker.messages

    def bodies(self, path: str) -> list[bytes]:
        return [body_of(message) for message in self.broker.queue(path).messages.values()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "data.sqlite")


def test_what_was_committed_survives_and_nothing_else(world: World) -> None:
    world.send("q", b"kept", colour="red", ttl_ms=MINUTE)
    world.store.commit()
    world.send("q", b"not promised to anybody")
    world.die()
    assert world.revive() == 1
    [message] = world.broker.queue("q").messages.values()
    assert body_of(message) == b"kept"
    assert message.facts().application == {"colour": "red"}
    assert message.expires_ms == world.clock.now + MINUTE
    assert world.send("q", b"next") == 2


def test_locks_go_on_and_expire_on_schedule(world: World) -> None:
    for body in (b"completed", b"expired", b"abandoned"):
        world.send("q", body)
    completed, expired, abandoned = world.take("q")
    assert completed.lock_token is not None
    assert abandoned.lock_token is not None
    world.broker.queue("q").abandon(abandoned.lock_token, {"tried": 1})
    world.store.commit()
    world.die()
    world.clock.now += MINUTE // 2
    world.revive()
    source = world.broker.queue("q")
    [back] = world.take("q")
    assert (body_of(back), back.delivery_count) == (b"abandoned", 1)
    assert back.facts().application == {"tried": 1}
    source.complete(completed.lock_token)
    world.clock.now += MINUTE // 2
    world.broker.tick()
    [back] = world.take("q")
    assert (body_of(back), back.delivery_count) == (b"expired", 1)
    assert back.sequence == expired.sequence


def test_settled_messages_stay_settled(world: World) -> None:
    for body in (b"completed", b"dead", b"deferred"):
        world.send("q", body)
    world.store.commit()
    completed, dead, deferred = world.take("q")
    source = world.broker.queue("q")
    assert completed.lock_token is not None
    assert dead.lock_token is not None
    assert deferred.lock_token is not None
    source.complete(completed.lock_token)
    source.dead_letter(dead.lock_token, "bad")
    source.defer(deferred.lock_token)
    world.store.commit()
    world.die()
    world.revive()
    assert world.bodies("q") == [b"deferred"]
    assert world.take("q") == []
    [letter] = world.take("q/$deadletterqueue")
    assert letter.facts().application["DeadLetterReason"] == "bad"
    assert letter.dead_letter_source == "q"
    assert world.broker.queue("q").receive_deferred([deferred.sequence], delete=True)


def test_scheduled_messages_duplicates_and_session_states_survive(world: World) -> None:
    world.send("t", b"later", delay_ms=MINUTE)
    world.send("q", b"once", message_id="a")
    world.send("s", b"m", session_id="S")
    sessions = world.broker.queue("s")
    assert isinstance(sessions, SessionQueue)
    taker = SessionTaker()
    sessions.acquire(taker, "S")
    world.broker.pump()
    sessions.set_session_state("S", b"half way")
    world.store.commit()
    world.die()
    world.revive()
    assert world.send("q", b"again", message_id="a") == 0
    sessions = world.broker.queue("s")
    assert isinstance(sessions, SessionQueue)
    again = SessionTaker()
    sessions.acquire(again, "S")
    world.broker.pump()
    assert sessions.session_state("S") == b"half way"
    # The session ended with the connection that held it, which is no failed delivery.
    assert [m.delivery_count for m in again.messages] == [0]
    assert world.take("t/subscriptions/all") == []
    world.clock.now += MINUTE
    world.broker.tick()
    assert [body_of(m) for m in world.take("t/subscriptions/all")] == [b"later"]
    assert world.send("q", b"again", message_id="a") == 2


def test_entities_that_are_not_configured_keep_their_messages(world: World) -> None:
    world.send("q", b"waits")
    world.store.commit()
    world.die()
    assert world.revive(namespace(queue("other"))) == 0
    world.send("other", b"o")
    world.store.close()
    assert world.revive() == 1
    assert world.bodies("q") == [b"waits"]


def test_what_came_and_went_between_commits_costs_no_row(world: World) -> None:
    world.send("q", b"m")
    [message] = world.take("q")
    assert message.lock_token is not None
    world.broker.queue("q").complete(message.lock_token)
    world.store.commit()
    assert list(world.store._database.execute("SELECT * FROM message")) == []


def test_what_is_written_otherwise_is_another_entity(world: World) -> None:
    """Or a completed message would come back: it is kept under the path that it was sent to."""
    world.send("q", b"old")
    world.store.close()
    assert world.revive(namespace(queue("Q"))) == 0
    world.send("Q", b"new")
    [message] = world.take("Q")
    assert message.lock_token is not None
    world.broker.queue("Q").complete(message.lock_token)
    world.store.close()
    assert world.revive(namespace(queue("Q"))) == 0
    world.store.close()
    assert world.revive() == 1


def test_two_brokers_do_not_share_a_file(world: World) -> None:
    world.send("q", b"m")
    world.store.commit()
    with pytest.raises(StoreInUseError):
        Store(world.path, patience=0.0)


def test_a_failing_disk_is_an_error_not_a_promise(world: World) -> None:
    world.send("q", b"m")
    world.die()
    with pytest.raises(sqlite3.Error):
        world.store.commit()
