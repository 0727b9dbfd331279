"""Somebody else's interactive calls beside a batch at one deployment, on virtual time.

Between START and STOP somebody asks at INTERACTIVE calls a second, at random
times, and tries again as the `openai` package does. Beside it runs nothing, a batch client without
any pacing, one that paces itself by AIMD, or two workers of ours, as they are configured.
"""

import asyncio
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, Literal

from local.endpoint.limits import Limits
from tests.simulation.quota_world import Row, World, rows
from tests.simulation.virtual_time import run

Beside = Literal["alone", "naive", "aimd", "ours", "ours, reserve", "ours, yielding", "ours, both"]
PER_MINUTE, INTERACTIVE = 1800, 8.0
START, STOP, END = 60.0, 180.0, 240.0
CONFIGURED: Mapping[Beside, Mapping[str, Any]] = {
    "ours, reserve": {"reserve": 0.2},
    "ours, yielding": {"yield_to_interactive": True},
    "ours, both": {"reserve": 0.2, "yield_to_interactive": True},
}
TRIES, FIRST_WAIT, LONGEST_WAIT = 6, 0.5, 8.0


@dataclass
class Seen:
    """What became of the interactive calls, and what the batch was let do in calls a second."""

    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    calls: int = 0
    failed: int = 0
    batch: list[float] = field(default_factory=list)

    def batch_rate(self, begin: float, end: float) -> float:
        return sum(begin <= at < end for at in self.batch) / (end - begin)

    def median(self) -> float:
        return statistics.median(self.latencies)

    def p99(self) -> float:
        return sorted(self.latencies)[math.ceil(0.99 * len(self.latencies)) - 1]


@cache
def _work(seed: int) -> tuple[Sequence[Row], Any]:
    """What a seed has somebody ask, beside whatever batch; and the source of chance after it."""
    rng = Random(seed)
    return rows(100_000, 30, rng, 1.0), rng.getstate()


async def _interactive(world: World, seen: Seen, seed: int) -> None:
    """Somebody who asks, and waits for the answers."""
    work, state = _work(seed)
    rng = Random()
    rng.setstate(state)

    async def call(row: Row) -> None:
        began = asyncio.get_running_loop().time()
        for turn in range(TRIES):
            seen.calls += 1
            outcome = await world.service.serve(row, "others")
            if outcome.kind == "ok":
                seen.latencies.append(asyncio.get_running_loop().time() - began)
                return
            seen.refused += 1
            told = min(LONGEST_WAIT, FIRST_WAIT * 2.0**turn) * rng.uniform(0.75, 1.0)
            await asyncio.sleep(outcome.retry_after or told)
        seen.failed += 1

    async with asyncio.TaskGroup() as group:
        for row in work:
            await asyncio.sleep(rng.expovariate(INTERACTIVE))
            now = asyncio.get_running_loop().time()
            if now >= STOP:
                return
            if now >= START:
                group.create_task(call(row))


async def _asked(world: World, row: Row, refused: Callable[[], None]) -> None:
    """A call that is made again when the service says so, until it is let in."""
    while True:
        outcome = await world.service.serve(row)
        if outcome.kind == "ok":
            return
        refused()
        await asyncio.sleep(outcome.retry_after or 1.0)


async def _naive(world: World) -> None:
    """64 at a time, each again as soon as it is told it may."""

    async def ask(number: int) -> None:
        for row in rows(1_000, 30, Random(number), 1.0):
            await _asked(world, row, lambda: None)

    async with asyncio.TaskGroup() as group:
        for number in range(64):
            group.create_task(ask(number))


async def _aimd(world: World, rng: Random) -> None:
    """One call a second more each second, half as many after a 429, at most once a second."""
    rate, cut = 1.0, -math.inf

    def refused() -> None:
        nonlocal rate, cut
        now = asyncio.get_running_loop().time()
        if now >= cut + 1.0:
            rate, cut = max(1.0, rate / 2.0), now

    async with asyncio.TaskGroup() as group:
        for row in rows(12_000, 30, rng, 1.0):
            group.create_task(_asked(world, row, refused))
            await asyncio.sleep(1.0 / rate)
            rate += 1.0 / rate


def beside(what: Beside, seed: int = 1) -> Seen:
    """The interactive calls beside one kind of batch."""

    async def main(rng: Random) -> Seen:
        limits = Limits(requests_per_minute=PER_MINUTE)
        world = World(seed, limits, workers=2, configured=CONFIGURED.get(what))
        seen = Seen()
        asking = [asyncio.create_task(_interactive(world, seen, seed))]
        if what == "naive":
            asking.append(asyncio.create_task(_naive(world)))
        elif what == "aimd":
            asking.append(asyncio.create_task(_aimd(world, Random(seed))))
        elif what != "alone":
            world.heap.extend(rows(8_000, 30, rng, 1.0))
            world.total = 10**9
            for worker in world.workers:
                worker.start(world.heap, 100)
        await asyncio.sleep(END)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        for worker in world.workers:
            await worker.stop()
        seen.batch = world.service.let_in["batch"]
        return seen

    return run(main, seed)
