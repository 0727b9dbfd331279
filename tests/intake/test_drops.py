"""Dropped files that no event told of: each is found once, and what needs none is left alone."""

import asyncio
import hashlib
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.doubles.blobs import MemoryBlob, MemoryBlobs
from tests.doubles.faults import FaultyBlobs
from tests.doubles.service import EPOCH, Bench, bench
from tests.simulation.virtual_time import run
from workers.intake import drops, walking
from workers.intake.announcements import job_id
from workers.ports import BlobRef

HOUR = 3600.0
ROWS = b'{"prompt": "p"}\n'


def put(blobs: MemoryBlobs, name: str, age: float) -> None:
    """A file that was dropped so many seconds ago, and of which nobody told."""
    etag = hashlib.sha256(name.encode()).hexdigest()[:12]
    written = EPOCH + asyncio.get_running_loop().time() - age
    blobs.blobs[BlobRef("prompts", name)] = MemoryBlob(
        ROWS, etag, written, written, "application/octet-stream"
    )


def told(story: Callable[[Bench, MemoryBlobs, list[str]], Any]) -> None:
    """A story on a virtual clock; its list fills with the calls to storage."""

    async def lived(_: Random) -> None:
        calls: list[str] = []
        loop = asyncio.get_running_loop()
        blobs = MemoryBlobs(lambda: EPOCH + loop.time())

        def note(kind: str, _name: str, phase: str) -> None:
            if phase == "before":
                calls.append(kind)

        async with bench(blobs=FaultyBlobs(blobs, note)) as service:
            await story(service, blobs, calls)

    run(lived)


async def inputs(service: Bench) -> list[str]:
    """The files of all jobs and rejections."""
    listed = (await service.ask("GET", "/api/jobs", limit="100")).body["data"]
    return sorted(each["input"].removeprefix("prompts/") for each in listed)


def test_files_of_two_days_are_found_and_neither_younger_nor_older_ones() -> None:
    async def story(service: Bench, blobs: MemoryBlobs, _: list[str]) -> None:
        put(blobs, "young.jsonl", drops.AGE_SECONDS - 60)
        put(blobs, "lost.jsonl", HOUR)
        put(blobs, "old.jsonl", drops.LOOK_BACK_SECONDS + 60)
        put(blobs, "other.options.json", HOUR)
        await service.service.drops.run()
        await service.settle()
        assert await inputs(service) == ["lost.jsonl"]
        assert (await service.ended()).state == "completed"
        await asyncio.sleep(300)
        await service.service.drops.run()
        await service.settle()
        assert await inputs(service) == ["lost.jsonl", "young.jsonl"]

    told(story)


def test_jobs_and_rejections_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def story(service: Bench, blobs: MemoryBlobs, _: list[str]) -> None:
        for name in ("known.jsonl", "known.csv"):
            put(blobs, name, HOUR)
            await service.announce(name)
        await service.settle()
        events = list(service.events)
        put(blobs, "lost.csv", HOUR)
        await service.service.drops.run()
        await service.settle()
        [rejected] = service.events[len(events) :]
        assert (rejected["type"], rejected["data"]["input"]) == ("job.rejected", "prompts/lost.csv")
        assert "no event told of" not in caplog.text

    told(story)


@pytest.mark.slow
def test_what_was_looked_at_costs_its_place_in_a_listing_alone() -> None:
    async def story(service: Bench, blobs: MemoryBlobs, calls: list[str]) -> None:
        for number in range(200):
            put(blobs, f"{number:03}.jsonl", HOUR)
        await service.service.drops.run()
        await service.settle()
        assert len(await inputs(service)) == 100
        await asyncio.sleep(300)
        calls.clear()
        await service.service.drops.run()
        assert calls.count("list") == 1
        assert len(calls) <= 6

    told(story)


def test_a_sweep_looks_at_a_bounded_part_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(walking, "SLICE", 10)

    async def story(service: Bench, blobs: MemoryBlobs, calls: list[str]) -> None:
        for number in range(100):
            put(blobs, f"{number:03}.jsonl", HOUR)
        for found in (40, 80, 100):
            calls.clear()
            await service.service.drops.run()
            assert calls.count("list") <= drops.MOST_SLICES
            opened = blobs.blobs.below("state", "open/")
            assert len(opened) == found

    told(story)


def test_a_marker_alone_is_left_to_the_sweeper() -> None:
    async def story(service: Bench, blobs: MemoryBlobs, _: list[str]) -> None:
        put(blobs, "lost.jsonl", HOUR)
        await asyncio.gather(service.service.drops.run(), service.service.drops.run())
        while service.bus.receive("jobs"):  # type: ignore[attr-defined]
            pass  # this message is lost as well
        await asyncio.sleep(301)
        await service.sweeper.run()
        await service.settle()
        assert (await service.ended()).state == "completed"

    told(story)


def test_a_file_whose_job_cannot_be_read_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(service: Bench, blobs: MemoryBlobs, _: list[str]) -> None:
        names = [f"{number}.jsonl" for number in range(6)]
        for name in names:
            put(blobs, name, HOUR)
        job = job_id(await blobs.head(BlobRef("prompts", names[0])), None)
        await blobs.create(service.store.ref(job, "job.json"), b"odd")
        await service.service.drops.run()
        await service.settle()
        assert await inputs(service) == names[1:]

    monkeypatch.setattr(walking, "SLICE", 2)
    told(story)
