"""Tenants and jobs share a quota by weight, in the seeded world of quotas."""

import asyncio
import math
from collections import Counter
from random import Random

import pytest

from local.endpoint.limits import Limits
from tests.simulation.quota_world import Worker, World, jain, rows
from tests.simulation.virtual_time import run
from workers.dispatch.call import Gate

Stakes = dict[str, tuple[float, tuple[str, float]]]
"""By job: its own weight, its tenant and what that weighs."""
BLUE, RED, DEFAULT = ("blue", 2.0), ("red", 1.0), ("default", 1.0)
JOBS: Stakes = dict.fromkeys("abcde", (1.0, DEFAULT))
TENANTS: Stakes = {
    "a": (1.0, BLUE),
    "b": (1.0, BLUE),
    "c": (4.0, RED),
    "d": (1.0, RED),
    "e": (1.0, DEFAULT),
}
PARTS = {"a": 1 / 4, "b": 1 / 4, "c": 1 / 5, "d": 1 / 20, "e": 1 / 4}


def answered(workers: int, stakes: Stakes, seed: int = 1) -> tuple[Counter[str], float]:
    """Rows answered by job in two minutes, and the part of the quota used; jobs lie on some
    workers each, one on all.
    """

    async def main(rng: Random) -> tuple[Counter[str], float]:
        world = World(seed, Limits(requests_per_minute=1800), workers=workers)
        done: Counter[str] = Counter()

        async def ask(worker: Worker, job: str, number: int) -> None:
            gate = Gate(math.inf, math.inf)
            weight, gate.tenant = stakes[job]
            for row in rows(200, 30, Random(number), 1.0):
                await worker.dispatcher.ask(worker.call(row), job=job, weight=weight, gate=gate)
                done[job] += 1

        tasks = [asyncio.create_task(worker.dispatcher.run()) for worker in world.workers]
        for at, job in enumerate(stakes):
            on = world.workers if at == 0 else world.workers[at % workers :: 2] or world.workers
            tasks += [
                asyncio.create_task(ask(on[n % len(on)], job, n)) for n in range(15 * len(on))
            ]
        await asyncio.sleep(30.0)
        before = done.copy()
        await asyncio.sleep(120.0)
        used = world.rate(30.0, 150.0) / 30.0
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return done - before, used

    return run(main, seed)


@pytest.mark.parametrize("workers", [1, pytest.param(8, marks=pytest.mark.long)])
def test_five_jobs_share_by_weight(workers: int) -> None:
    done, used = answered(workers, JOBS)
    assert jain([done[job] for job in JOBS]) >= 0.98
    assert used >= 0.95


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), 8])
def test_tenants_share_by_weight_and_their_jobs_what_the_tenant_has(workers: int) -> None:
    done, used = answered(workers, TENANTS)
    assert jain([done[job] / PARTS[job] for job in TENANTS]) >= 0.98
    assert used >= 0.95
