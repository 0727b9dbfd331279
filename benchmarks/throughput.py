"""How fast is the calling part, and does memory grow with the file?

    python -m benchmarks.throughput [--rounds 5] [--large 100000] [--no-job]

An unlimited endpoint answers after 50 ms, in a process of its own. 5,000 rows with 500 in flight:
rounds of a bare aiohttp loop and of the dispatcher with each kind of endpoint client (those of one
pipeline, and azure-ai-inference's) take turns, and the medians are compared. Then the whole job
with one worker, from the drop to the results, at 5,000 and at 100,000 rows, with the worker's peak
memory. Last, how late the turns of a worker's event loop are (`benchmarks.loop_lag`). Ends with
status 1 if the calling part takes more than 1.3 times as long with either, the memory at 100,000
rows is more than 1.25 times that at 5,000, or the 99th percentile of the lag is above 50 ms.
"""

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from math import inf
from random import Random
from typing import Any

import aiohttp
import orjson

from benchmarks import loop_lag
from benchmarks.whole_job import Finished, site
from schemas.deployments import Deployment, EndpointKind
from workers.adapters.endpoints import connect
from workers.dispatch.call import Call, Gate
from workers.dispatch.dispatcher import Dispatcher
from workers.intake.planning import MAX_ROWS
from workers.service.memory import GC_THRESHOLD

ROWS, IN_FLIGHT, LATENCY = 5_000, 500, 0.05
MOST_TIME, MOST_MEMORY = 1.3, 1.25
LAG_ROWS = 400
MODEL = "Phi-3-mini-4k-instruct"
KINDS: tuple[EndpointKind, ...] = ("openai", "model-inference")


def body(row: int) -> dict[str, Any]:
    content = f"Row {row}: say in one sentence what the capital of France is known for."
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 64}


@contextmanager
def child(module: str, *arguments: str) -> Iterator[str]:
    """A module as a process of its own; gives its address, the first line that it prints."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None:
                raise SystemExit(f"{module} has no output")
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def endpoint() -> AbstractContextManager[str]:
    """The simulator; gives its address."""
    return child("local.endpoint", "--profile", "openai", "--latency", str(LATENCY))


async def bare(url: str) -> float:
    """Seconds that a plain loop takes: a session, 500 tasks, a JSON body each way."""
    rows = iter(range(ROWS))
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector) as session:

        async def worker() -> None:
            for row in rows:
                data = orjson.dumps(body(row) | {"model": MODEL})
                target = f"{url}/v1/chat/completions"
                async with session.post(target, data=data, headers=headers) as response:
                    answer = orjson.loads(await response.read())
                    if response.status != 200 or "choices" not in answer:
                        raise SystemExit(f"the endpoint failed: {response.status}")

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(worker())
        return time.perf_counter() - began


async def dispatched(url: str, kind: EndpointKind) -> float:
    """Seconds that the production way takes: shards with a gate, each row a task of its own."""
    deployment = Deployment(
        name="phi",
        kind=kind,
        url=f"{url}/v1",
        model=MODEL,
        auth="none",
        max_concurrency=IN_FLIGHT,
    )
    async with connect([deployment]) as endpoints:
        dispatcher = Dispatcher([deployment], endpoints, rng=Random(1))

        async def row(number: int, gate: Gate) -> None:
            call = Call("chat", MODEL, body(number))
            answer = await dispatcher.ask(call, job="job", weight=1.0, gate=gate)
            if answer.outcome.kind != "ok":
                raise SystemExit(f"the endpoint failed: {answer.outcome}")

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for first in range(0, ROWS, MAX_ROWS):
                gate = Gate(inf, inf)
                for number in range(first, first + MAX_ROWS):
                    group.create_task(row(number, gate))
        return time.perf_counter() - began


async def job(rows: int) -> Finished:
    async with site(1, "openai", {"latency": LATENCY}) as running:
        lines = (json.dumps(body(row)).encode() + b"\n" for row in range(rows))
        return await running.do(f"throughput-{rows}.jsonl", lines)


def calling(rounds: int) -> float:
    """The greatest ratio of medians."""
    plain: list[float] = []
    ours: dict[EndpointKind, list[float]] = {kind: [] for kind in KINDS}
    gc.set_threshold(*GC_THRESHOLD)  # as in a worker, and for all
    with endpoint() as url:
        for _ in range(rounds):
            plain.append(asyncio.run(bare(url)))
            for kind, seconds in ours.items():
                seconds.append(asyncio.run(dispatched(url, kind)))
    print(f"{ROWS:,} rows, {LATENCY * 1000:.0f} ms, {IN_FLIGHT} in flight, {rounds} rounds:")
    print(f"  bare aiohttp     {statistics.median(plain):6.2f} s (best {min(plain):.2f})")
    ratios = []
    for kind, seconds in ours.items():
        ratios.append(statistics.median(seconds) / statistics.median(plain))
        print(
            f"  {kind:15}  {statistics.median(seconds):6.2f} s (best {min(seconds):.2f}), "
            f"ratio {ratios[-1]:.2f}",
            flush=True,
        )
    return max(ratios)


def whole(large: int) -> float:
    """The ratio of the peak memories."""
    memory = []
    for rows in (ROWS, large):
        done = asyncio.run(job(rows))
        memory.append(done.memory)
        print(
            f"whole job of {rows:,} rows, one worker: {done.whole:.1f} s from drop to results, "
            f"calls within {done.calling:.0f} s, peak memory {done.memory / 2**20:.0f} MiB",
            flush=True,
        )
    return memory[1] / memory[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--no-job", action="store_true", help="the calling part only")
    given = parser.parse_args()
    missed = calling(given.rounds) > MOST_TIME
    if not given.no_job:
        missed |= whole(given.large) > MOST_MEMORY
        missed |= loop_lag.measured(LAG_ROWS) > loop_lag.MOST_SECONDS
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
