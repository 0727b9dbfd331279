"""How long is a worker's event loop held up, while it works on rows with long answers?

    python -m benchmarks.loop_lag [--rows 400]

One worker's parts run in this process, over a real Azurite, and an endpoint that answers within 0.2
to 2 s with some 200 KB a row: ten vectors of 1,536. A shard of 200 such rows goes beyond what is
held in memory. Every 5 ms something wants its turn, and what it waits is the lag; turns that would
have come while the loop was held up count too. Ends with status 1 if the 99th percentile is above
50 ms. On a machine that does other work, what is measured is that work.
"""

import argparse
import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final

from local.azurite import azurite
from schemas.deployments import Deployment, Task
from schemas.outcomes import Outcome, Usage
from workers.adapters.blobs import connect_blobs
from workers.jobs.outbox import JOBS, SHARDS
from workers.ports import BlobRef, EndpointInfo, OutMessage, Received
from workers.service import Service, compose
from workers.service.memory import GC_THRESHOLD
from workers.settings import Settings

EVERY_SECONDS: Final = 0.005
MOST_SECONDS: Final = 0.05
SLOTS: Final = 32
INPUTS, DIMENSIONS = 10, 1_536


class Messages:
    """A bus in memory; what is scheduled for later is not needed."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.ended = asyncio.Event()

    async def send(self, entity: str, messages: Sequence[OutMessage]) -> None:
        for message in messages:
            if json.loads(message.body).get("type") == "job.completed":
                self.ended.set()
            elif message.at is None:
                self.waiting.put_nowait((entity, message.body))

    async def take_dead(
        self, queue: str, handle: Callable[[Received], Awaitable[None]], most: int
    ) -> int:
        return 0

    async def reach(self, queue: str) -> None:
        pass


class Vectors:
    """An endpoint with long answers."""

    def __init__(self) -> None:
        self._rng = Random(1)
        self._data = [
            {
                "object": "embedding",
                "index": n,
                "embedding": [self._rng.random() for _ in range(DIMENSIONS)],
            }
            for n in range(INPUTS)
        ]

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        await asyncio.sleep(self._rng.uniform(0.2, 2.0))
        answer = {"object": "list", "data": self._data}
        return Outcome("ok", 200, answer, usage=Usage(100, 0), billed=True)

    async def info(self) -> EndpointInfo | None:
        return None


@asynccontextmanager
async def lags(found: list[float]) -> AsyncIterator[None]:
    """Seconds that a turn is late, for each turn while the block runs."""

    async def look() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(EVERY_SECONDS)
            late = time.perf_counter() - began - EVERY_SECONDS
            while late >= 0.0:
                found.append(late)
                late -= EVERY_SECONDS

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()


async def work(service: Service, messages: Messages) -> None:
    """Handle what comes, as a host does, until the job has ended."""
    room = asyncio.Semaphore(SLOTS)
    handlers = {JOBS: service.inbox.jobs, SHARDS: service.inbox.shards}

    async def handle(entity: str, body: bytes) -> None:
        async with room:
            await handlers[entity](Received(body))

    async with asyncio.TaskGroup() as group:
        ended = group.create_task(messages.ended.wait())
        while not ended.done():
            getting = asyncio.create_task(messages.waiting.get())
            await asyncio.wait([getting, ended], return_when=asyncio.FIRST_COMPLETED)
            if getting.done() and getting.result()[0] in handlers:
                group.create_task(handle(*getting.result()))
            getting.cancel()


async def job(rows: int) -> list[float]:
    """The lags while a job of so many rows runs."""
    deployment = Deployment(
        name="vectors", kind="openai", url="http://127.0.0.1:9/v1", model="e", auth="none"
    )
    settings = Settings(deployments=(deployment,))
    file = BlobRef("prompts", "rows.jsonl")
    texts = [f"text {n}" for n in range(INPUTS)]
    data = b"".join(json.dumps({"input": texts}).encode() + b"\n" for _ in range(rows))
    found: list[float] = []
    async with azurite() as storage, connect_blobs(storage.connection_string) as blobs:
        names = ("prompts", settings.state_container, settings.results_container)
        await blobs.ensure_containers(names)
        messages = Messages()
        service = compose(
            settings,
            blobs,
            messages,
            {"vectors": Vectors()},
            transfers=blobs,
            ledger=None,
            clock=time.time,
            rng=Random(1),
        )
        etag = await blobs.create(file, data)
        gc.set_threshold(*GC_THRESHOLD)
        async with lags(found), asyncio.timeout(600.0):
            await service.doors.dropped(*file, etag=etag, repeated=False)
            await work(service, messages)
    return found


def measured(rows: int) -> float:
    """Print what was found; gives the 99th percentile in seconds."""
    found = asyncio.run(job(rows))
    last = statistics.quantiles(found, n=100)[-1]
    print(
        f"{rows:,} rows with answers of 200 KB: a turn of the loop is late by "
        f"{statistics.median(found) * 1e3:.1f} ms (median), {last * 1e3:.1f} ms "
        f"(99th percentile), {max(found) * 1e3:.1f} ms at most",
        flush=True,
    )
    return last


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400)
    return int(measured(parser.parse_args().rows) > MOST_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
