"""Large files: read by one worker at a time, by a process a few at a time, and by whoever comes."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from schemas.jobs import Job
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.service import EPOCH, Bench, bench
from tests.simulation.virtual_time import run
from workers.intake import planning, plans
from workers.intake.scanning import Planned, scan

ROWS = b'{"prompt": "p"}\n{"prompt": "q"}\n'


class Scans:
    """How often each file is read; a read takes `seconds`, and `dies` breaks the first off."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float, *, dies: bool = False):
        self.at_once = self.most = 0
        self.of: list[str] = []
        self.seconds = seconds
        self._dies = dies
        monkeypatch.setattr(plans, "LARGE_BYTES", 0)
        monkeypatch.setattr(plans, "scan", self._scan)

    async def _scan(self, blobs: Any, job: Job, rules: Any) -> Planned:
        self.of.append(job.name)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(self.seconds)
            if self._dies and len(self.of) == 1:
                raise asyncio.CancelledError
        finally:
            self.at_once -= 1
        return await scan(blobs, job, rules)


def told(story: Callable[[list[Bench]], Awaitable[None]]) -> None:
    """A story of three processes on one storage and one bus, on a virtual clock."""

    async def lived(_: Random) -> None:
        loop = asyncio.get_running_loop()
        blobs = MemoryBlobs(lambda: EPOCH + loop.time())
        async with bench(blobs=blobs) as a, bench(blobs=blobs) as b, bench(blobs=blobs) as c:
            for seed, other in enumerate((b, c), 1):
                other.service.intake._plans._rng = Random(seed)
                other.service.intake._outbox._bus = a.bus
                other.service.doors._outbox._bus = a.bus
            await story([a, b, c])

    run(lived)


async def until_ended(process: Bench, seconds: float) -> None:
    """The bus delivers what is due, for so long."""
    for _ in range(int(seconds)):
        await process.settle()
        await asyncio.sleep(1.0)


def test_three_announcements_of_a_large_file_read_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scans = Scans(monkeypatch, 150.0)

    async def story(processes: list[Bench]) -> None:
        await processes[0].drop(ROWS)
        async with asyncio.TaskGroup() as group:
            for process in processes:
                group.create_task(process.announce())
            await asyncio.sleep(100.0)
            # Just being planned: that the sweeper comes upon it starts nothing.
            await processes[1].sweeper.run()
        await until_ended(processes[0], 200.0)
        assert scans.of == ["in.jsonl"]
        assert (await processes[0].ended()).counts["succeeded"] == 2

    told(story)


def test_a_plan_whose_worker_dies_is_made_by_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    scans = Scans(monkeypatch, 30.0, dies=True)

    async def story(processes: list[Bench]) -> None:
        await processes[0].drop(ROWS)
        await asyncio.gather(*(p.announce() for p in processes), return_exceptions=True)
        await until_ended(processes[0], 400.0)
        assert len(scans.of) == 2
        assert (await processes[0].ended()).counts["succeeded"] == 2

    told(story)


def test_a_process_reads_two_at_once_and_nobody_waits_longer_than_a_function_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scans = Scans(monkeypatch, 400.0)

    async def story(processes: list[Bench]) -> None:
        [alone, *_] = processes
        names = [f"{number}.jsonl" for number in range(5)]
        for name in names:
            await alone.drop(ROWS, name)
        loop = asyncio.get_running_loop()
        took = []

        async def announced(name: str) -> None:
            began = loop.time()
            await alone.announce(name)
            took.append(loop.time() - began)

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(announced(name))
        assert scans.most == plans.LARGE_AT_ONCE
        assert max(took) <= plans.TURN_SECONDS + 400.0 + 5.0
        assert sorted(took)[:3] == pytest.approx([plans.TURN_SECONDS] * 3, abs=5.0)
        scans.seconds = 1.0
        await until_ended(alone, 200.0)
        assert sorted(scans.of) == names
        assert len([each for each in alone.events if each["type"] == "job.completed"]) == 5

    told(story)


def test_a_file_that_takes_too_long_is_tried_for_two_hours_and_fails_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plans, "READ_SECONDS", 50.0)
    scans = Scans(monkeypatch, 100.0)

    async def story(processes: list[Bench]) -> None:
        [alone, *_] = processes
        await alone.drop(ROWS)
        loop = asyncio.get_running_loop()
        await alone.announce()
        assert loop.time() <= 50.0 + 5.0, "the process lives on"
        await until_ended(alone, 2.0 * plans.TRIED_SECONDS)
        assert (await alone.ended()).state == "failed"
        [reason] = [e["data"]["reason"] for e in alone.events if e["type"] == "job.failed"]
        assert reason["code"] == "not_planned"
        assert "more than 23 minutes" in reason["message"]
        assert len(scans.of) >= plans.TRIED_SECONDS / (50.0 + 75.0)

    told(story)


def test_a_file_that_took_too_long_once_is_planned_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plans, "READ_SECONDS", 50.0)
    scans = Scans(monkeypatch, 100.0)

    async def story(processes: list[Bench]) -> None:
        [alone, *_] = processes
        await alone.drop(ROWS)
        await alone.announce()
        scans.seconds = 25.0
        await until_ended(alone, 200.0)
        assert len(scans.of) == 2
        assert (await alone.ended()).counts["succeeded"] == 2

    told(story)


def test_a_file_of_more_than_a_job_can_have_fails_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "MAX_SHARDS", 2)
    row = {"messages": [{"role": "user", "content": "p"}], "logprobs": True, "top_logprobs": 20}
    large = json.dumps(row | {"max_tokens": 16_000}).encode() + b"\n"

    async def story(processes: list[Bench]) -> None:
        [alone, *_] = processes
        await alone.drop(large * 5)
        await alone.announce()
        await until_ended(alone, 10.0)
        assert (await alone.ended()).state == "failed"
        [reason] = [e["data"]["reason"] for e in alone.events if e["type"] == "job.failed"]
        assert reason["code"] == "file_too_large"
        assert "split the file before line 3," in reason["message"]
        assert alone.endpoint.asked == []

    told(story)


def test_a_plan_has_the_time_that_a_function_is_given() -> None:
    host = json.loads((Path(__file__).parents[2] / "host.json").read_text("utf-8"))
    hours, minutes, seconds = map(int, host["functionTimeout"].split(":"))
    margin = 60.0
    given = hours * 3600 + minutes * 60 + seconds
    assert plans.TURN_SECONDS + plans.READ_SECONDS + margin <= given
