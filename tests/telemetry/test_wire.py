"""What a collector gets over the wire: whole traces, sums that are so, and nothing of anybody's."""

import ast
import asyncio
import sys
import time
from collections.abc import Iterator

import orjson
import pytest

from local.collector import Collected, Collector, Span, collector
from local.stack import PROJECT
from tests.doubles.service import bench
from workers.adapters.telemetry import connect_telemetry
from workers.adapters.telemetry.otlp import Exporting
from workers.ports.telemetry import SILENT

ASKED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def receiving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


def exporting() -> Exporting:
    return Exporting.over_otlp({}, process="one", clock=time.time)


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


async def test_nobody_imports_what_telemetry_needs_before_it_is_switched_on() -> None:
    code = "import sys, function_app; print([m for m in sys.modules if 'opentelemetry' in m])"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=PROJECT, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert [name for name in ast.literal_eval(said.decode()) if not name.startswith("azure.")] == []


async def test_without_the_setting_nobody_is_told() -> None:
    async with connect_telemetry({}, process="one", clock=time.time) as telemetry:
        assert telemetry is SILENT
