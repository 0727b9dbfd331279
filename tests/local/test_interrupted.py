"""A run that is interrupted, and what the same command makes of it: nothing is paid for twice."""

import asyncio
import io
import json
import logging
import os
import random
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from local import azurite
from local import running as command_run
from local.__main__ import main
from local.endpoint import Endpoint, Settings, simulate
from local.reporting import exit_status
from local.runs import Record
from tests.local.test_run import UNLIMITED, gone, running

DEADLINE = 240.0
MODEL = "Phi-3-mini-4k-instruct"
JOURNAL_SECONDS = 3
FEW = 20
"""Rows of a run that nothing interrupts."""
# Whole runs, each with processes to start: on a machine that is busy, they take their time.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with simulate(Settings(profile="openai", mean_tokens=4)) as endpoint:
        yield endpoint


def billed(endpoint: Endpoint) -> tuple[int, int]:
    """Rows that were paid for, and calls that were."""
    rows = endpoint.stats()["rows"]
    return rows["distinct"], rows["billed"]


@dataclass
class Command:
    """`run` over a file of so many rows, against the endpoint that DEPLOYMENTS names."""

    endpoint: Endpoint
    folder: Path
    capfd: pytest.CaptureFixture[str]
    caplog: pytest.LogCaptureFixture
    rows: int = 200

    def __post_init__(self) -> None:
        lines = (f'{{"prompt": "number {n}"}}\n' for n in range(self.rows))
        (self.folder / "rows.jsonl").write_text("".join(lines))
        self.out = self.folder / "out"

    def line(self, *arguments: str) -> list[str]:
        """What is given to `run`."""
        out = () if "--out" in arguments else ("--out", str(self.out))
        data = ("--data", str(self.folder / "data"))
        return [str(self.folder / "rows.jsonl"), *data, *out, *arguments]

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run it to its end in this process: the exit status, and what was said.

        Nothing is said to stderr, nor logged that would be written there by a process of its own.
        """
        said = io.StringIO()
        self.caplog.clear()
        given = command_run._arguments(self.line(*arguments))
        status, interrupted = await command_run._run(given, Console(file=said, soft_wrap=True))
        told = self.capfd.readouterr()
        print(told.out)
        assert told.err == ""
        assert self.caplog.record_tuples == []
        return exit_status(status, strict=False, interrupted=interrupted), said.getvalue()

    def record(self, *arguments: str) -> Record | None:
        """What is known of an earlier run of the same."""
        record: Record | None = command_run._arguments(self.line(*arguments)).run.record
        return record

    @asynccontextmanager
    async def started(self, at: int) -> AsyncIterator[Process]:
        """A process of it, once so many rows are answered; waits for its end."""
        async with running(*self.line(), DEPLOYMENTS=os.environ["DEPLOYMENTS"]) as process:
            output = asyncio.create_task(process.communicate())
            async with asyncio.timeout(DEADLINE):
                while billed(self.endpoint)[1] < at and process.returncode is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                yield process
                out, err = await output
            print(out.decode(), err.decode())

    async def interrupt(self, *numbers: int, at: int) -> int:
        """Send signals once so many rows are answered: the exit status. Nothing is left running."""
        async with self.started(at) as process:
            children = psutil.Process(process.pid).children(recursive=True)
            for number in numbers:
                if process.returncode is None:
                    process.send_signal(number)
                    await asyncio.sleep(0.2)
        assert await gone(children) == []
        assert process.returncode is not None
        return process.returncode


PER_MINUTE = 3000


@pytest.fixture
def command(
    endpoint: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Command:
    deployment = {
        "name": "mini",
        "kind": "openai",
        "url": f"{endpoint.url}/v1",
        "model": MODEL,
        "auth": "none",
        "requests_per_minute": PER_MINUTE,
    }
    monkeypatch.setenv("DEPLOYMENTS", json.dumps([deployment]))
    # What a process of its own would write to stderr: of the SDKs, the command wants errors alone.
    caplog.set_level(logging.ERROR, "azure")
    caplog.handler.setLevel(logging.WARNING)
    return Command(endpoint, tmp_path, capfd, caplog)


def lines(path: Path) -> list[int]:
    """The input's line numbers of a result file's lines."""
    if not path.exists():
        return []
    return [int(json.loads(each)["id"].rpartition("-")[2]) for each in path.open()]


def refused(command: Command, *arguments: str) -> str:
    """Why it is not even begun."""
    with pytest.raises(SystemExit) as ended:
        command_run._arguments(command.line(*arguments))
    assert ended.value.code == 2
    return command.capfd.readouterr().err


async def test_the_first_ctrl_c_brings_home_what_is_done_and_the_same_command_asks_the_rest(
    command: Command,
) -> None:
    out = command.out
    assert await command.interrupt(signal.SIGINT, at=60) == 130
    paid = billed(command.endpoint)[0]
    answered = (out / "output.jsonl").read_text().splitlines()
    assert 60 <= len(answered) == paid < 200
    assert len(lines(out / "errors.jsonl")) == 200 - paid
    assert main(["verify", str(out)]) == 0
    why = refused(command, "--again")
    assert "out holds output.jsonl" in why, "what was answered is kept"
    status, said = await command.run()
    assert status == 0
    assert "going on with rows.jsonl" in said
    assert lines(out / "output.jsonl") == list(range(1, 201))
    assert lines(out / "errors.jsonl") == []
    assert set(answered) <= set((out / "output.jsonl").read_text().splitlines())
    assert billed(command.endpoint) == (200, 200), "nothing was asked twice"
    assert main(["verify", str(out)]) == 0
    types = [json.loads(each)["type"] for each in (out / "events.jsonl").open()]
    assert types[-1] == "job.completed"
    assert "job.cancelled" in types


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param((signal.SIGINT, signal.SIGINT), marks=pytest.mark.long),
        pytest.param((signal.SIGTERM,), marks=pytest.mark.long),
        # The hardest of them: nothing has a moment to put anything away.
        (signal.SIGKILL,),
    ],
)
async def test_stopped_at_once_it_goes_on_with_what_was_journaled(
    command: Command, numbers: tuple[int, ...]
) -> None:
    assert await command.interrupt(*numbers, at=60) in (130, -signal.SIGKILL)
    assert (await command.run())[0] == 0
    assert lines(command.out / "output.jsonl") == list(range(1, 201))
    # What was in flight at that moment, at 50 calls a second.
    assert billed(command.endpoint)[1] - 200 <= 25


async def test_what_is_completed_is_not_asked_again_but_on_demand(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = replace(command, rows=FEW)
    assert (await command.run())[0] == 0
    status, said = await command.run()
    assert status == 0
    assert "it completed before: nothing is asked" in said
    assert f"results in {command.out}/" in said
    assert billed(command.endpoint) == (FEW, FEW)
    copy = command.folder / "copy"
    assert (await command.run("--out", str(copy)))[0] == 0
    assert lines(copy / "output.jsonl") == list(range(1, FEW + 1))
    why = refused(command, "--again")
    assert "out holds output.jsonl" in why, "results that were paid for stay"
    status, said = await command.run()
    assert status == 0
    assert "it completed before: nothing is asked" in said, "a refusal forgets nothing"
    assert (await command.run("--again", "--out", str(command.folder / "anew")))[0] == 0
    assert billed(command.endpoint) == (FEW, 2 * FEW)
    assert list((command.folder / "data" / "runs").rglob("azurite")) == [], "all is at home"
    elsewhere = ("--out", str(command.folder / "elsewhere"))
    assert command.record(*elsewhere) is not None
    assert command.record(*elsewhere, "--options", '{"max_tokens": 2}') is None, "another run"
    monkeypatch.delenv("DEPLOYMENTS")
    assert command.record(*elsewhere) is None, "a simulator's answers are not an endpoint's"


@pytest.mark.long
async def test_other_options_or_endpoints_are_another_run(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = replace(command, rows=FEW)
    assert (await command.run())[0] == 0
    other = ("--out", str(tmp_path / "other"), "--options", '{"max_tokens": 2}')
    assert (await command.run(*other))[0] == 0
    assert billed(command.endpoint)[1] == 2 * FEW
    monkeypatch.delenv("DEPLOYMENTS")
    _, said = await command.run("--out", str(tmp_path / "simulated"), *UNLIMITED)
    assert "completed before" not in said
    assert len(lines(tmp_path / "simulated" / "output.jsonl")) == FEW


@pytest.mark.long
async def test_again_begins_anew_what_was_killed(command: Command) -> None:
    assert await command.interrupt(signal.SIGKILL, at=60) == -signal.SIGKILL
    before = billed(command.endpoint)[1]
    status, said = await command.run("--again")
    assert status == 0
    assert "going on with" not in said
    assert lines(command.out / "output.jsonl") == list(range(1, 201))
    assert billed(command.endpoint) == (200, before + 200)


async def refused_as_in_use(command: Command) -> None:
    for again in ((), ("--again",)):
        assert await asyncio.to_thread(main, ["run", *command.line(*again)]) == 1
        assert "is in use: is another one running?" in command.capfd.readouterr().err


async def test_what_somebody_holds_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azurite, "STOP_SECONDS", 0.2)
    async with command_run._arguments(command.line()).run.held():
        await refused_as_in_use(command)
    assert billed(command.endpoint) == (0, 0)


@pytest.mark.long
async def test_the_same_command_at_once_is_refused(command: Command) -> None:
    async with command.started(at=1) as first:
        first.send_signal(signal.SIGSTOP)
        await refused_as_in_use(command)
        first.send_signal(signal.SIGCONT)
    assert first.returncode == 0
    assert billed(command.endpoint) == (200, 200)


@pytest.mark.long
@pytest.mark.timeout(3000)
async def test_interrupted_ten_times_at_random_it_asks_each_row_once(command: Command) -> None:
    endpoint = command.endpoint
    command = replace(command, rows=2000)
    rng = random.Random(11)
    ways = ((signal.SIGINT,), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM,), (signal.SIGKILL,))
    for turn in range(10):
        before = billed(endpoint)
        at = before[1] + rng.randrange(1, 200)
        assert await command.interrupt(*ways[turn % 4], at=at) in (130, -signal.SIGKILL)
        print(f"{turn}: {ways[turn % 4]} at {at}: {before} -> {billed(endpoint)}")
    assert (await command.run())[0] == 0
    assert lines(command.out / "output.jsonl") == list(range(1, 2001))
    assert main(["verify", str(command.out)]) == 0
    paid, calls = billed(endpoint)
    assert paid == 2000
    print(f"{calls - 2000} calls more than 2000")
    assert calls - 2000 <= 10 * JOURNAL_SECONDS * PER_MINUTE / 60
