"""`python -m local.servicebus` as a process: how it starts, stops, and comes back."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from azure.servicebus import ServiceBusMessage
from azure.servicebus import exceptions as errors

from .support import (
    Runs,
    command,
    connect,
    namespace,
    nothing,
    queue,
    run_together,
    take,
    together,
)

# Longer than a broker takes to come back, on a machine that is busy.
LOCK_SECONDS = 10
CONFIG = namespace(queue("jobs", LockDuration=f"PT{LOCK_SECONDS}S"))


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("command")


@pytest.fixture(scope="module")
def config(directory: Path) -> str:
    path = directory / "Config.json"
    path.write_text(json.dumps(CONFIG), encoding="utf-8")
    return str(path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(request: pytest.FixtureRequest, directory: Path, config: str) -> AsyncIterator[Runs]:
    async with run_together(request, directory=directory, config=config) as started:
        yield started


@together
async def test_it_prints_one_line_and_stops_when_told() -> None:
    async with asyncio.TaskGroup() as both:
        both.create_task(start_and_stop(signal.SIGTERM))
        both.create_task(start_and_stop(signal.SIGINT))


async def start_and_stop(how: signal.Signals) -> None:
    async with command("--config", "Config.json", "--port", "0") as (process, line):
        assert line.startswith("Endpoint=sb://127.0.0.1:")
        assert line.endswith("UseDevelopmentEmulator=true;")
        async with connect(line) as bus:
            await (await bus.sender("jobs")).send_messages(ServiceBusMessage("m"))
            process.send_signal(how)
            async with asyncio.timeout(10):
                rest, _ = await process.communicate()
        assert (process.returncode, rest) == (0, b"")


@together
async def test_it_says_why_it_cannot_start(directory: Path, config: str) -> None:
    wrong = directory / "wrong.json"
    wrong.write_text("{}", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, code, complaint in (
            (("--config", str(wrong), "--port", "0"), 1, "ConfigurationError: "),
            (("--config", config, "--port", port), 1, "OSError: "),
            (("--fault", "crash:send"), 2, "'crash' is not a valid Kind"),
        ):
            async with command(*arguments, errors=True) as (process, line):
                assert line == ""
                async with asyncio.timeout(10):
                    _, problem = await process.communicate()
            assert process.returncode == code
            assert complaint in problem.decode().splitlines()[-1]
            assert b"Traceback" not in problem


@together
async def test_messages_and_locks_outlive_a_killed_broker(config: str, directory: Path) -> None:
    arguments = ("--config", config, "--data", str(directory / "data.sqlite"), "--port", "0")
    async with command(*arguments) as (process, line), connect(line, retry_total=0) as bus:
        sender, receiver = await bus.sender("jobs"), await bus.receiver("jobs")
        await sender.send_messages([ServiceBusMessage(body) for body in ("locked", "done", "dead")])
        later = datetime.now(UTC) + timedelta(seconds=LOCK_SECONDS + 1.5)
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


@together
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
