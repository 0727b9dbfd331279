"""The unmodified aio SDK against the broker: what it sends, receives and settles."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusMessage,
    ServiceBusMessageState,
    ServiceBusReceivedMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
)
from azure.servicebus import exceptions as errors
from azure.servicebus.aio import AutoLockRenewer
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType

from local.servicebus import Server, serve

from .support import (
    Bus,
    Runs,
    connect,
    correlation,
    namespace,
    nothing,
    queue,
    run_together,
    sql,
    subscription,
    take,
    together,
    topic,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEAD_LETTERS: dict[str, Any] = {"sub_queue": ServiceBusSubQueue.DEAD_LETTER}
DELETE: dict[str, Any] = {"receive_mode": ServiceBusReceiveMode.RECEIVE_AND_DELETE}
# A queue for each test, so that none meets what another left.
QUEUES = (
    *("properties", "batch", "order", "abandon", "dead-letter", "defer", "peek", "schedule"),
    *("delete", "big", "oversize", "iterate", "bodies", "competing", "prefetch", "late", "renew"),
)
CONFIG = namespace(
    *(queue(name) for name in QUEUES),
    queue("max-delivery", MaxDeliveryCount=3),
    queue("expiry", LockDuration="PT2S"),
    queue("auto-renew", LockDuration="PT3S"),
    queue("duplicates", RequiresDuplicateDetection=True),
    queue("ttl", DeadLetteringOnMessageExpiration=True, DefaultMessageTimeToLive="P1D"),
    queue("ttl-drop"),
    queue("sessions", RequiresSession=True),
    queue("session-order", RequiresSession=True),
    queue("session-expiry", RequiresSession=True, LockDuration="PT2S"),
    topics=(
        topic(
            "events",
            subscription("all"),
            subscription("failed", correlation(Properties={"state": "failed"})),
            subscription("labelled", correlation(Label="audit")),
            subscription("ended", sql("state IN ('completed', 'failed') AND shard >= 2")),
            subscription("either", sql("state = 'running'"), correlation(Label="audit")),
        ),
        topic("news", subscription("readers")),
        topic("later", subscription("readers")),
        topic("once", subscription("readers"), RequiresDuplicateDetection=True),
    ),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with serve(CONFIG) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bus(server: Server) -> AsyncIterator[Bus]:
    async with connect(server.connection_string, retry_total=0) as clients:
        # Opening takes the SDK half a second: all senders at once.
        [space] = CONFIG["UserConfig"]["Namespaces"]
        await asyncio.gather(
            *(clients.sender(item["Name"]) for item in space["Queues"]),
            *(clients.sender(item["Name"], is_topic=True) for item in space["Topics"]),
        )
        yield clients


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(request: pytest.FixtureRequest, server: Server, bus: Bus) -> AsyncIterator[Runs]:
    async with run_together(request, server=server, bus=bus) as started:
        yield started


async def send(bus: Bus, name: str, *messages: Any, is_topic: bool = False) -> None:
    sender = await bus.sender(name, is_topic=is_topic)
    for message in messages:
        await sender.send_messages(message)


def in_future(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def properties(message: ServiceBusReceivedMessage) -> dict[str, Any]:
    return {text(key): text(value) for key, value in (message.application_properties or {}).items()}


@together
async def test_properties_and_application_properties_arrive_as_they_were(bus: Bus) -> None:
    application: dict[str | bytes, Any] = {
        "s": "x",
        "i": 7,
        "n": -5,
        "f": 1.5,
        "b": True,
        "u": uuid.UUID(int=5),
    }
    sent = ServiceBusMessage(
        b'{"a":1}',
        application_properties=dict(application),
        content_type="application/json",
        message_id="mid",
        correlation_id="cid",
        subject="subject",
        to="to",
        reply_to="reply",
        reply_to_session_id="reply-session",
        session_id="partition",
        partition_key="partition",
        time_to_live=timedelta(minutes=5),
    )
    before = datetime.now(UTC)
    await send(bus, "properties", sent)
    [got] = await take(await bus.receiver("properties"), 1)
    assert b"".join(got.body) == b'{"a":1}'
    assert properties(got) == application
    for name in (
        *("content_type", "message_id", "correlation_id", "subject", "to", "reply_to"),
        *("reply_to_session_id", "session_id", "partition_key", "time_to_live"),
    ):
        assert getattr(got, name) == getattr(sent, name), name
    assert (got.sequence_number, got.enqueued_sequence_number) == (1, 1)
    assert (got.delivery_count, got.state) == (0, ServiceBusMessageState.ACTIVE)
    assert got.lock_token is not None
    assert got.enqueued_time_utc is not None
    assert abs(got.enqueued_time_utc - before) < timedelta(seconds=5)
    assert got.locked_until_utc is not None
    assert timedelta(seconds=50) < got.locked_until_utc - before < timedelta(seconds=65)


@together
async def test_a_batch_arrives_in_order(bus: Bus) -> None:
    sender = await bus.sender("batch")
    batch = await sender.create_message_batch()
    for number in range(50):
        batch.add_message(ServiceBusMessage(f"{number}", message_id=f"m{number}"))
    await sender.send_messages(batch)
    await sender.send_messages([ServiceBusMessage("x"), ServiceBusMessage("y")])
    got = await take(await bus.receiver("batch"), 52)
    assert [str(message) for message in got] == [*map(str, range(50)), "x", "y"]
    assert [message.message_id for message in got[:50]] == [f"m{n}" for n in range(50)]
    assert [message.sequence_number for message in got] == list(range(1, 53))


@together
async def test_complete_removes_and_abandon_counts(bus: Bus) -> None:
    await send(bus, "abandon", ServiceBusMessage("a"))
    receiver = await bus.receiver("abandon")
    [first] = await take(receiver, 1)
    await receiver.abandon_message(first)
    [again] = await take(receiver, 1)
    assert (first.delivery_count, again.delivery_count) == (0, 1)
    assert again.sequence_number == first.sequence_number
    await receiver.complete_message(again)
    assert await nothing(receiver)
    assert await receiver.peek_messages(1) == []


@together
async def test_an_abandoned_message_keeps_its_place(bus: Bus) -> None:
    await send(bus, "order", [ServiceBusMessage(str(number)) for number in range(3)])
    receiver = await bus.receiver("order")
    got = await take(receiver, 2)
    await receiver.abandon_message(got[0])
    await receiver.complete_message(got[1])
    assert [str(message) for message in await take(receiver, 2)] == ["0", "2"]


@together
async def test_dead_letters_say_why_and_can_be_received(bus: Bus) -> None:
    await send(bus, "dead-letter", ServiceBusMessage("d", application_properties={"k": "v"}))
    receiver = await bus.receiver("dead-letter")
    [message] = await take(receiver, 1)
    await receiver.dead_letter_message(message, reason="bad", error_description="very bad")
    dead = await bus.receiver("dead-letter", **DEAD_LETTERS)
    [letter] = await take(dead, 1)
    assert (letter.dead_letter_reason, letter.dead_letter_error_description) == ("bad", "very bad")
    assert (str(letter), properties(letter)["k"]) == ("d", "v")
    assert text(letter.dead_letter_source) == "dead-letter"
    await dead.abandon_message(letter)
    [letter] = await take(dead, 1)
    await dead.complete_message(letter)
    assert await nothing(dead)
    assert await nothing(receiver)


@together
async def test_max_delivery_count_sends_to_the_dead_letter_queue(bus: Bus) -> None:
    await send(bus, "max-delivery", ServiceBusMessage("m"))
    receiver = await bus.receiver("max-delivery")
    for count in range(3):
        [message] = await take(receiver, 1)
        assert message.delivery_count == count
        await receiver.abandon_message(message)
    assert await nothing(receiver)
    [letter] = await take(await bus.receiver("max-delivery", **DEAD_LETTERS), 1)
    assert letter.dead_letter_reason == "MaxDeliveryCountExceeded"
    assert letter.delivery_count == 3


@together
async def test_renewal_prolongs_a_lock(bus: Bus) -> None:
    await send(bus, "renew", ServiceBusMessage("r"))
    receiver = await bus.receiver("renew")
    [message] = await take(receiver, 1)
    before = message.locked_until_utc
    assert before is not None
    await asyncio.sleep(0.05)
    after = await receiver.renew_message_lock(message)
    assert after > before
    await receiver.complete_message(message)


@together
async def test_the_auto_renewer_holds_a_lock_beyond_its_duration(bus: Bus) -> None:
    await send(bus, "auto-renew", ServiceBusMessage("r"))
    # The renewer of the SDK looks after its locks every second.
    async with AutoLockRenewer() as renewer:
        receiver = await bus.receiver("auto-renew", auto_lock_renewer=renewer)
        [message] = await take(receiver, 1)
        await asyncio.sleep(4.5)
        await receiver.complete_message(message)
    assert await receiver.peek_messages(1) == []


@together
async def test_an_expired_lock_redelivers_and_a_late_settlement_fails(bus: Bus) -> None:
    await send(bus, "expiry", ServiceBusMessage("e"))
    late, second = await bus.receiver("expiry"), await bus.receiver("expiry")
    [held] = await take(late, 1)
    [again] = await take(second, 1)
    await second.complete_message(again)
    assert again.delivery_count == 1
    held._expiry = in_future(3600)  # the SDK would not ask the service
    for settle in (late.complete_message, late.abandon_message, late.renew_message_lock):
        with pytest.raises(errors.MessageLockLostError):
            await settle(held)


@together
async def test_a_deferred_message_is_received_by_its_number(bus: Bus) -> None:
    await send(bus, "defer", ServiceBusMessage("d"))
    receiver = await bus.receiver("defer")
    [message] = await take(receiver, 1)
    await receiver.defer_message(message)
    assert await nothing(receiver)
    assert message.sequence_number is not None
    [deferred] = await receiver.receive_deferred_messages([message.sequence_number])
    assert (str(deferred), deferred.state) == ("d", ServiceBusMessageState.DEFERRED)
    await receiver.complete_message(deferred)
    with pytest.raises(errors.MessageNotFoundError):
        await receiver.receive_deferred_messages([message.sequence_number])


@together
async def test_peek_shows_without_locking(bus: Bus) -> None:
    later = ServiceBusMessage("later", scheduled_enqueue_time_utc=in_future(3600))
    await send(bus, "peek", ServiceBusMessage("1"), ServiceBusMessage("2"), later)
    receiver = await bus.receiver("peek")
    assert [str(message) for message in await receiver.peek_messages(10)] == ["1", "2", "later"]
    assert [str(m) for m in await receiver.peek_messages(1, sequence_number=2)] == ["2"]
    [_, _, scheduled] = await receiver.peek_messages(10, sequence_number=1)
    assert scheduled.state == ServiceBusMessageState.SCHEDULED
    assert len(await take(receiver, 2)) == 2


@together
async def test_scheduled_messages_wait_and_can_be_cancelled(bus: Bus) -> None:
    sender, receiver = await bus.sender("schedule"), await bus.receiver("schedule")
    start = time.monotonic()
    numbers = await sender.schedule_messages(
        [ServiceBusMessage("kept"), ServiceBusMessage("cancelled")], in_future(2.0)
    )
    await sender.cancel_scheduled_messages(numbers[1])
    await sender.send_messages(
        ServiceBusMessage("by annotation", scheduled_enqueue_time_utc=in_future(2.2))
    )
    assert await nothing(receiver)
    got = await take(receiver, 2)
    assert [str(message) for message in got] == ["kept", "by annotation"]
    assert time.monotonic() - start > 1.9
    with pytest.raises(errors.ServiceBusError):
        await sender.cancel_scheduled_messages(numbers[0])
    assert await nothing(receiver)


@together
async def test_a_topic_schedules_and_cancels_for_its_subscriptions(bus: Bus) -> None:
    sender = await bus.sender("later", is_topic=True)
    receiver = await bus.receiver("readers", "later")
    numbers = await sender.schedule_messages(
        [ServiceBusMessage("kept"), ServiceBusMessage("cancelled")], in_future(1.5)
    )
    await sender.cancel_scheduled_messages([numbers[1]])
    assert await nothing(receiver, 0.2)
    [message] = await take(receiver, 1)
    assert str(message) == "kept"
    assert await nothing(receiver)


@together
async def test_a_topic_fans_out_by_its_rules(bus: Bus) -> None:
    await send(
        bus,
        "events",
        ServiceBusMessage("1", application_properties={"state": "running", "shard": 1}),
        ServiceBusMessage("2", application_properties={"state": "failed", "shard": 2}),
        ServiceBusMessage("3", application_properties={"state": "completed", "shard": 1}),
        ServiceBusMessage("4", subject="audit"),
        is_topic=True,
    )
    expected = {
        "all": ["1", "2", "3", "4"],
        "failed": ["2"],
        "labelled": ["4"],
        "ended": ["2"],
        "either": ["1", "4"],
    }
    for name, bodies in expected.items():
        receiver = await bus.receiver(name, "events")
        assert [str(message) for message in await take(receiver, len(bodies))] == bodies, name
        assert await nothing(receiver, 0.1), name


@together
async def test_a_subscription_has_a_dead_letter_queue(bus: Bus) -> None:
    await send(bus, "news", ServiceBusMessage("n"), is_topic=True)
    receiver = await bus.receiver("readers", "news")
    [message] = await take(receiver, 1)
    await receiver.dead_letter_message(message, reason="unreadable")
    [letter] = await take(await bus.receiver("readers", "news", **DEAD_LETTERS), 1)
    assert (str(letter), letter.dead_letter_reason) == ("n", "unreadable")


@together
async def test_duplicates_are_taken_once(bus: Bus) -> None:
    for name, topic_name in (("duplicates", None), ("readers", "once")):
        messages = [ServiceBusMessage(body, message_id=body[0]) for body in ("a", "a again", "b")]
        await send(bus, topic_name or name, *messages, is_topic=topic_name is not None)
        receiver = await bus.receiver(name, topic_name)
        assert [str(message) for message in await take(receiver, 2)] == ["a", "b"], name
        assert await nothing(receiver), name


@together
async def test_a_session_has_one_receiver_an_order_and_a_state(bus: Bus) -> None:
    sessions = [ServiceBusMessage(f"{s}{n}", session_id=s) for n in range(3) for s in "AB"]
    await send(bus, "sessions", *sessions)
    receiver = await bus.receiver("sessions", session_id="B")
    got = await take(receiver, 3)
    assert [str(message) for message in got] == ["B0", "B1", "B2"]
    session = receiver.session
    assert await session.get_state() is None
    await session.set_state("half way")
    assert await session.get_state() == b"half way"
    before = session.locked_until_utc
    assert before is not None
    assert await session.renew_lock() >= before
    with pytest.raises(errors.SessionCannotBeLockedError):
        await bus.receiver("sessions", session_id="B")
    for message in got:
        await receiver.complete_message(message)
    other = await bus.receiver("sessions", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5)
    assert other.session.session_id == "A"
    assert [str(message) for message in await take(other, 3)] == ["A0", "A1", "A2"]
    with pytest.raises(errors.OperationTimeoutError):
        await bus.receiver("sessions", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=1)


@together
async def test_a_receiver_that_waits_gets_the_next_session(bus: Bus) -> None:
    waiting = asyncio.create_task(
        bus.receiver("session-order", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=10)
    )
    await send(bus, "session-order", ServiceBusMessage("s", session_id="late"))
    receiver = await waiting
    assert receiver.session.session_id == "late"
    assert [str(message) for message in await take(receiver, 1)] == ["s"]


@together
async def test_a_lost_session_comes_again(bus: Bus) -> None:
    await send(bus, "session-expiry", ServiceBusMessage("s", session_id="S"))
    receiver = await bus.receiver("session-expiry", session_id="S")
    [held] = await take(receiver, 1)
    other = await bus.receiver(
        "session-expiry", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=10
    )
    [again] = await take(other, 1)
    assert (again.delivery_count, other.session.session_id) == (1, "S")
    await other.complete_message(again)
    with pytest.raises(errors.SessionLockLostError):
        await receiver.complete_message(held)


@together
async def test_an_expired_message_goes_where_the_queue_says(bus: Bus) -> None:
    short = timedelta(seconds=1)  # the SDK sends whole seconds
    for name in ("ttl-drop", "ttl"):  # what is dropped is gone before the letter comes
        await send(bus, name, ServiceBusMessage(name, time_to_live=short))
    dead, dropped = await bus.receiver("ttl", **DEAD_LETTERS), await bus.receiver("ttl-drop")
    [letter] = await take(dead, 1)
    assert (str(letter), letter.dead_letter_reason) == ("ttl", "TTLExpiredException")
    assert await dropped.peek_messages(1) == []
    await dead.complete_message(letter)


@together
async def test_receive_and_delete_needs_no_settlement(bus: Bus) -> None:
    await send(bus, "delete", ServiceBusMessage("1"), ServiceBusMessage("2"))
    receiver = await bus.receiver("delete", **DELETE)
    assert [str(message) for message in await take(receiver, 2)] == ["1", "2"]
    assert await receiver.peek_messages(1) == []


@together
async def test_prefetch_fetches_ahead(bus: Bus) -> None:
    await send(bus, "prefetch", [ServiceBusMessage(str(number)) for number in range(100)])
    eager = await bus.receiver("prefetch", prefetch_count=50)
    [first] = await take(eager, 1)
    patient = await bus.receiver("prefetch")
    [other] = await take(patient, 1)
    assert str(first) == "0"
    assert int(str(other)) >= 50
    got = await take(eager, 49)
    assert [int(str(message)) for message in got] == list(range(1, 50))
    await asyncio.gather(*(eager.complete_message(message) for message in (first, *got)))


@together
async def test_competing_receivers_share_the_messages(bus: Bus) -> None:
    first, second = await bus.receiver("competing"), await bus.receiver("competing")
    await send(bus, "competing", [ServiceBusMessage(str(number)) for number in range(40)])
    halves = await asyncio.gather(take(first, 20), take(second, 20))
    bodies = sorted(int(str(message)) for half in halves for message in half)
    assert bodies == list(range(40))


@together
async def test_an_iterator_ends_when_nothing_comes(bus: Bus) -> None:
    await send(bus, "iterate", ServiceBusMessage("1"), ServiceBusMessage("2"))
    receiver = await bus.receiver("iterate", max_wait_time=1)
    got = []
    async for message in receiver:
        got.append(str(message))
        await receiver.complete_message(message)
    assert got == ["1", "2"]


@together
async def test_value_and_sequence_bodies_pass(bus: Bus) -> None:
    await send(
        bus,
        "bodies",
        AmqpAnnotatedMessage(value_body={"k": [1, "two"]}),
        AmqpAnnotatedMessage(sequence_body=[[1, 2], ["three"]]),
    )
    value, sequence = await take(await bus.receiver("bodies"), 2)
    assert (value.body_type, value.body) == (AmqpMessageBodyType.VALUE, {b"k": [1, b"two"]})
    assert sequence.body_type == AmqpMessageBodyType.SEQUENCE
    assert list(sequence.body) == [[1, 2], [b"three"]]


@together
async def test_a_large_message_passes_and_an_oversize_one_is_refused(bus: Bus) -> None:
    sender, receiver = await bus.sender("big"), await bus.receiver("big")
    assert sender._max_message_size_on_link == 256 * 1024
    body = bytes(range(256)) * 900
    await sender.send_messages(ServiceBusMessage(body))
    [message] = await take(receiver, 1)
    assert b"".join(message.body) == body
    for size in (262_144, 3_000_000):
        with pytest.raises(errors.MessageSizeExceededError):
            await sender.send_messages(ServiceBusMessage(bytes(size)))
    await sender.send_messages(ServiceBusMessage("the link still works"))
    [message] = await take(receiver, 1)
    assert str(message) == "the link still works"


@together
async def test_an_unknown_entity_is_not_found(bus: Bus) -> None:
    with pytest.raises(errors.MessagingEntityNotFoundError):
        await bus.sender("nowhere")
    with pytest.raises(errors.MessagingEntityNotFoundError):
        await bus.receiver("nobody", "events")


@together
async def test_a_session_queue_refuses_what_has_no_session(bus: Bus) -> None:
    with pytest.raises(errors.ServiceBusError, match="SessionId was not set"):
        await send(bus, "sessions", ServiceBusMessage("no session"))
    with pytest.raises(errors.ServiceBusError, match="non-sessionful message receiver"):
        await bus.receiver("sessions")
    with pytest.raises(errors.ServiceBusError, match="session receiver cannot be created"):
        await bus.receiver("late", session_id="S")


@together
async def test_a_topic_cannot_be_received_from(bus: Bus) -> None:
    with pytest.raises(errors.ServiceBusError, match="subscriptions"):
        await bus.receiver("events")


@together
async def test_a_wrong_key_is_refused(server: Server) -> None:
    for right, wrong in (
        ("SharedAccessKey=SAS_KEY_VALUE", "SharedAccessKey=WRONG"),
        ("SharedAccessKeyName=RootManageSharedAccessKey", "SharedAccessKeyName=Nobody"),
    ):
        connection_string = server.connection_string.replace(right, wrong)
        async with connect(connection_string, retry_total=0) as stranger:
            with pytest.raises(
                (errors.ServiceBusAuthenticationError, errors.ServiceBusAuthorizationError)
            ):
                await stranger.sender("properties")
