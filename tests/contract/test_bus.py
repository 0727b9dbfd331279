"""What `workers.ports.Bus` promises, and how queues behave: a broker and the double.

The double's receiving side is not of the port, but simulations stand on it.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
import pytest_asyncio
from azure.servicebus import ServiceBusReceivedMessage, ServiceBusReceiveMode
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import MessageLockLostError

from local.servicebus import Server, serve
from tests.doubles import Delivery, LockLost, MemoryBus, QueueRules
from tests.doubles.bus import DEAD_LETTERS
from workers.adapters import bus as adapter
from workers.adapters.bus import ServiceBus, connect_bus
from workers.ports import Bus, OutMessage, Received
from workers.ports.errors import Unavailable

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOCK_SECONDS = 60
MAX_DELIVERIES = 3
# How long a receiver waits for a message that may not come; how often it does for one that must.
MOMENT = 0.2
MOMENTS = 50
QUEUES = [
    "plain",
    "many",
    "timed",
    "locked",
    "given-back",
    "poison",
    "renewed",
    "large",
    "shared",
    "drained",
]
TOPIC = "job-status"


@dataclass
class Got:
    """A received message, and its receiver's own handle to settle it."""

    body: bytes
    message_id: str
    correlation_id: str | None
    content_type: str | None
    properties: Mapping[str, str]
    deliveries: int
    handle: Any = field(repr=False)
    reason: str | None = None


class Clock:
    """Stands still but for `elapse`: no test depends on how fast the machine is."""

    def __init__(self) -> None:
        self.time = float(int(time.time()))

    def __call__(self) -> float:
        return self.time


class Subject(Protocol):
    """A bus, and the far side of it."""

    bus: Bus
    now: Clock

    async def elapse(self, seconds: float) -> None: ...
    async def receive(self, queue: str) -> Got | None:
        """The next message; None where none comes in a moment."""

    async def complete(self, queue: str, got: Got) -> None: ...
    async def abandon(self, queue: str, got: Got) -> None: ...
    async def renew(self, queue: str, got: Got) -> None: ...
    async def published(self) -> Sequence[str]:
        """Ids of what the topic let through since the last look."""


class Memory:
    """The double."""

    def __init__(self, clock: Clock) -> None:
        self.now = clock
        rules = QueueRules(LOCK_SECONDS, MAX_DELIVERIES)
        self.double = MemoryBus(clock, dict.fromkeys(QUEUES, rules), [TOPIC])
        self.bus: Bus = self.double
        self.looked = 0

    async def elapse(self, seconds: float) -> None:
        self.now.time += seconds

    async def receive(self, queue: str) -> Got | None:
        delivery = self.double.receive(queue)
        if delivery is None:
            return None
        message = delivery.message
        return Got(
            message.body,
            message.message_id,
            message.correlation_id,
            message.content_type,
            message.properties,
            delivery.delivery_count,
            delivery,
            delivery.dead_letter_reason,
        )

    async def complete(self, queue: str, got: Got) -> None:
        self.double.complete(self._delivery(got))

    async def abandon(self, queue: str, got: Got) -> None:
        self.double.abandon(self._delivery(got))

    async def renew(self, queue: str, got: Got) -> None:
        self.double.renew(self._delivery(got))

    async def published(self) -> Sequence[str]:
        new = self.double.published[TOPIC][self.looked :]
        self.looked += len(new)
        return [message.message_id for message in new]

    def _delivery(self, got: Got) -> Delivery:
        assert isinstance(got.handle, Delivery)
        return got.handle


class Broker:
    """The adapter over a broker, received from with the SDK as the Functions host would."""

    def __init__(
        self, clock: Clock, server: Server, bus: ServiceBus, client: ServiceBusClient
    ) -> None:
        self.now = clock
        self.bus: Bus = bus
        self._server = server
        self._client = client
        self._receivers: dict[str, ServiceBusReceiver] = {}

    async def elapse(self, seconds: float) -> None:
        self.now.time += seconds
        self._server.broker.tick()
        self._server.wake()

    async def receive(self, queue: str) -> Got | None:
        receiver = await self._receiver(queue)
        for message in await receiver.receive_messages(1, max_wait_time=MOMENT):
            return _got(message)
        return None

    async def complete(self, queue: str, got: Got) -> None:
        await self._settled((await self._receiver(queue)).complete_message(got.handle))

    async def abandon(self, queue: str, got: Got) -> None:
        await self._settled((await self._receiver(queue)).abandon_message(got.handle))

    async def renew(self, queue: str, got: Got) -> None:
        receiver = await self._receiver(queue)
        await receiver.renew_message_lock(got.handle)

    async def published(self) -> Sequence[str]:
        receiver = await self._receiver(TOPIC)
        messages = await receiver.receive_messages(100, max_wait_time=MOMENT)
        return [str(message.message_id) for message in messages]

    async def open(self) -> None:
        """All at once, as `close`: each takes half a second."""
        await asyncio.gather(*map(self._receiver, [*QUEUES, TOPIC]))

    async def close(self) -> None:
        await asyncio.gather(*(receiver.close() for receiver in self._receivers.values()))

    async def _settled(self, call: Awaitable[None]) -> None:
        try:
            await call
        except MessageLockLostError as error:
            raise LockLost from error

    async def _receiver(self, queue: str) -> ServiceBusReceiver:
        if queue not in self._receivers:
            self._receivers[queue] = await self._open(queue).__aenter__()
        return self._receivers[queue]

    def _open(self, queue: str) -> ServiceBusReceiver:
        if queue == TOPIC:
            return self._client.get_subscription_receiver(
                TOPIC, "all", receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE
            )
        return self._client.get_queue_receiver(queue)


def _got(message: ServiceBusReceivedMessage) -> Got:
    properties = message.application_properties or {}
    return Got(
        b"".join(message.body),
        str(message.message_id),
        message.correlation_id,
        message.content_type,
        {_text(key): _text(value) for key, value in properties.items()},
        (message.delivery_count or 0) + 1,
        message,
        message.dead_letter_reason,
    )


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _configuration() -> dict[str, Any]:
    lock = {"LockDuration": f"PT{LOCK_SECONDS}S", "MaxDeliveryCount": MAX_DELIVERIES}
    return {
        "UserConfig": {
            "Namespaces": [
                {
                    "Name": "contract",
                    "Queues": [{"Name": name, "Properties": lock} for name in QUEUES],
                    "Topics": [
                        {
                            "Name": TOPIC,
                            "Properties": {
                                "RequiresDuplicateDetection": True,
                                "DuplicateDetectionHistoryTimeWindow": "PT10M",
                            },
                            "Subscriptions": [{"Name": "all", "Properties": {}, "Rules": []}],
                        }
                    ],
                }
            ]
        }
    }


@pytest_asyncio.fixture(
    params=["memory", pytest.param("broker", marks=pytest.mark.slow)],
    scope="module",
    loop_scope="module",
)
async def far(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    clock = Clock()
    if request.param == "memory":
        yield Memory(clock)
        return
    async with serve(_configuration(), now=lambda: round(clock() * 1000)) as server:
        connection = server.connection_string
        async with (
            connect_bus(connection) as bus,
            ServiceBusClient.from_connection_string(connection) as client,
        ):
            broker = Broker(clock, server, bus, client)
            await broker.open()
            yield broker
            await broker.close()


def message(message_id: str = "", body: bytes = b"{}", **options: Any) -> OutMessage:
    return OutMessage(body=body, message_id=message_id or uuid.uuid4().hex, **options)


async def next_of(far: Subject, queue: str) -> Got:
    """The next message, which has to come."""
    for _ in range(MOMENTS):
        got = await far.receive(queue)
        if got is not None:
            return got
    raise AssertionError(f"nothing came from {queue}")


async def test_a_message_arrives_as_it_was_sent(far: Subject) -> None:
    sent = message(
        "job:1:type",
        '{"a": "ä"}'.encode(),
        correlation_id="job",
        properties={"state": "completed", "kind": "ünïcode"},
        content_type="application/cloudevents+json",
    )

    await far.bus.send("plain", [sent])

    got = await next_of(far, "plain")
    await far.complete("plain", got)
    assert (got.body, got.message_id, got.correlation_id) == (sent.body, "job:1:type", "job")
    assert got.content_type == "application/cloudevents+json"
    assert dict(got.properties) == dict(sent.properties)
    assert got.deliveries == 1
    assert await far.receive("plain") is None


async def test_nothing_to_send_is_no_call(far: Subject) -> None:
    await far.bus.send("plain", [])

    assert await far.receive("plain") is None


async def test_more_than_a_batch_arrives_in_order(far: Subject) -> None:
    sent = [message(f"{n:04}", b"x" * 40_000) for n in range(20)]  # three batches

    await far.bus.send("many", sent)

    for expected in sent:
        got = await next_of(far, "many")
        assert got.message_id == expected.message_id
        await far.complete("many", got)
    assert await far.receive("many") is None


async def test_concurrent_sends_all_arrive_once(far: Subject) -> None:
    ids = [f"m{n}" for n in range(60)]

    await asyncio.gather(*(far.bus.send("shared", [message(i), message(i + "b")]) for i in ids))

    seen = []
    for _ in range(2 * len(ids)):
        got = await next_of(far, "shared")
        seen.append(got.message_id)
        await far.complete("shared", got)
    assert sorted(seen) == sorted([*ids, *(i + "b" for i in ids)])
    assert await far.receive("shared") is None


async def test_a_scheduled_message_is_not_early(far: Subject) -> None:
    due = far.now() + 2.5
    await far.bus.send("timed", [message("later", at=due), message("at-once")])
    await far.bus.send("timed", [message("long-due", at=far.now() - 60)])

    for expected in ("at-once", "long-due"):
        got = await next_of(far, "timed")
        assert got.message_id == expected
        await far.complete("timed", got)
    assert await far.receive("timed") is None
    await far.elapse(2.4)
    assert await far.receive("timed") is None
    await far.elapse(0.1)
    got = await next_of(far, "timed")

    assert (got.message_id, got.deliveries) == ("later", 1)
    await far.complete("timed", got)


async def test_a_topic_drops_repeated_ids(far: Subject) -> None:
    await far.bus.send(TOPIC, [message("e1"), message("e2")])
    await far.bus.send(TOPIC, [message("e1")])
    await far.bus.send(TOPIC, [message("e3")])

    seen: list[str] = []
    for _ in range(3):
        seen += await far.published()
    assert seen == ["e1", "e2", "e3"]


async def test_an_unknown_entity_is_unavailable(far: Subject) -> None:
    with pytest.raises(Unavailable, match="nowhere"):
        await far.bus.send("nowhere", [message()])
    await far.bus.send("plain", [message("still-works")])
    await far.complete("plain", await next_of(far, "plain"))


async def test_a_message_too_large_is_the_caller_s_mistake(far: Subject) -> None:
    large = message(body=b"x" * 300 * 1024)

    results = await asyncio.gather(
        far.bus.send("large", [large]),
        far.bus.send("large", [message("small")]),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [ValueError, type(None)]
    got = await next_of(far, "large")
    assert got.message_id == "small"
    await far.complete("large", got)


async def test_what_is_given_back_comes_first_and_counts(far: Subject) -> None:
    await far.bus.send("given-back", [message("one"), message("two")])

    first = await next_of(far, "given-back")
    await far.abandon("given-back", first)
    again = await next_of(far, "given-back")

    assert (first.message_id, first.deliveries) == ("one", 1)
    assert (again.message_id, again.deliveries) == ("one", 2)
    await far.complete("given-back", again)
    other = await next_of(far, "given-back")
    assert (other.message_id, other.deliveries) == ("two", 1)
    await far.complete("given-back", other)


async def test_a_lock_that_runs_out_gives_the_message_to_the_next(far: Subject) -> None:
    await far.bus.send("locked", [message("one")])
    first = await next_of(far, "locked")
    assert await far.receive("locked") is None

    await far.elapse(LOCK_SECONDS)

    second = await next_of(far, "locked")
    assert (second.message_id, second.deliveries) == ("one", 2)
    with pytest.raises(LockLost):
        await far.complete("locked", first)
    await far.complete("locked", second)
    assert await far.receive("locked") is None


async def test_a_lock_can_be_prolonged(far: Subject) -> None:
    await far.bus.send("renewed", [message("one")])
    got = await next_of(far, "renewed")
    for _ in range(2):
        await far.elapse(LOCK_SECONDS * 0.6)
        await far.renew("renewed", got)

    assert await far.receive("renewed") is None
    await far.complete("renewed", got)


async def test_a_message_that_always_fails_becomes_a_dead_letter(far: Subject) -> None:
    await far.bus.send("poison", [message("bad", b"kept", properties={"k": "v"})])

    for delivery in range(1, MAX_DELIVERIES + 1):
        got = await next_of(far, "poison")
        assert got.deliveries == delivery
        await far.abandon("poison", got)

    assert await far.receive("poison") is None
    dead = await next_of(far, "poison" + DEAD_LETTERS)
    assert (dead.message_id, dead.body, dead.properties["k"]) == ("bad", b"kept", "v")
    assert dead.reason == "MaxDeliveryCountExceeded"
    await far.complete("poison" + DEAD_LETTERS, dead)


async def bury(far: Subject, queue: str, *ids: str) -> None:
    """Make dead letters."""
    await far.bus.send(queue, [message(message_id, properties={"k": "ä"}) for message_id in ids])
    for _ in range(MAX_DELIVERIES * len(ids)):
        await far.abandon(queue, await next_of(far, queue))


async def test_dead_letters_are_taken_one_by_one(
    far: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "DEAD_WAIT_SECONDS", MOMENT)
    await bury(far, "drained", "one", "two", "three")
    taken: list[Received] = []

    async def take(dead: Received) -> None:
        taken.append(dead)

    async def fail(dead: Received) -> None:
        raise ValueError(dead.message_id)

    with pytest.raises(ValueError, match="one"):
        await far.bus.take_dead("drained", fail, 10)
    assert await far.bus.take_dead("drained", take, 2) == 2
    assert await far.bus.take_dead("drained", take, 10) == 1
    assert await far.receive("drained" + DEAD_LETTERS) is None

    assert [dead.message_id for dead in taken] == ["one", "two", "three"]
    assert taken[0].properties["k"] == "ä"
    assert taken[0].properties["DeadLetterReason"] == "MaxDeliveryCountExceeded"
    assert taken[0].body == b"{}"
    assert [dead.deliveries for dead in taken] == [MAX_DELIVERIES + n for n in (2, 1, 1)]


async def test_dead_letters_of_an_unknown_queue_are_unavailable(far: Subject) -> None:
    async def take(dead: Received) -> None:
        raise AssertionError(dead)

    with pytest.raises(Unavailable, match="nowhere"):
        await far.bus.take_dead("nowhere", take, 1)


async def test_a_queue_is_reached_and_none_of_its_messages_is_touched(far: Subject) -> None:
    await far.bus.send("plain", [message("looked at")])
    await far.bus.reach("plain")
    got = await next_of(far, "plain")
    assert (got.message_id, got.deliveries) == ("looked at", 1)
    await far.complete("plain", got)
    with pytest.raises(Unavailable, match="nowhere"):
        await far.bus.reach("nowhere")
