"""Thousands of messages past killed consumers and brokers: none lost, none completed twice."""

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import ServiceBusError

from local.servicebus.server.store import Store

from .support import Clock, command, connect, make_broker, namespace, queue

CONSUMERS = 3
BATCH = 200
PREFETCH = 100  # what a consumer takes at a time
LOCK_SECONDS = 2
CONFIG = namespace(queue("soak", LockDuration=f"PT{LOCK_SECONDS}S", MaxDeliveryCount=1000))


class Soak:
    """The processes, the files that they share, and what is known of the messages."""

    def __init__(self, directory: Path, messages: int) -> None:
        self.directory, self.messages = directory, messages
        self.backlog = messages // 5
        self.config, self.address = directory / "Config.json", directory / "address"
        self.data = directory / "data.sqlite"
        self.config.write_text(json.dumps(CONFIG), encoding="utf-8")
        self.rng = random.Random(1)
        self.consumers: list[asyncio.subprocess.Process] = []
        self.started = 0
        self.acknowledged: set[str] = set()
        self.broker_stack = AsyncExitStack()

    async def start_broker(self) -> None:
        arguments = ("--config", str(self.config), "--port", "0", "--data", str(self.data))
        self.broker, line = await self.broker_stack.enter_async_context(command(*arguments))
        self.address.write_text(line, encoding="utf-8")

    async def kill_broker(self) -> None:
        self.broker.kill()
        await self.broker.wait()

    async def start_consumer(self) -> None:
        self.started += 1
        script = str(Path(__file__).with_name("soak_consumer.py"))
        notes = self.directory / f"notes-{self.started}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, str(self.address), str(notes), str(self.started)
        )
        self.consumers.append(process)

    async def kill_consumer(self) -> None:
        victim = self.consumers.pop(self.rng.randrange(len(self.consumers)))
        victim.kill()
        await victim.wait()

    async def send_all(self) -> None:
        """Send batch after batch, each until it is acknowledged."""
        ids = [f"m{number}" for number in range(self.messages)]
        batches = [ids[start : start + BATCH] for start in range(0, self.messages, BATCH)]
        while batches:
            try:
                await self._send(batches)
            except (ServiceBusError, OSError):
                await asyncio.sleep(0.1)

    async def _send(self, batches: list[list[str]]) -> None:
        connection_string = self.address.read_text(encoding="utf-8")
        async with (
            ServiceBusClient.from_connection_string(connection_string, retry_total=0) as client,
            client.get_queue_sender("soak") as sender,
        ):
            while batches:
                # Sending goes on for most of the test, so that kills meet it too.
                await self.wait_until(lambda: len(self.acknowledged) - self.done() < self.backlog)
                # A batch whose answer is lost is sent again under other ids: twice is not lost.
                batch = batches[0]
                messages = [ServiceBusMessage(b"x" * 300, message_id=one) for one in batch]
                try:
                    await sender.send_messages(messages)
                except BaseException:
                    batches[0] = [f"{one}'" for one in batch]
                    raise
                self.acknowledged.update(batch)
                batches.pop(0)

    def done(self) -> int:
        return sum(self.notes("done").values())

    def has_done(self, count: int) -> bool:
        return self.done() >= count

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not condition():  # noqa: ASYNC110 - other processes send no event
                await asyncio.sleep(0.2)  # each look reads all notes

    def notes(self, word: str) -> Counter[str]:
        lines = [
            line.split()
            for path in self.directory.glob("notes-*")
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
        return Counter(fields[1] for fields in lines if len(fields) == 2 and fields[0] == word)

    def left(self) -> int:
        """How many messages the file holds; only while no broker runs."""
        store = Store(self.data)
        try:
            return store.restore(make_broker(CONFIG, Clock()))
        finally:
            store.close()

    async def drain(self) -> None:
        """Let the consumers work until the queue is empty, locked messages included."""
        async with (
            asyncio.timeout(120),
            connect(self.address.read_text(encoding="utf-8")) as bus,
        ):
            receiver = await bus.receiver("soak")
            while await receiver.peek_messages(1, sequence_number=1):  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def stop(self) -> None:
        for process in self.consumers:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await self.broker_stack.aclose()


@pytest.mark.timeout(280)
@pytest.mark.parametrize("messages", [4_000, pytest.param(10_000, marks=pytest.mark.long)])
async def test_nothing_is_lost_or_completed_twice(tmp_path: Path, messages: int) -> None:
    soak = Soak(tmp_path, messages)
    try:
        await soak.start_broker()
        for _ in range(CONSUMERS):
            await soak.start_consumer()
        sending = asyncio.create_task(soak.send_all())
        for round_number in range(4):
            target = messages * (round_number + 1) // 6
            await soak.wait_until(partial(soak.has_done, target))
            await soak.kill_consumer()
            await soak.start_consumer()
            if round_number in (1, 3):
                await soak.kill_broker()
                await soak.start_broker()
        await sending
        await soak.drain()
        assert [one.returncode for one in soak.consumers] == [None] * CONSUMERS  # none ended itself
    finally:
        await soak.stop()

    done, asked = soak.notes("done"), soak.notes("asked")
    assert len(soak.acknowledged) == messages
    # A completion may have had its effect though its answer was lost with a process.
    assert soak.acknowledged <= set(asked)
    in_flight = PREFETCH * (4 + 2 * CONSUMERS)  # four consumers were killed, and two brokers
    assert len(soak.acknowledged - set(done)) <= in_flight
    assert [one for one, times in done.items() if times > 1] == []
    assert soak.left() == 0
