"""A scan lets others have the loop, whatever is made of the rows."""

import asyncio
import time

from schemas.jobs import Job, JobOptions
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.service import EPOCH
from workers.intake.scanning import SLICE_BYTES, Planned, scan, slices_of
from workers.ports import BlobRef
from workers.rows.reading import RowRules

MOST_HELD_SECONDS = 0.1


async def scanned(data: bytes, rules: RowRules) -> tuple[Planned, int, float]:
    """What a scan came to, how often others had the loop meanwhile, and its processor seconds."""
    blobs, ref = MemoryBlobs(lambda: EPOCH), BlobRef("prompts", "a.jsonl")
    etag = await blobs.create(ref, data)
    job = Job(
        id="a",
        door="drop",
        container=ref.container,
        name=ref.name,
        etag=etag,
        size=len(data),
        options=JobOptions(),
        priority="normal",
        created=EPOCH,
        expires=EPOCH,
        window=1,
        max_line_bytes=70_000,
        results="a",
    )
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    began = time.process_time()
    planned = await scan(blobs, job, rules)
    seconds = time.process_time() - began
    beside.cancel()
    return planned, turns, seconds


def test_a_slice_ends_where_a_line_does() -> None:
    short, long = b"x" * 99 + b"\n", b"y" * (2 * SLICE_BYTES) + b"\n"
    piece = short * 5_000 + long + short * 5_000 + b"a beginning"
    slices = list(slices_of(piece))
    assert b"".join(slices) == piece
    assert max(map(len, slices)) <= SLICE_BYTES
    assert sum(not each.endswith(b"\n") for each in slices) == 2 + 1
    assert list(slices_of(b"")) == []


async def test_a_small_file_of_large_requests_leaves_the_loop_to_others() -> None:
    # More places than a template may have today: a job of an earlier release is planned all the
    # same, and its rows take as long as they take.
    options = JobOptions(template={"prompt": "{a}" * 20_000}, model="phi")
    rules = RowRules.of(options, max_line_bytes=70_000, pinned=True)
    planned, turns, seconds = await scanned(b'{"a":1}\n' * 100, rules)
    assert sum(shard.rows for shard in planned.shards) == 100
    assert turns >= seconds / MOST_HELD_SECONDS
