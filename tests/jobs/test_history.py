"""What is remembered of how a job went: samples, bounded however long it takes, and errors."""

import json
from datetime import datetime
from itertools import pairwise
from math import inf

import pytest

from schemas.history import MOST_BYTES, Sample
from schemas.jobs import JobState
from schemas.money import Price
from schemas.outcomes import Outcome
from schemas.results import CodeCount, Counts, DeploymentUse, Receipt, Tokens
from schemas.sketches import sketch_of
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.service import DEPLOYMENT, EPOCH, Answering, Bench, bench
from workers.jobs import lifecycle
from workers.jobs.advice import advised
from workers.jobs.history import History
from workers.jobs.pace import SAMPLE_SECONDS, sample_due
from workers.jobs.store import JobStore, dump
from workers.ports import BlobRef
from workers.ports.errors import Unavailable

MONTH = 30 * 86400.0
PRICED = DEPLOYMENT.model_copy(update={"price": Price(input="0.13", output="0.52", currency="USD")})
RUNNING = JobState(
    revision=1,
    state="in_progress",
    shards=9,
    window=2,
    out=(0, 1),
    next=2,
    counts=Counts(total=50),
    started=EPOCH,
    sampled=EPOCH,
    marks=((EPOCH, 0),),
)


def receipt(shard: int = 0) -> Receipt:
    use = DeploymentUse(
        calls=6, outcomes={"ok": 5, "throttled": 1}, tokens=60, latency=sketch_of([0.5] * 5)
    )
    return Receipt(
        shard=shard,
        attempt="a",
        counts=Counts(succeeded=5),
        tokens=Tokens(prompt=35, completion=25),
        use={"phi": use},
    )


def test_a_month_of_samples_takes_less_than_a_megabyte() -> None:
    """Each line as long as it can be, and a change of the state whenever one is due."""
    longest = Sample(
        at=EPOCH + MONTH + 0.123,
        succeeded=10_000_000,
        errors=10_000_000,
        running=10_000_000,
        prompt_tokens=10**12,
        completion_tokens=10**12,
        calls=10**9,
        refusals=10**9,
        waiting="w" * 64,
        latency=(86400.123, 86400.123, 86400.123),
    )
    lines, state, now = 0, RUNNING, EPOCH
    while now < EPOCH + MONTH:
        now += 0.5
        if not sample_due(state, now):
            step = max(0.0, (now - EPOCH) / 200.0 - (now - (state.sampled or 0.0)) - 1.0)
            now += step
            continue
        lines, state = lines + 1, state.model_copy(update={"sampled": now})
    assert 1500 < lines < 1800
    assert (lines + 1) * (len(dump(longest)) + 1) < MOST_BYTES


def test_a_sample_is_taken_by_the_first_change_when_one_is_due() -> None:
    early = lifecycle.advance(RUNNING, receipt(), repeated=False, now=EPOCH + 9.0)
    assert early.state is not None
    assert (early.sample, early.state.sampled) == (None, EPOCH)
    late = lifecycle.advance(RUNNING, receipt(), repeated=False, now=EPOCH + SAMPLE_SECONDS)
    assert late.state is not None
    assert late.state.sampled == EPOCH + SAMPLE_SECONDS
    assert late.sample == Sample(
        at=EPOCH + SAMPLE_SECONDS,
        succeeded=5,
        prompt_tokens=35,
        completion_tokens=25,
        calls=6,
        refusals=1,
        latency=late.sample.latency if late.sample else (),
    )
    assert late.sample.latency == pytest.approx([0.5] * 3, rel=0.01)
    told = lifecycle.report(late.state, {1: lifecycle.Progress(3)}, EPOCH + 3 * SAMPLE_SECONDS)
    assert told.sample is not None
    assert (told.sample.succeeded, told.sample.running) == (5, 3)


def test_what_an_earlier_release_has_changed_notes_the_time_and_takes_no_sample() -> None:
    dropped = RUNNING.model_copy(update={"sampled": None})
    change = lifecycle.advance(dropped, receipt(), repeated=False, now=EPOCH + 60.0)
    assert change.state is not None
    assert (change.sample, change.state.sampled) == (None, EPOCH + 60.0)


def test_the_state_sums_use_without_what_takes_room() -> None:
    first = lifecycle.advance(RUNNING, receipt(), repeated=False, now=EPOCH + 1.0).state
    assert first is not None
    second = lifecycle.advance(first, receipt(1), repeated=False, now=EPOCH + 2.0).state
    assert second is not None
    assert second.use["phi"].outcomes == {"ok": 10, "throttled": 2}
    assert b"latency" not in dump(second)


class Slow(Answering):
    """Each call takes a while of the service's clock."""

    made: Bench

    async def ask(self, task, body):  # type: ignore[no-untyped-def]
        self.made.elapsed += 4.0
        return await super().ask(task, body)


async def samples(made: Bench, job: str, after: int = 0) -> tuple[list[Sample], int]:
    reply = await made.ask("GET", f"/api/jobs/{job}/samples", after=str(after))
    assert reply.code == 200, reply.body
    return [Sample.model_validate(each) for each in reply.body["data"]], reply.body["after"]


async def test_a_job_leaves_samples_that_end_with_its_end() -> None:
    endpoint = Slow()
    async with bench(endpoint=endpoint) as made:
        endpoint.made = made
        ended = await made.run(b'{"prompt": "p"}\n' * 600)
        job = ended.manifest["job"]
        live = await History(made.store).read(job)
        found, end = list(live.data), live.end
        assert len(found) >= 3
        assert [each.at for each in found] == sorted({each.at for each in found})
        last = found[-1]
        assert (last.succeeded, last.errors, last.running) == (600, 0, 0)
        assert last.calls == ended.manifest["use"]["phi"]["calls"] == 600
        assert (last.prompt_tokens, last.completion_tokens) == (4200, 3000)
        assert any(each.latency for each in found)
        assert await samples(made, job, end) == ([], end)
        first = len(dump(found[0])) + 1
        assert await samples(made, job, first) == (found[1:], end)
        # A place in mid-line, which nobody was told, shows whole lines only.
        assert (await samples(made, job, first + 3))[0] == found[2:]


async def test_the_samples_of_a_job_that_has_ended_are_exact() -> None:
    endpoint = Slow()
    async with bench(endpoint=endpoint, deployments=(PRICED,)) as made:
        endpoint.made = made
        ended = await made.run(b'{"prompt": "p"}\n' * 600)
        job = ended.manifest["job"]
        exact, end = await samples(made, job)
        assert await samples(made, job, end) == ([], end), "there is nothing behind it"
        last, manifest = exact[-1], ended.manifest
        assert (last.succeeded, last.errors, last.running) == (600, 0, 0)
        assert (last.prompt_tokens, last.completion_tokens) == (4200, 3000)
        assert last.calls == manifest["use"]["phi"]["calls"]
        assert last.cost == manifest["cost"]["counted"]
        steps = [to.succeeded - before.succeeded for before, to in pairwise(exact)]
        assert len(steps) > 10
        assert (min(steps), sum(steps)) == (0, 600), "what is idle for long is one step"
        assert all(each.at % 10 == 0 for each in exact[1:-1])
        begun, through = (
            datetime.fromisoformat(manifest[name]).timestamp() for name in ("started", "finished")
        )
        assert exact[0].at == begun
        assert exact[-1].at == pytest.approx(through, abs=1.0)
        rates = [
            (to.succeeded - before.succeeded) / (to.at - before.at)
            for before, to in pairwise(exact)
        ]
        assert max(rates) >= 600 / (through - begun)
        report = BlobRef("results", f"{ended.folder.partition('/')[2]}/report.html")
        assert b"Rows a second: highest" in (await made.blobs.read(report)).data


async def test_the_series_of_a_job_that_has_ended_needs_no_sample() -> None:
    async with bench() as made:
        job = (await made.run(b'{"prompt": "p"}\n' * 3)).manifest["job"]
        exact, _ = await samples(made, job)
        await made.blobs.delete(made.store.ref(job, "samples"))
        assert await samples(made, job) == (exact, 0)
        assert exact


async def test_samples_of_what_is_no_job_are_not_found() -> None:
    async with bench() as made:
        for what in ("samples", "errors"):
            reply = await made.ask("GET", f"/api/jobs/nobody/{what}")
            assert (reply.code, reply.body["error"]["code"]) == (404, "unknown_job")
        refused = await made.ask("GET", "/api/jobs/nobody/samples", after="-1")
        assert (refused.code, refused.body["error"]["param"]) == (400, "after")


class Away(MemoryBlobs):
    async def append(self, ref: BlobRef, data: bytes) -> None:
        if ref.name.endswith("/samples"):
            raise Unavailable("storage is away")
        await super().append(ref, data)


async def test_samples_that_storage_does_not_take_harm_nothing() -> None:
    blobs = Away(lambda: EPOCH)
    store = JobStore(blobs, state_container="state", results_container="results")
    await History(store).add("j", Sample(at=1.0))
    assert await History(store).read("j") == ((), 0)


async def test_a_line_that_stands_twice_is_told_once_and_half_a_line_never() -> None:
    blobs = MemoryBlobs(lambda: EPOCH)
    store = JobStore(blobs, state_container="state", results_container="results")
    history = History(store)
    for at in (1.0, 1.0, 2.0):
        await history.add("j", Sample(at=at))
    await blobs.append(store.ref("j", "samples"), b'{"at": 3')
    found = await history.read("j")
    assert [each.at for each in found.data] == [1.0, 2.0]
    assert found.end == 3 * len(dump(Sample(at=1.0)) + b"\n")


def test_each_code_has_its_advice_the_most_frequent_first() -> None:
    told = advised(
        {
            "content_filter": CodeCount(rows=1, line=3),
            "x": CodeCount(rows=9, line=2),
            "other": CodeCount(rows=1),
            "job_cancelled": CodeCount(rows=1, line=7),
        }
    )
    assert [each.code for each in told] == ["x", "content_filter", "job_cancelled", "other"]
    assert "errors.jsonl" in told[3].advice
    assert "content filter" in told[1].advice
    assert "cancelled" in told[2].advice
    assert told[0].advice
    assert inf not in [each.rows for each in told]
    [whole] = advised({"budget_exceeded": CodeCount(rows=9, line=1)}, failed_for="budget_exceeded")
    [some] = advised({"budget_exceeded": CodeCount(rows=9, line=1)})
    assert ("its reason" in whole.advice, "the job's cap" in some.advice) == (True, True)


class Filtered(Answering):
    async def ask(self, task, body):  # type: ignore[no-untyped-def]
        return Outcome("content_filter", 400, code="content_filter")


async def test_errors_by_code_are_told_with_their_first_lines() -> None:
    async with bench(endpoint=Filtered()) as made:
        ended = await made.run(b'{"prompt": "p"}\n{"nothing": 1}\n')
        reply = await made.ask("GET", f"/api/jobs/{ended.manifest['job']}/errors")
        told = {each["code"]: (each["rows"], each["line"]) for each in reply.body["data"]}
        assert told["content_filter"] == (1, 1)
        assert sum(rows for rows, _ in told.values()) == 2
        assert json.dumps(reply.body).count("advice") == 2
