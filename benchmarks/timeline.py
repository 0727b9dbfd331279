"""Where do the seconds of a shared quota go? Shards dealt to hosts, in virtual time.

    python -m benchmarks.timeline [--requests 1800] [--rows 1500] [--workers 1 4 16]
                                  [--seeds 12] [--seconds]

The production dispatcher and ledger run in the seeded world of the tests: shards of a job are out
as far as its window allows, and a host takes them from the queue: all hosts in turn (`even`), or
the one that was up first as many as it can hold (`first`). Printed for each run: the time from the
first call to the last against the lower bound of an endpoint that judges by the second, refusals a
row, and operations on the ledger a second, means of so many seeds. `--seconds` also prints a line
for each second of the first: calls let in, and for each worker the share granted / share wanted
(percent) / calls waiting / in flight.
"""

import argparse
import logging
import sys
from statistics import mean
from typing import get_args

from tests.simulation.quota_shards import Dealt, measure


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1800, help="quota a minute")
    parser.add_argument("--rows", type=int, default=1500)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", action="store_true", help="print each second of each worker")
    given = parser.parse_args()
    logging.disable()  # conflicts at the ledger are told in the figures
    print("dealt  workers  bound   took  bound/took  429 a row  ledger operations/s")
    for dealt in get_args(Dealt):
        for workers in given.workers:
            runs = [
                measure(given.requests, given.rows, workers, dealt, seed)
                for seed in range(1, given.seeds + 1)
            ]
            found = runs[0]
            print(
                f"{dealt:5}{workers:9}{found.bound:6}s{mean(each.took for each in runs):6.1f}s"
                f"{mean(each.efficiency for each in runs):12.3f}"
                f"{mean(each.refused for each in runs):11.4f}"
                f"{mean(each.operations for each in runs):21.1f}",
                flush=True,
            )
            for now, states in found.seen if given.seconds else ():
                print(f"  {now:5.0f} s {found.let_in[int(now)]:4} let in  " + "  ".join(states))
    return 0


if __name__ == "__main__":
    sys.exit(main())
