"""The collector of a local run holds sums in memory, and all that came in its folder."""

import asyncio
from pathlib import Path

import aiohttp
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from local.collector import METRICS, SPANS, Collected, Point, collector
from local.summing import summary

TIMES = 50


def resource() -> Resource:
    made = Resource()
    made.attributes.add(key="service.instance.id").value.string_value = "one"
    return made


def traces() -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add(resource=resource()).scope_spans.add()
    scope.spans.add(name="job", start_time_unix_nano=0, end_time_unix_nano=2_000_000_000)
    return bytes(request.SerializeToString())


def metrics(value: int) -> bytes:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add(resource=resource()).scope_metrics.add().metrics.add()
    metric.name = "batch.rows"
    metric.sum.data_points.add(as_int=value)
    return bytes(request.SerializeToString())


async def test_with_a_folder_memory_holds_sums_alone(tmp_path: Path) -> None:
    with collector(tmp_path) as receiving:
        async with aiohttp.ClientSession(receiving.url) as session:
            for number in range(TIMES):
                for path, body in (("traces", traces()), ("metrics", metrics(number))):
                    async with session.post(f"/v1/{path}", data=body) as reply:
                        assert reply.status == 200
        told = receiving.collected
        assert (told.spans, told.raw, len(told.latest)) == ([], [], 1)
        assert told.sums("batch.rows") == TIMES - 1
        lines = list(summary(told))
        assert lines[0] == f"{TIMES} spans, {TIMES} points"
        assert lines[1].split() == ["job", str(TIMES), "2.000", "s", "each"]
    for name in (SPANS, METRICS):
        data = await asyncio.to_thread((tmp_path / name).read_bytes)
        assert data.count(b"\n") == TIMES


def test_two_attributes_whose_names_end_alike_are_told_apart() -> None:
    collected = Collected()
    named = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "deployment": "east",
    }
    collected.add_point(Point("batch.calls", 3.0, None, named, "one"))
    (line,) = (line for line in summary(collected) if "batch.calls" in line)
    assert line.split("   ")[-1] == "operation.name chat, provider.name openai, deployment east"
