"""What the bus adapter makes of outages, lost answers, silence and cancelled callers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from local.servicebus import Fault, Faults, Server, serve
from local.servicebus.server.faults import Kind, Operation
from workers.adapters import send_queue as adapter
from workers.adapters.bus import ServiceBus, connect_bus
from workers.ports import OutMessage, errors

CONFIG: dict[str, Any] = {
    "UserConfig": {"Namespaces": [{"Name": "trouble", "Queues": [{"Name": "jobs"}], "Topics": []}]}
}


def message(message_id: object) -> OutMessage:
    return OutMessage(body=b"{}", message_id=str(message_id))


def received(server: Server) -> Counter[str]:
    """All there is in the queue, by id."""
    queue = server.broker.queue("jobs")
    return Counter(str(kept.facts().system["MessageId"]) for kept in queue.peek(0, 10_000))


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serve(CONFIG, faults=Faults()) as running:
        yield running


@pytest.fixture
async def bus(server: Server) -> AsyncIterator[ServiceBus]:
    async with connect_bus(server.connection_string) as client:
        yield client


async def test_a_lost_answer_may_double_but_never_lose(bus: ServiceBus, server: Server) -> None:
    server.faults.rules.append(Fault(Kind.LOSE_ACK, Operation.SEND, times=1))

    await bus.send("jobs", [message(1), message(2)])

    assert received(server).keys() == {"1", "2"}


async def test_a_busy_service_is_asked_again(bus: ServiceBus, server: Server) -> None:
    server.faults.rules.append(Fault(Kind.BUSY, Operation.SEND, times=1))

    await bus.send("jobs", [message(1)])

    assert received(server) == {"1": 1}


async def test_a_service_that_stays_silent_is_unavailable(
    bus: ServiceBus, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bus.send("jobs", [message("before")])
    monkeypatch.setattr(adapter, "TURN_SECONDS", 0.3)
    server.faults.rules.append(Fault(Kind.DELAY_ACK, Operation.SEND, times=1, delay=60))

    results = await asyncio.gather(
        *(bus.send("jobs", [message(n)]) for n in range(3)), return_exceptions=True
    )

    assert errors.Unavailable in map(type, results)
    monkeypatch.undo()
    await bus.send("jobs", [message("after")])
    found = received(server)
    sent = {str(n) for n, result in enumerate(results) if result is None}
    assert found.keys() >= {"before", "after", *sent}


async def test_an_outage_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "TURN_SECONDS", 1.0)
    async with serve(CONFIG) as first:
        port = first.port
        client = connect_bus(first.connection_string)
        bus = await client.__aenter__()
        await bus.send("jobs", [message("before")])
    try:
        with pytest.raises(errors.Unavailable, match="jobs"):
            await bus.send("jobs", [message("during")])
        async with serve(CONFIG, port=port) as second:
            monkeypatch.undo()
            await bus.send("jobs", [message("after")])
            assert received(second) == {"after": 1}
    finally:
        await client.__aexit__(None, None, None)


async def test_a_cancelled_caller_takes_nobody_with_it(bus: ServiceBus, server: Server) -> None:
    await bus.send("jobs", [message("open")])
    server.faults.rules.append(Fault(Kind.DELAY_ACK, Operation.SEND, times=1, delay=60))
    reached = asyncio.Event()
    draw = server.faults.draw

    def watched(operation: Operation, path: str) -> Fault | None:
        if operation == Operation.SEND:
            reached.set()
        return draw(operation, path)

    server.faults.draw = watched  # type: ignore[method-assign]

    calls = [asyncio.create_task(bus.send("jobs", [message(n)])) for n in range(20)]
    async with asyncio.timeout(5):
        await reached.wait()
    late = asyncio.create_task(bus.send("jobs", [message("late")]))
    calls[0].cancel()  # the one that sends for all
    results = await asyncio.gather(*calls, late, return_exceptions=True)

    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [None] * 20
    assert received(server).keys() >= {*map(str, range(1, 20)), "late", "open"}


async def test_concurrent_sends_share_batches(bus: ServiceBus, server: Server) -> None:
    await bus.send("jobs", [message("open")])
    sends = Counter[str]()
    draw = server.faults.draw

    def counted(operation: Operation, path: str) -> Fault | None:
        sends[operation] += 1
        return draw(operation, path)

    server.faults.draw = counted  # type: ignore[method-assign]

    await asyncio.gather(*(bus.send("jobs", [message(n)]) for n in range(500)))

    assert sends[Operation.SEND] <= 3
    assert received(server).total() == 501


async def test_connecting_calls_nobody() -> None:
    async with connect_bus(
        "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=a2V5;"
        "UseDevelopmentEmulator=true;"
    ) as bus:
        assert isinstance(bus, ServiceBus)


@pytest.mark.parametrize("connection", [None, "", "c2VjcmV0", "SharedAccessKey=c2VjcmV0"])
async def test_a_bad_connection_string_is_not_repeated(connection: str | None) -> None:
    with pytest.raises(errors.SettingsError) as raised:
        async with connect_bus(connection):
            pass
    assert "c2VjcmV0" not in str(raised.value)
    assert raised.value.__cause__ is None
