"""Faults on request, as the unmodified SDK meets them."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from azure.servicebus import ServiceBusMessage
from azure.servicebus import exceptions as errors

from local.servicebus import Fault, Faults, Server, serve
from local.servicebus.server.faults import Kind, Operation

from .support import Bus, Runs, connect, namespace, nothing, queue, run_together, take, together

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = (
    "drop",
    "lose-send",
    "lose-settle",
    "delay",
    "busy",
    "busy-settle",
    "twice",
    "attach",
    "manage",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    config = namespace(*(queue(name) for name in NAMES))
    async with serve(config, faults=Faults()) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bus(server: Server) -> AsyncIterator[Bus]:
    options = {"retry_total": 3, "retry_backoff_factor": 0.05}
    async with connect(server.connection_string, **options) as clients:
        await asyncio.gather(*(clients.sender(name) for name in NAMES))
        yield clients


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(request: pytest.FixtureRequest, server: Server, bus: Bus) -> AsyncIterator[Runs]:
    async with run_together(request, server=server, bus=bus) as started:
        yield started


def befall(server: Server, kind: Kind, on: Operation, entity: str, **how: Any) -> Fault:
    """Add a rule; each test has an entity of its own."""
    rule = Fault(kind, on, entity, **how)
    server.faults.rules.append(rule)
    return rule


def message(body: str) -> ServiceBusMessage:
    return ServiceBusMessage(body, message_id=body)


@together
async def test_a_dropped_send_is_sent_again_once(server: Server, bus: Bus) -> None:
    sender, receiver = await bus.sender("drop"), await bus.receiver("drop")
    rule = befall(server, Kind.DROP, Operation.SEND, "drop", times=1)
    await sender.send_messages(message("m"))
    assert rule.times == 0
    assert [str(m) for m in await take(receiver, 1)] == ["m"]
    assert await nothing(receiver)


@together
async def test_a_lost_acknowledgement_makes_the_sender_double(server: Server, bus: Bus) -> None:
    sender, receiver = await bus.sender("lose-send"), await bus.receiver("lose-send")
    befall(server, Kind.LOSE_ACK, Operation.SEND, "lose-send", times=1)
    await sender.send_messages(message("m"))
    assert [m.message_id for m in await take(receiver, 2)] == ["m", "m"]


@together
async def test_a_settlement_may_be_done_though_its_answer_is_lost(server: Server, bus: Bus) -> None:
    sender, receiver = await bus.sender("lose-settle"), await bus.receiver("lose-settle")
    await sender.send_messages(message("m"))
    [held] = await take(receiver, 1)
    befall(server, Kind.LOSE_ACK, Operation.SETTLE, "lose-settle", times=1)
    with pytest.raises(errors.ServiceBusError):
        await receiver.complete_message(held)
    assert server.broker.queue("lose-settle").messages == {}


@together
async def test_an_acknowledgement_may_come_late(server: Server, bus: Bus) -> None:
    sender, receiver = await bus.sender("delay"), await bus.receiver("delay")
    befall(server, Kind.DELAY_ACK, Operation.SEND, "delay", times=1, delay=1.5)
    befall(server, Kind.DELAY_ACK, Operation.SETTLE, "delay", times=1, delay=0.5)
    sending = asyncio.create_task(sender.send_messages(message("m")))
    [held] = await take(receiver, 1)
    assert not sending.done()
    await sending
    start = time.monotonic()
    await receiver.complete_message(held)
    assert time.monotonic() - start > 0.4


@together
async def test_a_busy_service_is_asked_again(server: Server, bus: Bus) -> None:
    sender, receiver = await bus.sender("busy"), await bus.receiver("busy")
    befall(server, Kind.BUSY, Operation.SEND, "busy", times=2)
    await sender.send_messages(message("m"))
    assert [str(m) for m in await take(receiver, 1)] == ["m"]
    befall(server, Kind.BUSY, Operation.SEND, "busy")
    with pytest.raises(errors.ServiceBusServerBusyError):
        await sender.send_messages(message("never"))
    assert await nothing(receiver)


@together
async def test_a_busy_settlement_is_asked_for_again(server: Server, bus: Bus) -> None:
    sender, receiver = await bus.sender("busy-settle"), await bus.receiver("busy-settle")
    await sender.send_messages(message("m"))
    [held] = await take(receiver, 1)
    rule = befall(server, Kind.BUSY, Operation.SETTLE, "busy-settle", times=1)
    await receiver.complete_message(held)  # the SDK asks again
    assert rule.times == 0
    assert server.broker.queue("busy-settle").messages == {}


@together
async def test_a_message_may_be_delivered_twice(server: Server, bus: Bus) -> None:
    sender, receiver = await bus.sender("twice"), await bus.receiver("twice")
    befall(server, Kind.TWICE, Operation.DELIVER, "twice", times=1)
    await sender.send_messages(message("m"))
    first, second = await take(receiver, 2)
    assert (first.message_id, second.message_id) == ("m", "m")
    assert (first.delivery_count, second.delivery_count) == (0, 1)
    with pytest.raises(errors.MessageLockLostError):
        await receiver.complete_message(first)
    await receiver.complete_message(second)


@together
async def test_a_link_may_not_open_at_first(server: Server, bus: Bus) -> None:
    rules = [
        befall(server, kind, Operation.ATTACH, "attach", times=1) for kind in (Kind.BUSY, Kind.DROP)
    ]
    receiver = await bus.receiver("attach")
    assert [rule.times for rule in rules] == [0, 0]
    await (await bus.sender("attach")).send_messages(message("m"))
    assert [str(m) for m in await take(receiver, 1)] == ["m"]


@together
async def test_a_request_may_be_refused_or_lost(server: Server, bus: Bus) -> None:
    sender, receiver = await bus.sender("manage"), await bus.receiver("manage")
    rule = befall(server, Kind.BUSY, Operation.MANAGE, "manage", times=1)
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await sender.schedule_messages(message("m"), later) == [1]
    rule = befall(server, Kind.DROP, Operation.MANAGE, "manage", times=1)
    assert [str(m) for m in await receiver.peek_messages(5)] == ["m"]
    assert rule.times == 0


async def test_rules_are_read_from_text() -> None:
    fault = Fault.parse("delay-ack:settle,entity=jobs,probability=0.25,skip=3,times=7,delay=1.5")
    assert fault == Fault(Kind.DELAY_ACK, Operation.SETTLE, "jobs", 0.25, 3, 7, 1.5)
    assert Fault.parse("drop:send") == Fault(Kind.DROP, Operation.SEND)
    for wrong in (
        *("", "drop", "drop:lunch", "crash:send", "twice:send", "drop:send,colour=red"),
        *("drop:send,probability=2", "drop:send,times=-1", "drop:send,skip=some"),
    ):
        with pytest.raises(ValueError, match=r"."):
            Fault.parse(wrong)


async def test_a_rule_befalls_as_often_as_it_says() -> None:
    faults = Faults([Fault(Kind.DROP, Operation.SEND, "Jobs", skip=2, times=2)])
    drawn = [faults.draw(Operation.SEND, "jobs") is not None for _ in range(6)]
    assert drawn == [False, False, True, True, False, False]
    assert faults.draw(Operation.SETTLE, "jobs") is None
    chances = [
        Faults([Fault(Kind.DROP, Operation.SEND, probability=0.3)], seed=7) for _ in range(2)
    ]
    draws = [[one.draw(Operation.SEND, "q") is not None for _ in range(1000)] for one in chances]
    assert draws[0] == draws[1]
    assert 250 < sum(draws[0]) < 350
