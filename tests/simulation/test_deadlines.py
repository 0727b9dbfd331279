"""Jobs whose windows end soon beside one that has time, in the seeded world of quotas."""

import asyncio
import math
from collections import Counter
from random import Random

import pytest

from local.endpoint.limits import Limits
from schemas.results import Counts
from tests.jobs.test_deadline import job
from tests.jobs.test_pace import running
from tests.simulation.quota_world import World, rows
from tests.simulation.virtual_time import run
from workers.dispatch.call import Gate
from workers.jobs.pace import urgency

PER_MINUTE, LOOK = 1200, 3.0
ROWS = {"pressed": 1200, "calm": 6000}
WINDOW = {"pressed": 100.0, "calm": 86_400.0}
"""The pressed job needs 60% of the quota from its first second on."""


def finished(workers: int, *, steered: bool, seed: int = 1) -> tuple[float, float]:
    """When the pressed job's last row is answered, and what the calm one had of all till then."""

    async def main(rng: Random) -> tuple[float, float]:
        world = World(seed, Limits(requests_per_minute=PER_MINUTE), workers=workers)
        done: Counter[str] = Counter()
        gates = {name: Gate(math.inf, math.inf) for name in ROWS}
        over = asyncio.Event()

        async def ask(name: str, number: int) -> None:
            worker = world.workers[number % workers]
            for row in rows(ROWS[name] // 120, 30, Random(number), 1.0):
                await worker.dispatcher.ask(
                    worker.call(row), job=name, weight=gates[name].urgency, gate=gates[name]
                )
                done[name] += 1
            if done[name] == ROWS[name]:
                over.set()

        async def steer() -> None:
            while True:
                for name, gate in gates.items():
                    counts = Counts(total=ROWS[name], succeeded=done[name])
                    state = running(counts=counts, least_seconds=60.0 * ROWS[name] / PER_MINUTE)
                    now = asyncio.get_running_loop().time()
                    gate.urgency = urgency(job(WINDOW[name]), state, now) if steered else 1.0
                await asyncio.sleep(LOOK)

        tasks = [asyncio.create_task(worker.dispatcher.run()) for worker in world.workers]
        tasks.append(asyncio.create_task(steer()))
        tasks += [asyncio.create_task(ask(name, n)) for name in ROWS for n in range(120)]
        await over.wait()
        took = asyncio.get_running_loop().time()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return took, done["calm"] / done.total()

    return run(main, seed)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_job_that_would_miss_its_window_makes_it(workers: int) -> None:
    late, half = finished(workers, steered=False)
    assert late > WINDOW["pressed"]
    assert half == pytest.approx(0.5, abs=0.03)
    took, calm = finished(workers, steered=True)
    assert took <= WINDOW["pressed"]
    # And no further: the other has at least what a third of the weight gives.
    assert calm >= 0.25
