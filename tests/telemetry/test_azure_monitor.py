"""What Application Insights gets, where it is chosen: the pinned exporter over the wire."""

import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.doubles.service import bench
from workers.adapters.telemetry import connect_telemetry
from workers.ports.telemetry import SILENT

KEY = "00000000-0000-0000-0000-000000000001"


@contextmanager
def ingestion() -> Iterator[tuple[str, list[Any]]]:
    """The ingestion endpoint of Application Insights: where it is, and what it was sent."""
    taken: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            items = json.loads(body)
            taken.extend(items)
            told = {"itemsReceived": len(items), "itemsAccepted": len(items), "errors": []}
            data = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", taken
    finally:
        server.shutdown()
        server.server_close()


async def test_application_insights_gets_the_trace_and_the_metrics() -> None:
    with ingestion() as (url, taken):
        environment = {
            "TELEMETRY": "azure-monitor",
            "APPLICATIONINSIGHTS_CONNECTION_STRING": f"InstrumentationKey={KEY};"
            f"IngestionEndpoint={url};LiveEndpoint={url}",
        }
        async with (
            connect_telemetry(environment, process="one", clock=time.time) as told,
            bench(telemetry=told) as service,
        ):
            await service.run(b'{"prompt": "canary-prompt"}\n', "canary-name.jsonl")
    bodies = [item["data"]["baseData"] for item in taken]
    spans = {body["name"]: item for item, body in zip(taken, bodies, strict=True) if "id" in body}
    metrics = {metric["name"] for body in bodies for metric in body.get("metrics", ())}
    assert {"job", "process shards", "plan", "send job-status"} <= spans.keys()
    assert {item["tags"]["ai.operation.id"] for item in spans.values()} == {
        spans["job"]["tags"]["ai.operation.id"]
    }
    assert {"batch.rows", "batch.jobs", "gen_ai.client.inference.duration"} <= metrics
    assert "canary" not in json.dumps(taken)


@pytest.mark.parametrize("connection", ["", "no connection string"])
async def test_what_cannot_be_told_to_is_said_once_and_stops_no_row(
    connection: str, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {
        "TELEMETRY": "azure-monitor",
        "APPLICATIONINSIGHTS_CONNECTION_STRING": connection,
    }
    async with connect_telemetry(environment, process="one", clock=time.time) as told:
        assert told is SILENT
    (line,) = [each.getMessage() for each in caplog.records if "TELEMETRY_OFF" in each.message]
    assert line.startswith("[TELEMETRY_OFF]")
