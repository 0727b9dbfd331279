"""A run that is interrupted, and what the same command makes of it: nothing is paid for twice."""

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from local.__main__ import main
from local.endpoint import Endpoint, Settings, simulate
from tests.local.test_run import run, running

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
    """`run` over a file of so many rows, against the endpoint."""

    endpoint: Endpoint
    folder: Path
    rows: int = 200
    per_minute: int = 3000

    def __post_init__(self) -> None:
        lines = (f'{{"prompt": "number {n}"}}\n' for n in range(self.rows))
        (self.folder / "rows.jsonl").write_text("".join(lines))
        self.out = self.folder / "out"
        self.arguments = (str(self.folder / "rows.jsonl"), "--data", str(self.folder / "data"))

    @property
    def settings(self) -> dict[str, str]:
        deployment = {
            "name": "mini",
            "kind": "openai",
            "url": f"{self.endpoint.url}/v1",
            "model": MODEL,
            "auth": "none",
            "requests_per_minute": self.per_minute,
        }
        return {"DEPLOYMENTS": json.dumps([deployment])}

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        out = () if "--out" in arguments else ("--out", str(self.out))
        return await run(*self.arguments, *out, *arguments, **self.settings)

    async def interrupt(self, *numbers: int, at: int) -> int:
        """Start it, and send signals once so many rows are answered: the exit status."""
        command = (*self.arguments, "--out", str(self.out))
        async with running(*command, **self.settings) as process:
            output = asyncio.create_task(process.communicate())
            async with asyncio.timeout(DEADLINE):
                while billed(self.endpoint)[1] < at and process.returncode is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                for number in numbers:
                    if process.returncode is None:
                        process.send_signal(number)
                        await asyncio.sleep(0.2)
                out, err = await output
            print(out.decode(), err.decode())
            assert process.returncode is not None
            return process.returncode


@pytest.fixture
def command(endpoint: Endpoint, tmp_path: Path) -> Command:
    return Command(endpoint, tmp_path)


def lines(path: Path) -> list[int]:
    """The input's line numbers of a result file's lines."""
    if not path.exists():
        return []
    return [int(json.loads(each)["id"].rpartition("-")[2]) for each in path.open()]


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
    status, _, err = await command.run("--again")
    assert status == 2
    assert "out holds output.jsonl" in err, "what was answered is kept"
    status, said, err = await command.run()
    assert (status, err) == (0, "")
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
    status, _, err = await command.run()
    assert (status, err) == (0, "")
    assert lines(command.out / "output.jsonl") == list(range(1, 201))
    # What was in flight at that moment, at 50 calls a second.
    assert billed(command.endpoint)[1] - 200 <= 25


async def test_what_is_completed_is_not_asked_again_but_on_demand(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    command = Command(endpoint, tmp_path, rows=FEW)
    assert (await command.run())[0] == 0
    status, said, _ = await command.run()
    assert status == 0
    assert "it completed before: nothing is asked" in said
    assert f"results in {command.out}/" in said
    assert billed(command.endpoint) == (FEW, FEW)
    copy = command.folder / "copy"
    assert (await command.run("--out", str(copy)))[0] == 0
    assert lines(copy / "output.jsonl") == list(range(1, FEW + 1))
    status, _, err = await command.run("--again")
    assert status == 2
    assert "out holds output.jsonl" in err, "results that were paid for stay"
    status, said, _ = await command.run()
    assert status == 0
    assert "it completed before: nothing is asked" in said, "a refusal forgets nothing"
    assert (await command.run("--again", "--out", str(command.folder / "anew")))[0] == 0
    assert billed(command.endpoint) == (FEW, 2 * FEW)
    assert list((command.folder / "data" / "runs").rglob("azurite")) == [], "all is at home"


async def test_other_options_or_endpoints_are_another_run(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    command = Command(endpoint, tmp_path, rows=FEW)
    assert (await command.run())[0] == 0
    other = ("--out", str(tmp_path / "other"), "--options", '{"max_tokens": 2}')
    assert (await command.run(*other))[0] == 0
    assert billed(command.endpoint)[1] == 2 * FEW
    # A simulator's answers are not an endpoint's.
    unlimited = ("--requests-per-minute", "0", "--tokens-per-minute", "0")
    _, said, _ = await run(*command.arguments, "--out", str(tmp_path / "simulated"), *unlimited)
    assert "completed before" not in said
    assert len(lines(tmp_path / "simulated" / "output.jsonl")) == FEW


@pytest.mark.long
async def test_again_begins_anew_what_was_killed(command: Command) -> None:
    assert await command.interrupt(signal.SIGKILL, at=60) == -signal.SIGKILL
    before = billed(command.endpoint)[1]
    status, said, err = await command.run("--again")
    assert (status, err) == (0, "")
    assert "going on with" not in said
    assert lines(command.out / "output.jsonl") == list(range(1, 201))
    assert billed(command.endpoint) == (200, before + 200)


async def test_the_same_command_at_once_is_refused(command: Command) -> None:
    async with running(*command.arguments, **command.settings) as first:
        output = asyncio.create_task(first.communicate())
        async with asyncio.timeout(DEADLINE):
            while not billed(command.endpoint)[1]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        others = [await command.run(), await command.run("--again")]
        first.send_signal(signal.SIGCONT)
        for status, _, err in others:
            assert status == 1
            assert "is in use: is another one running?" in err
        out, _ = await output
        assert first.returncode == 0, out
    assert billed(command.endpoint) == (200, 200)


@pytest.mark.long
@pytest.mark.timeout(3000)
async def test_interrupted_ten_times_at_random_it_asks_each_row_once(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    command = Command(endpoint, tmp_path, rows=2000)
    rng = random.Random(11)
    ways = ((signal.SIGINT,), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM,), (signal.SIGKILL,))
    for turn in range(10):
        before = billed(endpoint)
        at = before[1] + rng.randrange(1, 200)
        assert await command.interrupt(*ways[turn % 4], at=at) in (130, -signal.SIGKILL)
        print(f"{turn}: {ways[turn % 4]} at {at}: {before} -> {billed(endpoint)}")
    status, _, err = await command.run()
    assert (status, err) == (0, "")
    assert lines(command.out / "output.jsonl") == list(range(1, 2001))
    assert main(["verify", str(command.out)]) == 0
    paid, calls = billed(endpoint)
    assert paid == 2000
    print(f"{calls - 2000} calls more than 2000")
    assert calls - 2000 <= 10 * JOURNAL_SECONDS * command.per_minute / 60
