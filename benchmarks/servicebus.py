"""How fast the local Service Bus broker is, measured through the unmodified aio SDK.

    python -m benchmarks.servicebus [--messages 20000] [--data FILE] [--memory]

The broker runs as a process of its own, the clients in this one. `--data` keeps messages on disk;
`--memory` sends and completes 100,000 messages and reports the broker's resident memory on the way.
"""

import argparse
import asyncio
import json
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from azure.servicebus import ServiceBusMessage, ServiceBusReceiveMode
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender

ROOT = Path(__file__).parents[1]
BODY = json.dumps(
    {"job": "0123456789abcdef" * 2, "shard": 17, "offset": 1 << 33, "gen": 1}
    | {"padding": "x" * 130}
).encode()
QUEUE = "bench"
CONFIG = {
    "UserConfig": {
        "Namespaces": [{"Name": "sbemulatorns", "Queues": [{"Name": QUEUE}], "Topics": []}]
    }
}
IN_ROUND = 10_000
ROUNDS = 10


@dataclass
class Broker:
    """The running broker: how to reach it, and its process."""

    connection_string: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        times = self.process.cpu_times()
        return float(times.user + times.system)


@asynccontextmanager
async def running_broker(
    data: Path | None, entities: Mapping[str, Any] = CONFIG
) -> AsyncIterator[Broker]:
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory) / "Config.json"
        config.write_text(json.dumps(entities), encoding="utf-8")
        arguments = ["--config", str(config), "--port", "0"]
        if data is not None:
            arguments += ["--data", str(data)]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "local.servicebus",
            *arguments,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode().strip()
        try:
            yield Broker(line, psutil.Process(process.pid))
        finally:
            process.terminate()
            await process.wait()


async def send_singly(sender: ServiceBusSender, count: int) -> None:
    for number in range(count):
        await sender.send_messages(ServiceBusMessage(BODY, message_id=f"s{number}"))


async def send_batches(sender: ServiceBusSender, count: int) -> None:
    sent = 0
    while sent < count:
        batch = await sender.create_message_batch()
        for number in range(sent, min(sent + 500, count)):
            batch.add_message(ServiceBusMessage(BODY, message_id=f"b{number}"))
            sent += 1
        await sender.send_messages(batch)


async def receive_and_complete(receiver: ServiceBusReceiver, count: int, together: int) -> None:
    """Receive `count` messages and complete them, `together` at a time."""
    received = 0
    while received < count:
        messages = await receiver.receive_messages(min(100, count - received), max_wait_time=10)
        assert messages, "messages are missing"
        for start in range(0, len(messages), together):
            part = messages[start : start + together]
            await asyncio.gather(*(receiver.complete_message(message) for message in part))
        received += len(messages)


async def receive_and_delete(receiver: ServiceBusReceiver, count: int) -> None:
    received = 0
    while received < count:
        messages = await receiver.receive_messages(min(500, count - received), max_wait_time=10)
        assert messages, "messages are missing"
        received += len(messages)


async def timed(name: str, count: int, broker: Broker, work: Awaitable[None]) -> None:
    """Print the rate, and what each message cost the broker, which other load does not change."""
    start, spent = time.perf_counter(), broker.cpu_seconds()
    await work
    seconds, spent = time.perf_counter() - start, broker.cpu_seconds() - spent
    rate, cost = (
        f"{count / seconds:8.0f} messages/s",
        f"{spent / count * 1e6:5.0f} us of broker CPU",
    )
    print(f"{name:36s} {rate} {cost} each   ({count} in {seconds:.2f} s)", flush=True)


async def rates(client: ServiceBusClient, broker: Broker, count: int) -> None:
    single = count // 4
    async with client.get_queue_sender(QUEUE) as sender:
        await timed("send, one by one", single, broker, send_singly(sender, single))
        await timed("send, batches of 500", count * 2, broker, send_batches(sender, count * 2))
    async with client.get_queue_receiver(QUEUE) as receiver:
        await timed(
            "receive and complete, one by one",
            single,
            broker,
            receive_and_complete(receiver, single, 1),
        )
        await timed(
            "receive and complete, 100 together",
            count,
            broker,
            receive_and_complete(receiver, count, 100),
        )
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    async with client.get_queue_receiver(QUEUE, receive_mode=mode) as receiver:
        await timed("receive and delete", count, broker, receive_and_delete(receiver, count))


async def memory(client: ServiceBusClient, broker: Broker) -> None:
    """Whether the broker's memory stays flat while many messages pass."""
    async with (
        client.get_queue_sender(QUEUE) as sender,
        client.get_queue_receiver(QUEUE) as receiver,
    ):
        for number in range(1, ROUNDS + 1):
            await send_batches(sender, IN_ROUND)
            await receive_and_complete(receiver, IN_ROUND, 100)
            megabytes = broker.process.memory_info().rss / 2**20
            print(f"after {number * IN_ROUND:7d} messages: {megabytes:6.1f} MiB", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    print(
        f"Python {platform.python_version()}, {psutil.cpu_count()} cores, {len(BODY)} byte bodies"
    )
    async with (
        running_broker(arguments.data) as broker,
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
    ):
        if arguments.memory:
            await memory(client, broker)
        else:
            await rates(client, broker, arguments.messages)


if __name__ == "__main__":
    asyncio.run(main())
