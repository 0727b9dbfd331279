"""What does telemetry cost a row?

    python -m benchmarks.telemetry [--rows 4000] [--rounds 7]

One worker's parts run in this process, over a real Azurite and a simulated endpoint that answers
after 50 ms, each a process of its own: off, with metrics alone, and with all, sent to a collector
in another process. The three take turns, and the CPU time of this process for a row is compared,
threads that export and the last export included. Ends with status 1 if all takes more than 5% more
than off, by the median of the rounds.
"""

import argparse
import asyncio
import gc
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from random import Random
from typing import Final

import orjson

from benchmarks.loop_lag import Messages, work
from benchmarks.throughput import IN_FLIGHT, MODEL, body, child, endpoint
from local.azurite import azurite
from schemas.deployments import Deployment
from workers.adapters.blobs import connect_blobs
from workers.adapters.endpoints import connect
from workers.adapters.telemetry import ENDPOINT, connect_telemetry
from workers.ports import BlobRef
from workers.ports.telemetry import SILENT, Telemetry
from workers.service import compose
from workers.service.memory import GC_THRESHOLD
from workers.settings import Settings

MOST: Final = 1.05
WAYS: Final = ("off", "metrics", "all")


@asynccontextmanager
async def telemetry(way: str, url: str) -> AsyncIterator[Telemetry]:
    """Telemetry as a process has it that is told so by its settings."""
    if way == "off":
        yield SILENT
        return
    environment = {ENDPOINT: url}
    if way == "metrics":
        environment["OTEL_TRACES_EXPORTER"] = "none"
    async with connect_telemetry(environment, process=way, clock=time.time) as told:
        yield told


async def row_seconds(
    way: str,
    collector: str,
    url: str,
    storage: str,
    rows: int,
    *,
    watching: AbstractContextManager[object] | None = None,
) -> float:
    """CPU seconds of one row of a job, from its announcement to its end, which may be watched."""
    deployment = Deployment(
        name="phi",
        kind="openai",
        url=f"{url}/v1",
        model=MODEL,
        auth="none",
        max_concurrency=IN_FLIGHT,
    )
    settings = Settings(deployments=(deployment,))
    data = b"".join(orjson.dumps(body(row)) + b"\n" for row in range(rows))
    file, messages = BlobRef("prompts", "rows.jsonl"), Messages()
    async with (
        telemetry(way, collector) as told,
        connect_blobs(storage) as blobs,
        connect(settings.deployments) as endpoints,
    ):
        names = ("prompts", settings.state_container, settings.results_container)
        await blobs.ensure_containers(names)
        service = compose(
            settings,
            blobs,
            messages,
            endpoints,
            transfers=blobs,
            ledger=None,
            clock=time.time,
            rng=Random(1),
            telemetry=told,
        )
        await blobs.delete(file)
        etag = await blobs.create(file, data)
        gc.collect()
        began = time.process_time()
        with watching or nullcontext():
            await service.doors.dropped(*file, etag=etag, repeated=False)
            await work(service, messages)
        await told.flush()
        return (time.process_time() - began) / rows


async def rounds(rows: int, count: int) -> dict[str, list[float]]:
    """The seconds of a row of each way and round; a first round imports and is left out."""
    spent: dict[str, list[float]] = {way: [] for way in WAYS}
    with child("local.collector") as collector, endpoint() as url:
        os.environ[ENDPOINT] = collector
        async with azurite() as storage:
            for turn in range(count + 1):
                for way in WAYS:
                    seconds = await row_seconds(
                        way, collector, url, storage.connection_string, rows
                    )
                    if turn:
                        spent[way].append(seconds)
    return spent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    gc.set_threshold(*GC_THRESHOLD)
    spent = asyncio.run(rounds(given.rows, given.rounds))
    print(f"{given.rows:,} rows, {given.rounds} rounds, CPU of a row:")
    off = statistics.median(spent["off"])
    for way, each in spent.items():
        median = statistics.median(each)
        print(f"  {way:8} {median * 1e6:6.1f} µs, ratio {median / off:.3f}")
    return int(statistics.median(spent["all"]) / off > MOST)


if __name__ == "__main__":
    sys.exit(main())
