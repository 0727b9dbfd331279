"""Receives traces and metrics as a collector of OpenTelemetry would (OTLP over HTTP).

What comes is kept in memory, and in a folder where one is given, as JSON: a span or a data point
a line.
"""

import gzip
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import orjson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

SPANS: Final = "spans.jsonl"
METRICS: Final = "metrics.jsonl"
Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it came. Ids are hexadecimal, times seconds since the epoch."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    began: float
    ended: float
    failed: bool
    attributes: Attributes
    process: str


@dataclass(frozen=True, slots=True)
class Point:
    """A data point. `value` is a sum, a gauge or a histogram's sum, `count` that of a histogram."""

    name: str
    value: float
    count: int | None
    attributes: Attributes
    process: str
    examples: tuple[str, ...] = ()


@dataclass
class Collected:
    """All that came. `raw` are the bodies as they came, without compression.

    `status` is what the next requests are answered with.
    """

    spans: list[Span] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    status: int = 200
    requests: int = 0

    def sums(self, name: str, **attributes: str) -> float:
        """The latest value of a metric over all processes, of points that have these attributes."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        latest: dict[tuple[str, str], float] = {}
        for point in self.points:
            if point.name == name and wanted.items() <= point.attributes.items():
                series = orjson.dumps(point.attributes, option=orjson.OPT_SORT_KEYS).decode()
                latest[point.process, series] = float(
                    point.value if point.count is None else point.count
                )
        return sum(latest.values())


@dataclass(frozen=True, slots=True)
class Collector:
    """A receiver that runs: where it is, and what it has."""

    url: str
    collected: Collected


@contextmanager
def collector(folder: Path | None = None, port: int = 0) -> Iterator[Collector]:
    """Receive while the block runs, in threads."""
    collected = Collected()
    keep = _keeper(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collected.requests += 1
            if collected.status == 200:
                _take(collected, self.path, body, keep)
            self.send_response(collected.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield Collector(f"http://127.0.0.1:{server.server_port}", collected)
    finally:
        server.shutdown()
        server.server_close()


def _keeper(folder: Path | None) -> Callable[[str, Any], None]:
    if folder is None:
        return lambda _name, _what: None
    folder.mkdir(parents=True, exist_ok=True)
    lock = threading.Lock()

    def keep(name: str, what: Any) -> None:
        with lock, (folder / name).open("ab") as file:
            file.write(orjson.dumps(what, option=orjson.OPT_APPEND_NEWLINE))

    return keep


def _take(collected: Collected, path: str, body: bytes, keep: Callable[[str, Any], None]) -> None:
    collected.raw.append(body)
    if path.endswith("/traces"):
        for span in _spans(ExportTraceServiceRequest.FromString(body)):
            collected.spans.append(span)
            keep(SPANS, span)
    else:
        for point in _points(ExportMetricsServiceRequest.FromString(body)):
            collected.points.append(point)
            keep(METRICS, point)


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        process = str(_plain(resource.resource.attributes)["service.instance.id"])
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    name=span.name,
                    kind=span.kind,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    began=span.start_time_unix_nano / 1e9,
                    ended=span.end_time_unix_nano / 1e9,
                    failed=span.status.code == 2,
                    attributes=_plain(span.attributes),
                    process=process,
                )


def _points(request: ExportMetricsServiceRequest) -> Iterator[Point]:
    for resource in request.resource_metrics:
        process = str(_plain(resource.resource.attributes)["service.instance.id"])
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                for point in getattr(metric, kind).data_points:
                    several = kind == "histogram"
                    value = point.sum if several else (point.as_double or point.as_int)
                    yield Point(
                        name=metric.name,
                        value=value,
                        count=point.count if several else None,
                        attributes=_plain(point.attributes),
                        process=process,
                        examples=tuple(each.span_id.hex() for each in point.exemplars),
                    )


def _plain(attributes: Any) -> dict[str, Any]:
    pairs: list[KeyValue] = list(attributes)
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def main() -> int:
    """Receive until the process is ended; the address is printed."""
    with collector() as running:
        print(running.url, flush=True)
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
