"""Receives traces and metrics as a collector of OpenTelemetry would (OTLP over HTTP).

What comes is summed up in memory. All of it is kept there too, or in a folder where one is given,
as JSON: a span or a data point a line.
"""

import gzip
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
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


Keep = Callable[[str, Sequence[Span | Point], bytes], None]
"""Is told of the file's name, of what came, and of the body that it came in."""


@dataclass
class Collected:
    """What came. `raw` are the bodies as they came, without compression.

    `took` are the number and the seconds of spans by their name, `latest` the last point of each
    process, metric and attributes. `spans` and `raw` are empty where a folder has all of it.
    `status` is what the next requests are answered with.
    """

    spans: list[Span] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    took: dict[str, tuple[int, float]] = field(default_factory=dict)
    latest: dict[tuple[str, str, str], Point] = field(default_factory=dict)
    points: int = 0
    status: int = 200
    requests: int = 0

    def add_span(self, span: Span) -> None:
        """Sum up one more span."""
        number, seconds = self.took.get(span.name, (0, 0.0))
        self.took[span.name] = number + 1, seconds + span.ended - span.began

    def add_point(self, point: Point) -> None:
        """Remember a point, in place of the one that its process told before."""
        series = orjson.dumps(point.attributes, option=orjson.OPT_SORT_KEYS).decode()
        self.latest[point.process, point.name, series] = point
        self.points += 1

    def told(self, name: str) -> list[Point]:
        """The latest points of a metric: one of each process and of the same attributes."""
        return [point for point in self.latest.values() if point.name == name]

    def sums(self, name: str, **attributes: str) -> float:
        """The latest value of a metric over all processes, of points that have these attributes."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        return sum(
            float(point.value if point.count is None else point.count)
            for point in self.told(name)
            if wanted.items() <= point.attributes.items()
        )


@dataclass(frozen=True, slots=True)
class Collector:
    """A receiver that runs: where it is, and what it has."""

    url: str
    collected: Collected


@contextmanager
def collector(folder: Path | None = None, port: int = 0) -> Iterator[Collector]:
    """Receive while the block runs, in threads."""
    collected = Collected()
    keep = _keeper(folder, collected)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collected.requests += 1
            if collected.status == 200:
                with lock:
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


def _keeper(folder: Path | None, collected: Collected) -> Keep:
    """Keeps a body and what is in it: in the folder, or in memory where there is none."""

    def remember(_name: str, whats: Sequence[Span | Point], body: bytes) -> None:
        collected.raw.append(body)
        collected.spans += [each for each in whats if isinstance(each, Span)]

    if folder is None:
        return remember
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, whats: Sequence[Span | Point], _body: bytes) -> None:
        with (folder / name).open("ab") as file:
            for what in whats:
                file.write(orjson.dumps(what, option=orjson.OPT_APPEND_NEWLINE))

    return write


def _take(collected: Collected, path: str, body: bytes, keep: Keep) -> None:
    if path.endswith("/traces"):
        spans = list(_spans(ExportTraceServiceRequest.FromString(body)))
        for span in spans:
            collected.add_span(span)
        keep(SPANS, spans, body)
    else:
        points = list(_points(ExportMetricsServiceRequest.FromString(body)))
        for point in points:
            collected.add_point(point)
        keep(METRICS, points, body)


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
