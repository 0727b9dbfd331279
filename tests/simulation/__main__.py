"""Simulated worlds on the command line.

python -m tests.simulation --seeds 100000 [--start S]    many worlds; prints each that is wrong
python -m tests.simulation --seed K [--trace]            one world, and all that happened in it
python -m tests.simulation --seed K --shrink             the few faults that make it fail, as a test
python -m tests.simulation --coverage [--seeds N]        how often did each fault strike where?
python -m tests.simulation --mutations [--seeds N]       break each rule: which seed notices?
python -m tests.simulation --month [--seed K]            thirty days of one service
"""

import argparse
import os
import sys
import time
from collections import Counter

from tests.simulation import coverage, month
from tests.simulation.checker import check
from tests.simulation.mutations import MUTATIONS, caught, find
from tests.simulation.seeds import looked_into, see_all
from tests.simulation.shrinking import as_test, shrunk
from tests.simulation.swarm import scenario
from tests.simulation.world import live


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--mutations", action="store_true")
    parser.add_argument("--month", action="store_true")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    if asked.month:
        return a_month(asked.seed or 0)
    if asked.seed is not None and asked.shrink:
        return small(asked.seed)
    if asked.seed is not None:
        return one(asked.seed, trace=asked.trace)
    seeds = range(asked.start, asked.start + asked.seeds)
    return mutated(seeds) if asked.mutations else many(seeds, asked.workers, asked.coverage)


def one(seed: int, *, trace: bool) -> int:
    world = live(scenario(seed), keep=trace)
    for line in world.log or ():
        print(line)
    faults = check(world)
    print(world.scenario)
    print(f"seed {seed}: digest {world.digest.hexdigest()}, {world.host.kills} kills, ", end="")
    print(f"{world.host.freezes} freezes, {len(world.faults.mishaps)} mishaps")
    for fault in faults:
        print(f"  WRONG: {fault}")
    return 1 if faults else 0


def small(seed: int) -> int:
    found = shrunk(scenario(seed))
    print("all holds" if found is None else as_test(found))
    return 0 if found is None else 1


def a_month(seed: int) -> int:
    world = month.live(month.Calendar(), seed)
    print(f"{len(world.closed)} jobs, books closed on {world.books} days, ", end="")
    print(
        f"{world.deleted} deleted, {world.host.kills} kills, {world.host.freezes} freezes, ", end=""
    )
    print(f"{world.service.refused['auth']} calls with the old key, ", end="")
    print(f"{world.service.refused['gone']} to the deployment that was removed, ", end="")
    print(f"{time.process_time():.0f} s of processor time")
    print(*(f"  WRONG: {fault}" for fault in world.wrong), sep="\n")
    return 1 if world.wrong else 0


def many(seeds: range, workers: int, covered: bool) -> int:
    began, wrong, mishaps, jobs = time.monotonic(), 0, 0, 0
    struck: coverage.Struck = Counter()
    met: set[str] = set()
    for seen in see_all(seeds, workers=workers):
        struck.update(seen.struck)
        met |= seen.met
        mishaps += seen.mishaps
        jobs += seen.jobs
        if seen.faults:
            wrong += 1
            print(f"seed {seen.seed}:", *seen.faults, sep="\n  ")
            print(looked_into(seen.seed), flush=True)
    seconds = time.monotonic() - began
    print(f"{len(seeds)} worlds, {jobs} jobs, {mishaps} mishaps, {seconds:.1f} s: {wrong} wrong")
    if covered:
        gaps = coverage.gaps(struck, met, len(seeds))
        print(*coverage.table(struck), *gaps, sep="\n")
        wrong += len(gaps)
    return 1 if wrong else 0


def mutated(seeds: range) -> int:
    missed = 0
    for mutation in MUTATIONS:
        place: object = mutation.world if isinstance(mutation.world, int) else "its own"
        faults = caught(mutation)
        if not faults and (seed := find(mutation, seeds)) is not None:
            place, faults = seed, caught(mutation, seed)
        missed += not faults
        print(
            f"{mutation.name}: world {place}: {faults[0] if faults else 'NOT CAUGHT'}", flush=True
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
