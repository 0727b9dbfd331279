"""How much memory and disk does a worker need for answers of megabytes?

    python -m benchmarks.large_answers [--rows 400] [--dimensions 64]

Each row asks for the vectors of 2,048 texts. One function host runs them through Azurite, the local
broker and the simulator; looked at once a second are its resident memory and what its temporary
files hold. Ends with status 1 from 200 MB of memory or 1 GB of disk.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from benchmarks.whole_job import Site, site
from local.simulated import EMBED_MODEL

INPUTS = 2048
MODEL = EMBED_MODEL
MOST_MEMORY = 200e6
MOST_DISK = 1e9


def rows(count: int, dimensions: int) -> Iterator[bytes]:
    for row in range(count):
        texts = [f"text {number} of row {row}" for number in range(INPUTS)]
        body = {"input": texts, "model": MODEL, "dimensions": dimensions}
        yield json.dumps({"url": "/v1/embeddings", "body": body}).encode() + b"\n"


def temporary_bytes(pid: int) -> int:
    """What a process's files hold that have no name any more, as temporary ones do."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            told = entry.stat()
            if not told.st_nlink and entry.readlink().is_absolute():
                found += told.st_blocks * 512
    return found


async def watch_disk(where: Site, seen: list[int]) -> None:
    while True:
        for process in where.running.hosts.processes.values():
            with suppress(OSError):
                seen.append(temporary_bytes(process.pid))
        await asyncio.sleep(0.5)


async def main(count: int, dimensions: int) -> int:
    disk = [0]
    async with site(1, "openai", {"latency": 0.0}) as where:
        watching = asyncio.create_task(watch_disk(where, disk))
        done = await where.do("large.jsonl", rows(count, dimensions))
        watching.cancel()
    counts = done.status.counts if done.status else None
    answered = counts.succeeded if counts else 0
    print(
        f"{answered} of {count} rows of {INPUTS:,} vectors of {dimensions} in {done.whole:.0f} s, "
        f"peak {done.memory / 1e6:.0f} MB of memory, {max(disk) / 1e6:.0f} MB of temporary files"
    )
    good = answered == count and done.memory < MOST_MEMORY and max(disk) < MOST_DISK
    return 0 if good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--dimensions", type=int, default=64)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.rows, given.dimensions)))
