"""`python -m local.servicebus` as a process: how it starts, stops, and comes back."""

import asyncio
import json
import signal
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus import exceptions as errors

from .support import command, connect, namespace, nothing, queue, take

CONFIG = namespace(queue("jobs", LockDuration="PT3S"))


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "Config.json"
    path.write_text(json.dumps(CONFIG), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_it_prints_one_line_and_stops_when_told(how: signal.Signals) -> None:
    async with command("--config", "Config.json", "--port", "0") as (process, line):
        assert line.startswith("Endpoint=sb://127.0.0.1:")
        assert line.endswith("UseDevelopmentEmulator=true;")
        async with connect(line) as bus:
            await (await bus.sender("jobs")).send_messages(ServiceBusMessage("m"))
            process.send_signal(how)
            async with asyncio.timeout(10):
                rest, _ = await process.communicate()
        assert (process.returncode, rest) == (0, b"")


@pytest.mark.parametrize(
    ("content", "complaint"), [("{}", "ConfigurationError"), (json.dumps(CONFIG), "OSError")]
)
async def test_it_says_why_it_cannot_start(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "Config.json"
    path.write_text(content, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with command("--config", str(path), "--port", port, errors=True) as (process, line):
            assert line == ""
            async with asyncio.timeout(10):
                _, problem = await process.communicate()
    assert process.returncode == 1
    assert problem.decode().startswith(complaint)
    assert len(problem.splitlines()) == 1


async def test_messages_and_locks_outlive_a_killed_broker(config: str, tmp_path: Path) -> None:
    arguments = ("--config", config, "--data", str(tmp_path / "data.sqlite"), "--port", "0")
    async with command(*arguments) as (process, line), connect(line, retry_total=0) as bus:
        sender, receiver = await bus.sender("jobs"), await bus.receiver("jobs")
        await sender.send_messages([ServiceBusMessage(body) for body in ("locked", "done", "dead")])
        later = datetime.now(UTC) + timedelta(seconds=4.5)
        await sender.schedule_messages(ServiceBusMessage("later"), later)
        locked, done, dead = await take(receiver, 3)
        await receiver.complete_message(done)
        await receiver.dead_letter_message(dead, reason="bad")
        await sender.send_messages(ServiceBusMessage("waiting"))
        process.kill()
        await process.wait()
        with pytest.raises(errors.ServiceBusError):
            await sender.send_messages(ServiceBusMessage("to nobody"))
    async with command(*arguments) as (_, line), connect(line) as bus:
        receiver = await bus.receiver("jobs")
        [waiting] = await take(receiver, 1)
        assert str(waiting) == "waiting"
        await receiver.complete_message(waiting)
        [again] = await take(receiver, 1)
        await receiver.complete_message(again)
        assert (str(again), locked.delivery_count, again.delivery_count) == ("locked", 0, 1)
        assert again.sequence_number == locked.sequence_number
        assert locked.locked_until_utc is not None
        assert datetime.now(UTC) >= locked.locked_until_utc
        [scheduled] = await take(receiver, 1)
        await receiver.complete_message(scheduled)
        assert str(scheduled) == "later"
        assert await nothing(receiver)
        [letter] = await take(await bus.receiver("jobs", sub_queue="deadletter"), 1)
        assert (str(letter), letter.dead_letter_reason) == ("dead", "bad")


async def test_faults_are_asked_for_on_the_command_line(config: str) -> None:
    busy = "busy:send,entity=jobs,times=1"
    async with (
        command("--config", config, "--port", "0", "--fault", busy) as (_, line),
        connect(line, retry_total=0) as bus,
    ):
        sender = await bus.sender("jobs")
        with pytest.raises(errors.ServiceBusServerBusyError):
            await sender.send_messages(ServiceBusMessage("refused"))
        await sender.send_messages(ServiceBusMessage("taken"))
        assert [str(m) for m in await take(await bus.receiver("jobs"), 1)] == ["taken"]
