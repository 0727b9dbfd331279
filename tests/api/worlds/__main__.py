"""Seeded worlds of the doors on the command line.

python -m tests.api.worlds --seeds 10000 [--start S]     many worlds; prints each that is wrong
python -m tests.api.worlds --seed K                      one world
"""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.api.worlds.world import live


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.api.worlds")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    one = asked.seed is not None
    seeds = (
        range(asked.seed, asked.seed + 1) if one else range(asked.start, asked.start + asked.seeds)
    )
    began, wrong, kills, calls = time.monotonic(), 0, 0, 0
    with ProcessPoolExecutor(asked.workers) as pool:
        for seed, came in zip(seeds, pool.map(live, seeds, chunksize=20), strict=True):
            kills, calls = kills + came.kills, calls + came.calls
            if came.wrong:
                wrong += 1
                print(f"seed {seed}:", *came.wrong, sep="\n  ", flush=True)
    seconds = time.monotonic() - began
    print(f"{len(seeds)} worlds, {calls} calls, {kills} kills, {seconds:.1f} s: {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
