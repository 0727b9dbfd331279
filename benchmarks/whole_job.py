"""One job through real function hosts, storage, Service Bus and a simulated endpoint."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from azure.storage.blob.aio import BlobServiceClient

from local.endpoint.profiles import ProfileName
from local.following import events
from local.stack import Stack, StackOptions, stack
from schemas.status import JobStatus

CONTAINER = "prompts"
LOOK_EVERY = 1.0


@dataclass
class Finished:
    """What a job came to. Times are seconds; `seconds` of the simulator are [second, admitted,
    tokens, rejected], its `callers` [admitted, tokens]; `memory` is the hosts' peak in bytes."""

    status: JobStatus | None = None
    whole: float = 0.0
    stats: dict[str, Any] = field(default_factory=dict)
    memory: int = 0

    @property
    def calling(self) -> float:
        """From the first call's second to the last one's, both counted."""
        seconds = [row[0] for row in self.stats["seconds"]]
        return float(max(seconds) - min(seconds) + 1)


@dataclass
class Site:
    """Everything that runs, and the job that is followed. `endpoint` is the simulator's address."""

    running: Stack
    endpoint: str
    storage: BlobServiceClient
    session: aiohttp.ClientSession

    async def do(self, name: str, lines: Iterable[bytes]) -> Finished:
        """Drop a file and wait for the end of its job."""
        container = self.storage.get_container_client(CONTAINER)
        async with events(self.running.bus, f"{CONTAINER}/{name}") as arriving:
            await self._post("reset")
            looking = asyncio.create_task(self._look(seen := Finished()))
            began = time.monotonic()
            await container.upload_blob(name, b"".join(lines))
            try:
                async for arrived in arriving:
                    if arrived.last:
                        seen.status = arrived.event.data
            finally:
                looking.cancel()
            seen.whole = time.monotonic() - began
        seen.stats = await self._stats()
        if seen.status is None or seen.status.state != "completed":
            raise SystemExit(f"the job did not complete: {seen.status}")
        return seen

    async def _look(self, seen: Finished) -> None:
        """Once a second: how much memory the hosts have."""
        while True:
            resident = (
                psutil.Process(process.pid).memory_info().rss
                for process in self.running.hosts.processes.values()
                if process.returncode is None
            )
            seen.memory = max(seen.memory, *resident)
            await asyncio.sleep(LOOK_EVERY)

    async def _stats(self) -> dict[str, Any]:
        async with self.session.get(f"{self.endpoint}/simulator/stats") as response:
            stats: dict[str, Any] = await response.json()
        return stats

    async def _post(self, what: str) -> None:
        async with self.session.post(f"{self.endpoint}/simulator/{what}") as response:
            response.raise_for_status()


@asynccontextmanager
async def site(
    workers: int,
    profile: ProfileName,
    simulator: Mapping[str, Any],
    *,
    elsewhere: tuple[str, Mapping[str, str]] | None = None,
) -> AsyncIterator[Site]:
    """Start everything; stop it at the end.

    A simulator that runs already is used if its address and the settings that lead there are given.
    """
    address, settings = elsewhere or (None, {})
    options = StackOptions(workers=workers, profile=profile, simulator=simulator, settings=settings)
    # The stack ends in a group of errors where its hosts failed; what they said goes to stderr.
    async with (
        stack(options, _tell) as running,
        BlobServiceClient.from_connection_string(running.storage) as storage,
        aiohttp.ClientSession() as session,
    ):
        await _all_up(running, workers)
        yield Site(running, address or running.endpoint or "", storage, session)


async def _all_up(running: Stack, workers: int) -> None:
    async with asyncio.timeout(120):
        await running.hosts.up()
        while True:
            if len(running.hosts.addresses) == workers:
                return
            await asyncio.sleep(0.1)


def _tell(line: str) -> None:
    if "rror" in line:
        print(line[:300], file=sys.stderr)


def folder() -> Path:
    """Where benchmarks leave what they made (not tracked)."""
    path = Path("out") / "benchmarks"
    path.mkdir(parents=True, exist_ok=True)
    return path
