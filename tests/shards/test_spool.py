"""What is long is copied and hashed beside the event loop."""

import asyncio
import threading

import pytest

from schemas.outcomes import Usage
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
    written = await write_receipt(store, job(), 0, "attempt", results)
    results.close()
    assert written.output is not None
    stored = blobs.blobs[BlobRef("state", written.output.name)].data
    assert (len(stored), stored.count(b"\n")) == (written.output.length, 4)
    assert (threading.get_ident() in results.readers) != beside
