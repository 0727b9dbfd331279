"""What a collector gets over the wire: whole traces, sums that are so, and nothing of anybody's."""

import ast
import asyncio
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest

from local.collector import Collected, Collector, Span, collector
from local.stack import PROJECT
from schemas.deployments import Task
from schemas.outcomes import Outcome
from tests.doubles.service import DEPLOYMENT, MODEL, Answering, bench
from tests.integration.processes import until
from workers.adapters.telemetry import connect_telemetry
from workers.adapters.telemetry.delivery import MOST_WAITING
from workers.adapters.telemetry.exporting import FLUSH_SECONDS, Exporting
from workers.adapters.telemetry.otlp import EXPORT_SECONDS, exporters
from workers.jobs.outbox import JOBS
from workers.ports import OutMessage
from workers.ports.telemetry import SILENT

ASKED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def receiving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


def exporting() -> Exporting:
    return Exporting.over(*exporters({}), process="one", clock=time.time)


def jsonl(*rows: object) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def orphans(spans: list[Span], *known: str) -> list[Span]:
    """Spans whose parent nobody has told of."""
    ids = {span.id for span in spans} | {"", *known}
    return [span for span in spans if span.parent not in ids]


def named(collected: Collected, name: str) -> list[Span]:
    return [span for span in collected.spans if span.name == name]


async def test_a_job_is_one_trace_from_who_asked_to_its_last_event(receiving: Collector) -> None:
    running = exporting()
    async with bench(telemetry=running.teller) as service:
        await service.drop(jsonl({"prompt": "a"}, {"prompt": "b"}), container="inputs")
        await service.say({"container": "inputs", "name": "in.jsonl"}, **{"Diagnostic-Id": ASKED})
        await service.settle()
        ended = await service.ended()
    await running.close()
    spans = receiving.collected.spans
    assert {span.trace for span in spans} == {ASKED[3:35]}
    assert orphans(spans, ASKED[36:52]) == []
    (job,) = named(receiving.collected, "job")
    assert job.parent == ASKED[36:52]
    assert job.attributes["batch.job.id"] == ended.event["subject"]
    for name in ("plan", "process shards", "process jobs", "send job-status"):
        assert {span.parent for span in named(receiving.collected, name)} == {job.id}
    assert ended.event["traceparent"] == f"00-{job.trace}-{job.id}-01"
    assert receiving.collected.sums("batch.rows", batch__outcome="succeeded") == 2
    assert receiving.collected.sums("batch.jobs", batch__job__state="completed") == 1
    assert receiving.collected.sums("gen_ai.client.inference.duration") == 2
    assert receiving.collected.sums("batch.call.wait") == 2


@pytest.mark.slow
async def test_nobody_imports_what_telemetry_needs_before_it_is_switched_on() -> None:
    code = "import sys, function_app; print([m for m in sys.modules if 'opentelemetry' in m])"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=PROJECT, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert [name for name in ast.literal_eval(said.decode()) if not name.startswith("azure.")] == []


@pytest.mark.usefixtures("receiving")
@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"), ("OTEL_METRIC_EXPORT_INTERVAL", "0")],
)
async def test_a_setting_that_opentelemetry_refuses_stops_no_worker(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, value)
    async with connect_telemetry(os.environ, process="one", clock=time.time) as telemetry:
        assert telemetry is SILENT
    assert len([each for each in caplog.records if "TELEMETRY_OFF" in each.getMessage()]) == 1


async def test_a_sampler_of_the_environment_takes_no_span(
    receiving: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    running = exporting()
    async with bench(telemetry=running.teller) as service:
        await service.run(jsonl({"prompt": "a"}))
    await running.close()
    assert len(named(receiving.collected, "job")) == 1


async def test_without_the_setting_nobody_is_told() -> None:
    async with connect_telemetry({}, process="one", clock=time.time) as telemetry:
        assert telemetry is SILENT


class Failing(Answering):
    """An endpoint that says back what it was asked, and refuses every second call."""

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        answer = await super().ask(task, body)
        said = f"answer-canary: {self.prompts[-1]}"
        if len(self.asked) % 2:
            return replace(answer, body={**(answer.body or {}), "choices": [{"text": said}]})
        return Outcome("bad_request", 400, code="told-code-canary", message=said)


async def test_nothing_that_anybody_said_or_called_is_sent(receiving: Collector) -> None:
    canaries = {
        "prompt": "prompt-canary",
        "answer": "answer-canary",
        "code": "told-code-canary",
        "custom_id": "id-canary",
        "name": "name-canary",
        "metadata": "metadata-canary",
        "property": "property-canary",
        "message": "message-canary",
        "system": "system-canary",
        "header": "header-canary",
        "url": "url-canary",
    }
    deployment = DEPLOYMENT.model_copy(
        update={"url": "http://127.0.0.1:1/url-canary", "headers": {"x": "header-canary"}}
    )
    running = exporting()
    async with bench(telemetry=running.teller, endpoint=Failing()) as service:
        service.dispatcher._deployments = (deployment,)
        rows = [{"custom_id": f"id-canary-{at}", "prompt": f"prompt-canary {at}"} for at in "abcd"]
        await service.drop(jsonl(*rows), "name-canary.jsonl", container="inputs")
        options = {"metadata": {"to": "metadata-canary"}, "system_prompt": "system-canary"}
        request = {"container": "inputs", "name": "name-canary.jsonl", "options": options}
        message = OutMessage(
            orjson.dumps(request), "message-canary", "message-canary", {"of": "property-canary"}
        )
        await service.bus.send(JOBS, [message])
        await service.say(b"no json: prompt-canary")
        await service.say({"container": "inputs", "name": "name-canary-of-none.jsonl"})
        await service.settle()
        ended = await service.ended()
        assert ended.counts["failed"] == 2
    await running.close()
    told = b"\n".join(receiving.collected.raw)
    assert [what for what, canary in canaries.items() if canary.encode() in told] == []
    # It was looked at what had to be told of: calls that failed, in a shard that is looked at.
    calls = named(receiving.collected, f"chat {MODEL}")
    assert [span.attributes["error.type"] for span in calls] == ["bad_request"] * 2
    assert {span.parent for span in calls} == {
        span.id for span in named(receiving.collected, "process shards")
    }


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 503])
async def test_a_collector_that_refuses_costs_nothing_but_what_it_refuses(
    receiving: Collector, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    receiving.collected.status = status
    running = exporting()
    async with bench(telemetry=running.teller) as service:
        ended = await service.run(jsonl({"prompt": "a"}))
        assert ended.counts["succeeded"] == 1
        await running.close()
    # It may still be trying when nobody waits for it any more.
    await until(lambda: running.delivery.dropped >= 4, "the loss", 2 * EXPORT_SECONDS)
    assert receiving.collected.requests > 0
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(" is ")[0] for line in said if "collector" in line] == [
        "[OUT_OF_ORDER] the collector of telemetry"
    ]
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["nobody there", "no answer"])
async def test_a_collector_that_is_away_or_slow_holds_nobody_up(
    trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if trouble == "no answer":
            listening.listen()  # connections are taken, and nothing ever comes back
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        running = exporting()
        async with bench(telemetry=running.teller) as service:
            rows = [{"prompt": str(at)} for at in range(500)]
            ended = await service.run(jsonl(*rows))
            assert ended.counts["succeeded"] == 500
        began = time.monotonic()
        await running.close()
        # What a process waits for at its end, and the machine's own pauses.
        assert time.monotonic() - began < FLUSH_SECONDS + 2


@pytest.mark.slow
async def test_what_does_not_fit_is_dropped_and_counted(receiving: Collector) -> None:
    receiving.collected.status = 503
    running = exporting()
    for _ in range(3 * MOST_WAITING):
        with running.teller.errand("plan", ASKED):
            pass
    assert running.delivery.dropped >= MOST_WAITING
    receiving.collected.status = 200
    looking = asyncio.create_task(running.attend())
    async with asyncio.timeout(20):
        while not receiving.collected.sums("batch.telemetry.dropped_spans"):
            await running.teller.flush()  # it looks once a second how things stand
    looking.cancel()
    await running.close()
    assert receiving.collected.sums("batch.telemetry.dropped_spans") >= MOST_WAITING
