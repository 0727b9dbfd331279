"""Many worlds at once, on all cores: which seeds show a fault?"""

import concurrent.futures
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass

from tests.simulation.checker import check
from tests.simulation.scenario import scenario
from tests.simulation.world import live

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


def see(seed: int) -> Seen:
    """Live and check one seed's world."""
    world = live(scenario(seed))
    jobs = world.jobs()
    plans = [world.stored("state", f"jobs/{job}/plan.jsonl") or b"" for job in jobs]
    return Seen(
        seed=seed,
        faults=tuple(check(world)),
        digest=world.digest.hexdigest(),
        mishaps=world.injected + world.kills + world.freezes,
        jobs=len(jobs),
        shards=sum(len(plan.splitlines()) for plan in plans),
    )


def _chunk(seeds: range) -> list[Seen]:
    return [see(seed) for seed in seeds]


def see_all(seeds: range, *, workers: int = 2) -> Iterator[Seen]:
    """All of these worlds, in order of seeds."""
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        for seen in pool.map(_chunk, chunks):
            yield from seen
