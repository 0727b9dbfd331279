"""Many worlds at once, on all cores: which seeds show a fault?"""

import concurrent.futures
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulation.checker import check
from tests.simulation.sites import SITES, Fault
from tests.simulation.swarm import scenario
from tests.simulation.world import live
from workers.service.memory import tune

CHUNK = 50


@dataclass(frozen=True, slots=True)
class Seen:
    """What a world came to."""

    seed: int
    faults: tuple[str, ...]
    digest: str
    mishaps: int
    jobs: int
    shards: int
    struck: Counter[tuple[str, Fault]]
    met: frozenset[str]


def see(seed: int) -> Seen:
    """Live and check one seed's world."""
    world = live(scenario(seed))
    jobs = world.records.jobs()
    plans = [world.records.of_job(job, "plan.jsonl") or b"" for job in jobs]
    return Seen(
        seed=seed,
        faults=tuple(check(world)),
        digest=world.digest.hexdigest(),
        mishaps=len(world.faults.mishaps),
        jobs=len(jobs),
        shards=sum(len(plan.splitlines()) for plan in plans),
        struck=world.faults.struck,
        met=frozenset(world.faults.met),
    )


def chunks(seeds: range, size: int = CHUNK) -> list[range]:
    """These seeds in pieces, for workers of any kind to take one by one."""
    return [seeds[at : at + size] for at in range(0, len(seeds), size)]


def named(seeds: range) -> str:
    """What a piece is called among tests."""
    return f"{seeds[0]}-{seeds[-1]}"


def looked_into(seed: object) -> str:
    """How somebody goes on who is told of a seed whose world fails."""
    ask = f"python -m tests.simulation --seed {seed}"
    return (
        f"{ask} --trace shows what happened\n"
        f"{ask} --shrink prints a test with the few faults that make it fail"
    )


def assert_in_order(seeds: range) -> None:
    """Live these worlds here: nothing is wrong in them, though there was something to go wrong."""
    worlds = [see(seed) for seed in seeds]
    wrong = {seen.seed: seen.faults for seen in worlds if seen.faults}
    assert wrong == {}, looked_into("K")
    assert set().union(*(seen.met for seen in worlds)) <= set(SITES), "a call adds its site"
    assert sum(seen.mishaps for seen in worlds) > 2 * len(worlds)
    assert sum(seen.jobs for seen in worlds) > len(worlds)
    assert sum(seen.shards for seen in worlds) > 1.3 * len(worlds)


def _chunk(seeds: range) -> list[Seen]:
    return [see(seed) for seed in seeds]


def see_all(seeds: range, *, workers: int = 2) -> Iterator[Seen]:
    """All of these worlds, in order of seeds."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, spawn, initializer=tune) as pool:
        for seen in pool.map(_chunk, chunks(seeds)):
            yield from seen
