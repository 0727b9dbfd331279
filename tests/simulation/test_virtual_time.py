"""The virtual clock: it jumps, it repeats itself, and it notices when nothing can happen."""

import asyncio
from random import Random

import pytest

from tests.simulation.virtual_time import Stuck, run


async def scramble(rng: Random) -> list[tuple[float, int]]:
    """Tasks whose order hangs on the seed, on timers, and on the order of sets of tasks."""
    loop = asyncio.get_running_loop()
    order: list[tuple[float, int]] = []

    async def sleeper(number: int) -> None:
        try:
            await asyncio.sleep(rng.choice([1.0, rng.uniform(0.0, 5e4)]))
        finally:
            order.append((loop.time(), number))

    tasks = {asyncio.create_task(sleeper(number)) for number in range(50)}
    done, waiting = await asyncio.wait(tasks, timeout=2.5e4)
    for task in [*done, *waiting]:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return order


def test_a_seed_repeats_a_run_and_another_does_not() -> None:
    assert run(scramble, 1) == run(scramble, 1)
    assert run(scramble, 1) != run(scramble, 2)


def test_hours_pass_at_once() -> None:
    async def main(rng: Random) -> float:
        async with asyncio.timeout(86_400 * 30):
            await asyncio.sleep(86_400 * 29)
        return asyncio.get_running_loop().time()

    assert run(main, start=100.0) == pytest.approx(86_400 * 29 + 100.0)


def test_what_can_never_go_on_is_an_error() -> None:
    async def main(rng: Random) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        run(main)


def test_threads_are_refused() -> None:
    async def main(rng: Random) -> None:
        await asyncio.to_thread(print)

    with pytest.raises(Stuck):
        run(main)


async def test_it_runs_inside_another_loop() -> None:
    async def main(rng: Random) -> float:
        await asyncio.sleep(5.0)
        return asyncio.get_running_loop().time()

    assert run(main) == 5.0
    await asyncio.sleep(0)
