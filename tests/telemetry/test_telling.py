"""What is told of what happens, against exporters in memory and the clock of the doubles."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from schemas.deployments import Task
from schemas.jobs import Asked, Job
from schemas.messages import Announcement, finish
from schemas.money import Price
from schemas.outcomes import Outcome
from tests.doubles.service import DEPLOYMENT, EPOCH, Answering, Bench, bench
from workers.adapters.telemetry import names, readings
from workers.adapters.telemetry.delivery import Delivery
from workers.adapters.telemetry.exporting import Exporting
from workers.jobs.outbox import JOBS
from workers.jobs.store import dump
from workers.ports import TRACES, BlobInfo, OutMessage, Received
from workers.ports.errors import Draining
from workers.ports.telemetry import ProcessReading

ASKED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ROWS = b"".join(b'{"prompt": "%d"}\n' % at for at in range(60))


class Watching:
    """A teller whose spans and points stay in memory."""

    def __init__(self) -> None:
        self.now = EPOCH
        self.exported = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.delivery = Delivery(spans=True)
        self.exporting = Exporting(
            SimpleSpanProcessor(self.exported),
            self.reader,
            self.delivery,
            process="one",
            clock=lambda: self.now,
        )

    @property
    def telemetry(self) -> Any:
        return self.exporting.teller

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        told = self.exported.get_finished_spans()
        return [span for span in told if name in (None, span.name)]

    def sums(self, name: str) -> dict[str, float]:
        """The points of a metric, by the values of their attributes."""
        found: dict[str, float] = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for metric in (each for scope in resource.scope_metrics for each in scope.metrics):
                for point in metric.data.data_points if metric.name == name else ():
                    key = " ".join(str(value) for value in (point.attributes or {}).values())
                    found[key] = float(
                        getattr(point, "count" if hasattr(point, "count") else "value")
                    )
        return found


def of(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(name)


class Refusing(Answering):
    """An endpoint that asks each first call for a moment."""

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        first = body not in [known for _, known in self.asked]
        answer = await super().ask(task, body)
        return Outcome("throttled", 429, retry_after=0.01, limit="requests") if first else answer


async def test_sums_agree_with_the_manifest() -> None:
    watching = Watching()
    async with bench(telemetry=watching.telemetry) as service:
        ended = await service.run(ROWS + b"no json\n")
    assert watching.sums(names.ROWS_DONE) == {
        "succeeded": ended.counts["succeeded"],
        "invalid": ended.counts["invalid"],
    }
    assert watching.sums(names.JOBS_ENDED) == {"completed drop": 1}
    calls = sum(each["calls"] for each in ended.manifest["use"].values())
    assert sum(watching.sums(names.CALLS).values()) == calls == 60
    assert sum(watching.sums(names.INFERENCE_DURATION).values()) == calls
    assert sum(watching.sums(names.CALL_WAIT).values()) == calls
    attempts = watching.sums(names.ATTEMPTS)
    assert attempts == {"done": len(watching.spans("process shards"))}


async def test_429s_are_told_by_the_limit_that_was_met_and_have_spans() -> None:
    watching = Watching()
    async with bench(telemetry=watching.telemetry, endpoint=Refusing()) as service:
        await service.run(b'{"prompt": "a"}\n{"prompt": "b"}\n')
    assert watching.sums(names.CALLS) == {"phi throttled requests": 2, "phi ok": 2}
    assert watching.sums(names.RETRIES) == {"phi": 2}
    calls = watching.spans("chat phi-3-mini")
    assert [of(span, names.ERROR) for span in calls] == ["throttled"] * 2
    assert {of(span, names.STATUS) for span in calls} == {429}


async def test_messages_and_events_carry_the_jobs_own_span_in_both_properties() -> None:
    watching = Watching()
    async with bench(telemetry=watching.telemetry) as service:
        sent: list[OutMessage] = []
        send = service.bus.send

        async def noted(entity: str, messages: Any) -> None:
            sent.extend(messages)
            await send(entity, messages)

        service.bus.send = noted  # type: ignore[method-assign]
        await service.run(ROWS)
    (span,) = watching.spans("job")
    place = f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"
    assert len(sent) > 5
    for message in sent:
        assert [message.properties.get(name) for name in TRACES] == [place, place]
    assert span.parent is None


async def test_a_call_over_http_goes_on_as_the_jobs_trace() -> None:
    watching = Watching()
    async with bench(telemetry=watching.telemetry) as service:
        await service.drop(ROWS, "a.jsonl", container="inputs")
        request = {"container": "inputs", "name": "a.jsonl"}
        reply = await service.ask("POST", "/api/jobs", request, {"traceparent": ASKED})
        assert reply.code == 202
        await service.settle()
    assert {f"{span.context.trace_id:032x}" for span in watching.spans()} == {ASKED[3:35]}
    (job,) = watching.spans("job")
    assert job.parent is not None
    assert f"{job.parent.span_id:016x}" == ASKED[36:52]
    (sent,) = watching.spans("send jobs")
    assert sent.parent is not None
    assert sent.parent.span_id == job.context.span_id


async def test_a_job_that_an_older_release_pinned_goes_on_in_the_trace_of_who_asked() -> None:
    async with bench() as service:
        await service.drop(ROWS)
        await service.announce()
        job = await job_of(service)
    told = job.model_copy(update={"asked": Asked(traceparent=ASKED)}).model_dump(mode="json")
    assert "trace" not in told
    assert Job.model_validate(told).trace == ASKED


async def test_a_message_that_makes_no_job_is_told_of_where_it_came_from() -> None:
    watching = Watching()
    async with bench(telemetry=watching.telemetry) as service:
        await service.say(b"no json", traceparent=ASKED)
        await service.say({"container": "inputs", "name": "none.jsonl"})
        await service.settle()
    first, second = watching.spans("process jobs")
    assert first.parent is not None
    assert f"{first.parent.span_id:016x}" == ASKED[36:52]
    assert second.parent is None
    assert {of(span, names.JOB) for span in (first, second)} == {None}
    assert watching.spans("job") == []


async def test_a_delay_in_the_queue_and_a_repeat_are_told() -> None:
    watching = Watching()
    async with bench(telemetry=watching.telemetry) as service:
        body = b'{"container": "inputs", "name": "none.jsonl"}'
        await service.inbox.jobs(Received(body, "m", enqueued=EPOCH - 20.0))
        await service.inbox.jobs(Received(body, "m", deliveries=3))
        await service.inbox.dead_shards(Received(b"no json"))
    assert watching.sums(names.QUEUE_DELAY) == {"jobs": 1}
    assert watching.sums(names.REPEATS) == {"jobs": 1}
    assert watching.sums(names.DEAD_LETTERS) == {"shards": 1}
    span = watching.spans("process jobs")[1]
    assert of(span, names.DELIVERIES) == 3
    # What somebody has called his message may be anything.
    assert of(span, names.MESSAGE_ID) is None


def leave(watching: Watching, job: Job, error: BaseException) -> None:
    """Make an attempt at a shard that an error ends seven seconds later."""
    received = Received(b"")
    with watching.telemetry.attempt(job, 3, "0" * 31 + "1", shards=9, received=received):
        watching.now += 7.0
        raise error


@pytest.mark.parametrize(
    ("error", "end"),
    [(Draining(), "drained"), (asyncio.CancelledError(), "drained"), (KeyError("x"), "failed")],
)
async def test_an_attempt_that_is_left_says_how(error: BaseException, end: str) -> None:
    watching = Watching()
    async with bench() as service:
        await service.drop(ROWS)
        await service.announce()
        job = await job_of(service)
        with pytest.raises(type(error)):
            leave(watching, job, error)
    (span,) = watching.spans("process shards")
    assert (of(span, names.END), of(span, names.SHARD)) == (end, 3)
    assert of(span, names.ERROR) == ("KeyError" if end == "failed" else None)
    assert span.start_time is not None
    assert span.end_time is not None
    assert (span.end_time - span.start_time) / 1e9 == 7.0
    assert watching.sums(names.ATTEMPTS) == {end: 1}


@pytest.mark.parametrize(("lasted", "told"), [(0.0, 0.0), (5.0, 4.25)])
async def test_an_attempt_that_died_in_the_second_of_its_job_does_not_begin_before_it(
    lasted: float, told: float
) -> None:
    watching = Watching()
    async with bench() as service:
        await service.drop(ROWS)
        await service.announce()
        job = (await job_of(service)).model_copy(update={"created": EPOCH + 0.75})
        ref = service.store.ref(job.id, "journal", "0", f"000000-{'2' * 32}")
        journal = BlobInfo(ref, "1", 9, last_modified=EPOCH + lasted, created=EPOCH)
        with watching.telemetry.attempt(
            job, 0, "0" * 31 + "1", shards=1, received=Received(b"")
        ) as trail:
            trail.crashed = journal
    (span,) = [
        each for each in watching.spans("process shards") if of(each, names.END) == "crashed"
    ]
    assert span.start_time is not None
    assert span.end_time is not None
    assert round(span.start_time / 1e9, 6) == job.created
    assert round((span.end_time - span.start_time) / 1e9, 6) == told


async def test_of_a_huge_job_only_attempts_that_end_badly_are_told_beside_a_thousand() -> None:
    watching, shards = Watching(), 1_000_000
    async with bench() as service:
        await service.drop(ROWS)
        await service.announce()
        job = await job_of(service)
        for shard in range(200):
            with watching.telemetry.attempt(
                job, shard, f"{shard + 1:032x}", shards=shards, received=Received(b"")
            ) as trail:
                trail.end = "lease" if shard == 7 else "done"
    told = [of(span, names.SHARD) for span in watching.spans("process shards")]
    assert 7 in told
    assert len(told) < 5
    assert watching.sums(names.ATTEMPTS) == {"done": 199, "lease": 1}


async def test_a_slow_reader_of_gauges_gets_what_stood_when_it_was_looked_at() -> None:
    watching = Watching()
    async with bench(telemetry=watching.telemetry) as service:
        await service.run(ROWS)
        read = watching.telemetry.read
        assert read is not None
        standing = read()
        assert (standing.shards, standing.ledger_conflicts) == (0, 0)
        (phi,) = standing.deployments
        assert (phi.name, phi.in_flight, phi.waiting, phi.breaker) == ("phi", 0, 0, "closed")
        assert (phi.input_tokens, phi.output_tokens) == (7 * 60, 5 * 60)


async def test_what_cannot_be_read_is_read_again_a_second_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watching, read = Watching(), asyncio.Event()
    monkeypatch.setattr(readings, "LOOK_SECONDS", 0.001)

    def broken() -> ProcessReading:
        if "READING_BUG" not in caplog.text:
            raise RuntimeError
        read.set()
        return ProcessReading((), 3, 0)

    watching.telemetry.watch(broken)
    looking = asyncio.create_task(watching.exporting.attend())
    async with asyncio.timeout(10):
        await read.wait()
    looking.cancel()


async def job_of(service: Bench) -> Job:
    jobs = [job async for job, _ in service.store.open_jobs()]
    found = await service.store.job(jobs[0])
    assert found is not None
    return found


async def test_a_jobs_cost_is_told_once_it_has_ended() -> None:
    watching, price = Watching(), Price(input="1", output="2", currency="EUR")
    priced = DEPLOYMENT.model_copy(update={"price": price})
    async with bench(telemetry=watching.telemetry, deployments=(priced,)) as service:
        ended = await service.run(ROWS)
    assert watching.sums(names.COST) == {"EUR": float(ended.manifest["cost"]["counted"])}


async def test_a_closed_job_that_is_found_has_its_span_again_and_counts_once() -> None:
    watching = Watching()
    async with bench(telemetry=watching.telemetry) as service:
        ended = await service.run(ROWS)
        job = await service.store.job(ended.event["subject"])
        assert job is not None
        marker = Announcement(
            job=job.id, door=job.door, container="prompts", name="in.jsonl", etag="0x1", size=1
        )
        await service.store.open(marker)  # whoever closed the job died over cleaning up
        await service.deliver(JOBS, dump(finish(job)))
        await service.settle()
        assert not await service.store.is_open(job.id)
    one, again = watching.spans("job")
    assert (one.context, one.attributes, one.end_time) == (
        again.context,
        again.attributes,
        again.end_time,
    )
    assert watching.sums(names.JOBS_ENDED) == {"completed drop": 1}
