"""How much does a batch harm those who ask the same deployment, and what does it still get done?

    python -m benchmarks.interactive [--seeds 3]

On virtual time, against the service of the tests, which judges by the second (1,800 requests a
minute): from the 60th second to the 180th somebody asks 8 times a second at random times, and tries
again after refusals as the `openai` package does. Beside that runs nothing, a batch client without
pacing (naive), one that paces itself by AIMD, or two workers of ours with the production dispatcher
and ledger. Printed: the interactive calls' median and 99th percentile, from the first try to the
answer, refusals a try and calls that were given up; and the batch's calls a second before, in the
second after others began, during, and ten to fifteen seconds after they have gone.
"""

import argparse
import sys
from statistics import mean
from typing import get_args

from tests.simulation.interactive import START, STOP, Beside, beside


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs that are averaged")
    given = parser.parse_args()
    print(
        "beside           median     p99  refused a try  given up  before  second 2  during  after"
    )
    for what in get_args(Beside):
        runs = [beside(what, seed) for seed in range(1, given.seeds + 1)]
        print(
            f"{what:15}{mean(run.median() for run in runs):7.2f}s"
            f"{mean(run.p99() for run in runs):7.2f}s"
            f"{sum(run.refused for run in runs) / sum(run.calls for run in runs):15.4f}"
            f"{sum(run.failed for run in runs):10}"
            f"{mean(run.batch_rate(20.0, START) for run in runs):8.1f}"
            f"{mean(run.batch_rate(START + 1.0, START + 2.0) for run in runs):10.1f}"
            f"{mean(run.batch_rate(START + 5.0, STOP) for run in runs):8.1f}"
            f"{mean(run.batch_rate(STOP + 10.0, STOP + 15.0) for run in runs):7.1f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
