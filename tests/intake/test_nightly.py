"""The nightly walk: what is new is announced, whatever lies there, and whoever dies over it."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.doubles.blobs import MemoryBlob, MemoryBlobs
from tests.doubles.faults import FaultyBlobs, ProcessKilled
from tests.doubles.service import EPOCH, Bench, bench
from tests.simulation.virtual_time import run
from workers.intake import nightly, walking
from workers.intake.announcements import job_id
from workers.jobs.outbox import JOBS
from workers.ports import BlobRef

DAY = 86_400.0
ROWS = b'{"prompt": "p"}\n'


def put(blobs: MemoryBlobs, name: str, written: float) -> None:
    etag = hashlib.sha256(f"{name} {written}".encode()).hexdigest()[:12]
    blobs.blobs[BlobRef("nightly", name)] = MemoryBlob(
        ROWS, etag, written, written, "application/octet-stream"
    )


def announced(service: Bench) -> list[str]:
    """The names of all files that messages announce, in order."""
    names = []
    while delivery := service.bus.receive(JOBS):  # type: ignore[attr-defined]
        names.append(delivery.message.body.partition(b'"name":"')[2].partition(b'"')[0].decode())
        service.bus.complete(delivery)  # type: ignore[attr-defined]
    return names


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


@pytest.mark.slow
def test_among_100_000_old_files_the_new_ones_cost_what_new_ones_cost() -> None:
    async def story(service: Bench, blobs: MemoryBlobs, calls: list[str]) -> None:
        for number in range(100_000):
            put(blobs, f"old/{number:06}.jsonl", EPOCH - DAY)
        ref = BlobRef("state", "nightly/nightly.json")
        await blobs.create(ref, b'{"since": %d}' % (EPOCH - DAY / 2))
        new = [f"{number % 10}/{number:04}.jsonl" for number in range(1000)]
        for name in new:
            put(blobs, name, EPOCH - 3600.0)
        assert await service.service.nightly.run() == 1000
        assert sorted(announced(service)) == sorted(new)
        walked = 101_000 // walking.SLICE + 1
        assert len(calls) <= 4 * 1000 + 4 * walked + 4
        await asyncio.sleep(DAY)
        calls.clear()
        assert await service.service.nightly.run() == 0
        assert announced(service) == []
        assert len(calls) <= 4 * walked + 4

    told(story)


def test_a_first_night_announces_all_that_lies_there() -> None:
    async def story(service: Bench, blobs: MemoryBlobs, _calls: list[str]) -> None:
        names = [f"{number:03}.jsonl" for number in range(300)]
        for name in [*names, "notes.txt", "001.options.json"]:
            put(blobs, name, EPOCH - 30 * DAY)
        assert await service.service.nightly.run() == 300
        assert sorted(announced(service)) == names

    told(story)


def test_a_night_whose_worker_dies_is_taken_up_where_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(walking, "SLICE", 10)

    async def lived(_: Random) -> None:
        loop = asyncio.get_running_loop()
        blobs = MemoryBlobs(lambda: EPOCH + loop.time())
        names = [f"{number:03}.jsonl" for number in range(95)]
        for name in names:
            put(blobs, name, EPOCH - DAY)
        found: list[str] = []
        for life in range(4):
            creates = 0

            def dies(kind: str, name: str, phase: str) -> None:
                nonlocal creates
                creates += kind == "create" and "open/" in name and phase == "after"
                if creates > 25:
                    raise ProcessKilled

            async with bench(blobs=FaultyBlobs(blobs, dies)) as service:
                walk = service.service.nightly
                with contextlib.suppress(ProcessKilled, BaseExceptionGroup):
                    await (walk.resume() if life else walk.run())
                found += announced(service)
            await asyncio.sleep(nightly.STALE_SECONDS + 1)
        async with bench(blobs=blobs) as service:
            await service.service.nightly.resume()
            # What had its marker, and died before it was sent, is the sweeper's.
            await asyncio.sleep(301.0)
            await service.sweeper.run()
            found += announced(service)
            assert await service.service.nightly.run() == 0
        assert set(found) == set(names)

    run(lived)


def test_two_walks_at_once_announce_nothing_twice() -> None:
    async def story(service: Bench, blobs: MemoryBlobs, _calls: list[str]) -> None:
        for number in range(50):
            put(blobs, f"{number:03}.jsonl", EPOCH - DAY)
        await asyncio.gather(service.service.nightly.run(), service.service.nightly.run())
        assert len(announced(service)) == 50

    told(story)


def test_a_file_written_while_the_walk_goes_on_is_not_forgotten() -> None:
    async def story(service: Bench, blobs: MemoryBlobs, _calls: list[str]) -> None:
        put(blobs, "a.jsonl", EPOCH - DAY)
        await service.service.nightly.run()
        # Written by a service whose clock is behind ours.
        put(blobs, "b.jsonl", EPOCH - 100.0)
        await asyncio.sleep(DAY)
        assert await service.service.nightly.run() == 1
        assert announced(service) == ["a.jsonl", "b.jsonl"]

    told(story)


def test_a_file_whose_job_cannot_be_read_hides_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(service: Bench, blobs: MemoryBlobs, _: list[str]) -> None:
        names = [f"{number}.jsonl" for number in range(12)]
        for name in names:
            put(blobs, name, EPOCH - 3600.0)
        job = job_id(await blobs.head(BlobRef("nightly", names[1])), None)
        await blobs.create(service.store.ref(job, "job.json"), b"odd")
        assert await service.service.nightly.run() == 11
        assert sorted(announced(service)) == sorted(set(names) - {names[1]})
        put(blobs, "new.jsonl", EPOCH + DAY - 60.0)
        await asyncio.sleep(DAY)
        assert await service.service.nightly.run() == 1
        assert caplog.text.count("[FILE_UNREAD]") == 1
        assert job in caplog.text

    monkeypatch.setattr(walking, "SLICE", 5)
    told(story)
