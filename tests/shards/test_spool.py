"""What is long is copied and hashed beside the event loop."""

import asyncio
import threading

import pytest

from schemas.outcomes import Usage
from schemas.results import NOTHING_LOST
from tests.doubles import MemoryBlobs
from tests.jobs.test_lifecycle import job
from workers.jobs.store import JobStore
from workers.ports import BlobRef
from workers.rows.writing import RowResult
from workers.shards import spool
from workers.shards.spool import Spool, write_receipt


class Watched(Spool):
    """Knows which threads have read its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[int] = set()

    def part(self, rows):  # type: ignore[no-untyped-def]
        self.readers.add(threading.get_ident())
        return super().part(rows)


class Slow(Spool):
    """Writes when it is let to, and knows in which threads."""

    def __init__(self) -> None:
        super().__init__(memory_bytes=20_000)
        self.may = threading.Event()
        self.writers: list[int] = []

    def _write(self, at, pieces):  # type: ignore[no-untyped-def]
        if threading.get_ident() != threading.main_thread().ident:
            assert self.may.wait(30.0)
        self.writers.append(threading.get_ident())
        return super()._write(at, pieces)


def answered(row: int, size: int) -> RowResult:
    return RowResult(row, "succeeded", Usage(), bytes([97 + row]) * size)


def lines(results: Spool, rows: int) -> list[tuple[int, bytes]]:
    """The length and the letter of each line."""
    file, _, _ = results.part(range(rows))
    return [(len(line), line[:1]) for line in file.read().splitlines()]


async def test_a_long_line_is_written_beside_the_loop_and_what_comes_meanwhile_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spool, "COPIED_BYTES", 10_000)
    results, out = Slow(), []
    sizes = [500, 30_000, 700, 40_000, 10_000]
    assert all(results.add(answered(row, size)) for row, size in enumerate(sizes))
    assert not results.add(answered(1, 5)), "it counts, though it is not written yet"
    results.when_written(lambda: out.append("out"))
    await asyncio.sleep(0.05)
    assert (results.writers, out, len(results)) == ([threading.get_ident()], [], 5)
    results.may.set()
    await results.written()
    assert (len(results.writers), out) == (5, ["out"])
    assert threading.get_ident() not in results.writers[1:]
    assert lines(results, 5) == [(size, bytes([97 + n])) for n, size in enumerate(sizes)]
    results.when_written(lambda: out.append("at once"))
    results.add(answered(5, 600))
    assert results.writers[-1] == threading.get_ident()
    assert (out[-1], lines(results, 6)[-1]) == ("at once", (600, b"f"))
    results.close()


async def test_a_spool_that_is_closed_while_it_is_written_to_is_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spool, "COPIED_BYTES", 10_000)
    results, out = Slow(), []
    for row in range(3):
        results.add(answered(row, 30_000))
    results.when_written(lambda: out.append("out"))
    await asyncio.sleep(0.05)
    results.close()
    assert not results._texts.closed
    results.may.set()
    await results.written()
    assert (results._texts.closed, len(results.writers), out) == (True, 1, ["out"])


async def test_a_disk_that_takes_no_more_is_told_to_whoever_adds_or_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool, "COPIED_BYTES", 10_000)
    results = Spool()
    monkeypatch.setattr(results, "_write", full)
    results.add(answered(0, 30_000))
    with pytest.raises(OSError, match="No space"):
        await results.written()
    with pytest.raises(OSError, match="No space"):
        results.add(answered(1, 5))
    results.close()


@pytest.mark.parametrize("beside", [False, True])
async def test_a_long_part_is_hashed_beside_the_loop(
    beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "COPIED_BYTES", 10_000)
    blobs = MemoryBlobs(asyncio.get_running_loop().time)
    store = JobStore(blobs, state_container="state", results_container="results")
    results = Watched()
    for row in range(4):
        results.add(RowResult(row, "succeeded", Usage(), b"x" * (5_000 if beside else 500)))
    written = await write_receipt(store, job(), 0, "attempt", results, rows=(), lost=NOTHING_LOST)
    results.close()
    assert written.output is not None
    stored = blobs.blobs[BlobRef("state", written.output.name)].data
    assert (len(stored), stored.count(b"\n")) == (written.output.length, 4)
    assert (threading.get_ident() in results.readers) != beside
