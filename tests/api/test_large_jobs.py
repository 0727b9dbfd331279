"""A job of ten million rows on the dashboard: what is asked of it grows in nothing."""

import json

import pytest

from schemas.history import Sample
from schemas.jobs import Job, JobOptions, JobState
from schemas.listing import IndexEntry
from schemas.results import CodeCount, Counts, Interval, Tokens, Use
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.service import EPOCH, Bench, bench
from workers.jobs.history import History
from workers.jobs.series import MOST, Series, samples_of
from workers.jobs.store import dump
from workers.ports import BlobRef, Stored

PATHS = ("", "/samples", "/errors")


class Counted(MemoryBlobs):
    """Counts what is read of it."""

    reads = bytes_read = 0

    async def read(self, ref: BlobRef) -> Stored:
        found = await super().read(ref)
        self.reads, self.bytes_read = self.reads + 1, self.bytes_read + len(found.data)
        return found

    async def read_range(
        self, ref: BlobRef, offset: int, length: int, *, etag: str | None = None
    ) -> bytes:
        found = await super().read_range(ref, offset, length, etag=etag)
        self.reads, self.bytes_read = self.reads + 1, self.bytes_read + len(found)
        return found


async def stored(service: Bench, rows: int, shards: int) -> str:
    """A job that is half through, as its workers leave it."""
    name = f"job-of-{rows:08}"
    job = Job(
        id=name,
        door="drop",
        container="prompts",
        name="in.jsonl",
        etag="0x1",
        size=rows * 100,
        options=JobOptions(),
        priority="normal",
        created=EPOCH,
        expires=EPOCH + 30 * 86400,
        window=16,
        max_line_bytes=4096,
        results=f"in.jsonl/{name}",
    )
    done = shards // 2
    state = JobState(
        revision=done,
        state="in_progress",
        shards=shards,
        next=done + 16,
        out=tuple(range(done, done + 16)),
        counts=Counts(total=rows, succeeded=rows // 2 - 64, failed=64),
        tokens=Tokens(prompt=50 * rows, completion=20 * rows),
        codes={f"code-{at}": CodeCount(rows=2, line=at, more=(at + 1,)) for at in range(32)},
        use={"phi": Use(calls=rows // 2, outcomes={"ok": rows // 2}, tokens=70 * rows)},
        started=EPOCH,
        marks=tuple((EPOCH + 5.0 * at, rows // 2 - 2600 + 100 * at) for at in range(26)),
        running=tuple((done + at, 100) for at in range(16)),
    )
    await service.blobs.create(BlobRef("state", f"jobs/{name}/job.json"), dump(job))
    await service.blobs.create(BlobRef("state", f"jobs/{name}/state.json"), dump(state))
    entry = IndexEntry(id=name, door="drop", created=EPOCH + rows)  # the larger, the newer
    await service.blobs.create(BlobRef("state", f"index/default/{entry.name}"), dump(entry))
    return name


async def test_ten_million_rows_ask_for_no_more_than_a_thousand_do() -> None:
    blobs = Counted(lambda: EPOCH)
    async with bench(blobs=blobs) as service:
        told = {}
        for rows, shards in ((10_000, 50), (10_000_000, 40_000)):
            job = await stored(service, rows, shards)
            history = History(service.store)
            for at in range(100):
                await history.add(job, Sample(at=EPOCH + 10.0 * at, succeeded=rows * at // 200))
            blobs.reads = blobs.bytes_read = 0
            replies = [await service.ask("GET", f"/api/jobs/{job}{path}") for path in PATHS]
            assert [reply.code for reply in replies] == [200] * len(PATHS)
            sizes = [len(json.dumps(reply.body)) for reply in replies]
            told[rows] = blobs.reads, blobs.bytes_read, sizes
        small, large = told[10_000], told[10_000_000]
        assert large[0] == small[0], "no more is read"
        # Numbers are some digits longer, and that is all.
        assert large[1] < 1.1 * small[1]
        assert all(more < 1.1 * less for more, less in zip(large[2], small[2], strict=True))
        assert large[2][0] < 8_000


async def test_the_list_reads_no_more_of_a_large_job_than_of_a_small_one() -> None:
    blobs = Counted(lambda: EPOCH)
    async with bench(blobs=blobs) as service:
        seen = []
        for rows, shards in ((10_000, 50), (10_000_000, 40_000)):
            await stored(service, rows, shards)
            blobs.reads = 0
            listed = await service.ask("GET", "/api/jobs", limit="1")
            assert len(listed.body["data"]) == 1
            seen.append((blobs.reads, len(json.dumps(listed.body["data"]))))
        assert seen[0][0] == seen[1][0]
        assert seen[1][1] < 1.1 * seen[0][1]


@pytest.mark.parametrize("bounded", [True, False])
async def test_the_exact_series_of_a_month_is_a_bounded_answer(bounded: bool) -> None:
    """Bounded by when the job began and was done, as its finisher tells, or by its series alone."""
    series = Series()
    times = range(0, 30 * 8640, 7)
    for at in times:
        latency = {302: 5, 357: 4, 402: 1}
        told = Interval(succeeded=270, prompt_tokens=10**5, calls=270, cost=10**12, latency=latency)
        series.add({180_000_000 + at: told})
    # In the middle of intervals, however wide these have become; the last receipt came late.
    started, done = EPOCH + 3.25, EPOCH + 30 * 86400 + 4321.5
    blobs = Counted(lambda: EPOCH)
    async with bench(blobs=blobs) as service:
        job = await stored(service, 10_000_000, 40_000)
        history = History(service.store)
        await history.add(job, Sample(at=EPOCH))
        went = samples_of(
            series,
            priced=True,
            started=started if bounded else None,
            done=done if bounded else None,
        )
        await history.close(job, went)
        reply = await service.ask("GET", f"/api/jobs/{job}/samples")
        data = reply.body["data"]
        assert MOST / 2 < len(data) <= 2 * MOST
        assert data[-1]["succeeded"] == 270 * len(times)
        assert data[-1]["succeeded"] == pytest.approx(10_000_000, rel=0.01)
        assert data[0]["succeeded"] == 0
        if bounded:
            assert (data[0]["at"], data[-1]["at"]) == (started, done)
        assert len(json.dumps(reply.body)) < 300_000
