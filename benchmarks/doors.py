"""`python -m benchmarks.doors`: what a large upload takes, and how fast many clients are answered.

One function host over Azurite, asked by the `openai` package: its memory while a file of 250 MB
comes in parts of 64 MiB, and then the answers to 100 clients that poll 1,000 batches: 40 that run,
and one that has ended with 959 copies of it, each with the documents that the service has stored.
"""

import argparse
import asyncio
import json
import os
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import psutil
from openai import AsyncOpenAI

from local.stack import Stack, StackOptions, stack
from schemas.openai import BATCH_PREFIX, Batch
from workers.adapters.blobs import connect_blobs
from workers.files.names import batch_id
from workers.jobs.index import JobIndex
from workers.jobs.store import JobStore

MIB = 1024 * 1024
PART = 64 * MIB
CHAT: Final = "/v1/chat/completions"
AT_ONCE = 16
RUNNING, ROWS = 40, 100
"""Batches that run while they are polled: the simulated quota keeps them for four minutes."""


def memory(running: Stack) -> int:
    """Bytes that the host holds."""
    return sum(
        psutil.Process(each.pid).memory_info().rss for each in running.hosts.processes.values()
    )


@asynccontextmanager
async def watched(running: Stack) -> AsyncIterator[list[int]]:
    """The host's memory while the block runs, in bytes."""
    found = [memory(running)]

    async def watch() -> None:
        while True:
            found.append(memory(running))
            await asyncio.sleep(0.02)

    task = asyncio.create_task(watch())
    try:
        yield found
    finally:
        task.cancel()


async def upload(client: AsyncOpenAI, running: Stack, size: int) -> str:
    """A file in parts; gives its id."""
    line = b'{"custom_id": "1", "prompt": "' + b"x" * 1000 + b'"}\n'
    data = line * (size // len(line))
    async with watched(running) as found:
        began = time.monotonic()
        done = await client.uploads.upload_file_chunked(
            file=data,
            filename="big.jsonl",
            bytes=len(data),
            mime_type="application/jsonl",
            purpose="batch",
            part_size=PART,
        )
        seconds = time.monotonic() - began
    assert done.file is not None
    print(
        f"{len(data) / 1e6:.0f} MB in parts of {PART // MIB} MiB: {seconds:.1f} s; the host held "
        f"{found[0] / 1e6:.0f} MB before, {max(found) / 1e6:.0f} MB at most",
        flush=True,
    )
    return done.file.id


async def batches(client: AsyncOpenAI, count: int, rows: int) -> list[str]:
    """Make so many batches of a file of so many rows; gives their ids."""
    body = {"messages": [{"role": "user", "content": "Hi"}], "model": "Phi-3-mini-4k-instruct"}
    lines = [{"custom_id": str(n), "url": CHAT, "body": body} for n in range(rows)]
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    file = await client.files.create(file=("small.jsonl", data), purpose="batch")
    room = asyncio.Semaphore(AT_ONCE)

    async def one() -> str:
        async with room:
            made = await client.batches.create(
                input_file_id=file.id, endpoint=CHAT, completion_window="24h"
            )
        return made.id

    return await asyncio.gather(*(one() for _ in range(count)))


async def ended(client: AsyncOpenAI) -> str:
    """A batch of one row, at its end."""
    [batch] = await batches(client, 1, 1)
    while (await client.batches.retrieve(batch)).completed_at is None:  # noqa: ASYNC110 - elsewhere
        await asyncio.sleep(0.2)
    return batch


async def copies(storage: str, batch: str, count: int) -> list[str]:
    """So many batches as this one: its documents under ids of their own, each a second earlier."""
    room = asyncio.Semaphore(AT_ONCE)
    async with connect_blobs(storage) as blobs:
        store = JobStore(blobs, state_container="state", results_container="results")
        index = JobIndex(store)
        job = await store.job(batch.removeprefix(BATCH_PREFIX))
        held = await store.state(job.id) if job else None
        assert job is not None
        assert held is not None

        async def copy(number: int) -> str:
            name = f"{job.id.partition('-')[0]}-{secrets.token_hex(8)}"
            made = job.model_copy(update={"id": name, "created": job.created - number})
            async with room:
                await store.create_job(made)
                await store.swap(made.id, None, held.state)
                await index.add(made)
            return batch_id(made.id)

        return await asyncio.gather(*(copy(number) for number in range(1, count + 1)))


def used(running: Stack) -> float:
    """Seconds of CPU that the hosts have had."""
    times = [psutil.Process(each.pid).cpu_times() for each in running.hosts.processes.values()]
    return float(sum(each.user + each.system for each in times))


async def poll(
    running: Stack, key: str, ids: Sequence[str], *, clients: int, seconds: float
) -> None:
    """So many clients ask for one batch after the other."""
    base = await running.hosts.up()
    before = used(running)
    took: list[float] = []
    wrong: list[int] = []
    until = time.monotonic() + seconds

    async def client(first: int, http: aiohttp.ClientSession) -> None:
        at = first
        while time.monotonic() < until:
            began = time.monotonic()
            async with http.get(f"{base}/v1/batches/{ids[at % len(ids)]}") as answer:
                told = await answer.json()
            took.append(time.monotonic() - began)
            if answer.status != 200:
                wrong.append(answer.status)
            else:
                Batch.model_validate(told)
            at += clients
            await asyncio.sleep(1.0)

    headers = {"authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as http:
        await asyncio.gather(*(client(number, http) for number in range(clients)))
    cuts = statistics.quantiles(took, n=100)
    print(
        f"{clients} clients, each asking once a second for one of {len(ids)} batches: "
        f"{len(took) / seconds:.0f} answers/s, median {statistics.median(took) * 1e3:.0f} ms, "
        f"99th percentile {cuts[98] * 1e3:.0f} ms, {len(wrong)} errors; the host used "
        f"{(used(running) - before) / len(took) * 1e3:.1f} ms of CPU for each answer, at load "
        f"{os.getloadavg()[0]:.0f}",
        flush=True,
    )


async def run(size: int, count: int, clients: int, seconds: float) -> None:
    """Both measurements."""
    key = secrets.token_urlsafe()
    log: list[str] = []
    async with stack(StackOptions(api_key=key), log.append) as running:
        base = await running.hosts.up()
        async with AsyncOpenAI(base_url=f"{base}/v1", api_key=key) as client:
            await client.models.list()
            if size:
                await upload(client, running, size)
            began = time.monotonic()
            one = await ended(client)
            ids = [one, *await copies(running.storage, one, count - RUNNING - 1)]
            ids += await batches(client, RUNNING, ROWS)
            print(f"{len(ids)} batches were made in {time.monotonic() - began:.0f} s", flush=True)
            secrets.SystemRandom().shuffle(ids)
            await poll(running, key, ids, clients=clients, seconds=seconds)
            left = [each.status async for each in client.batches.list(limit=100)]
            print(f"{left[:RUNNING].count('in_progress')} of {RUNNING} run still", flush=True)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.doors", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=250, help="0: none are uploaded")
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    os.environ.pop("DEPLOYMENTS", None)
    asyncio.run(run(given.megabytes * 10**6, given.batches, given.clients, given.seconds))


if __name__ == "__main__":
    main()
