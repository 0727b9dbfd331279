"""What do rows become in other programs that ask a model in bulk, and how long do they take?

    python -m benchmarks.peers [--rows 2000] [--only ours litellm ...] [--where quota ...]

Each program asks the same rows of the same simulated endpoint, 100 at once, set up as its documents
say for a quota that is known: without limit, at 50 requests a second judged second by second (429
beyond), and with 2% of the calls failing (half 503, half a connection that ends after the model
worked). Peers live in environments of their own below .local/peers, 1 GB, which the first run
makes. This service runs whole, with one worker, its storage and its bus on the same cores.

Printed: rows without their own answer; seconds from the rows on disk to the answers, and these as a
multiple of what this service took; seconds before that; refusals; calls a row; processor seconds
and peak memory of the program (of this service's worker: storage and bus stand in for Azure's).
Ends with status 1 if this service lost a row.
"""

import argparse
import asyncio
import os
import sys

from benchmarks.peers.circumstances import ALL, Circumstances
from benchmarks.peers.environments import HOME, PEERS
from benchmarks.peers.runs import Run, ours, theirs

OURS = "ours"


def main() -> int:
    names = [OURS, *PEERS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    where = [each.name for each in ALL]
    parser.add_argument("--where", nargs="+", choices=where, default=where)
    asked = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    for name in set(asked.only) & PEERS.keys():
        PEERS[name].python()
    lost = [
        compared(each, asked.rows, [name for name in names if name in asked.only])
        for each in ALL
        if each.name in asked.where
    ]
    return int(any(lost))


def compared(where: Circumstances, rows: int, names: list[str]) -> int:
    """Print a table; gives the rows that this service lost."""
    print(f"\n{where.name}: {rows:,} rows; load {os.getloadavg()[0]:.1f}", flush=True)
    print(
        f"{'program':18}{'lost':>6}{'took':>9}{'x ours':>8}{'set-up':>8}{'429s':>7}"
        f"{'calls/row':>11}{'processor':>11}{'memory':>10}  set up as",
        flush=True,
    )
    own: Run | None = None
    for name in names:
        if name == OURS:
            own = run = asyncio.run(ours(rows, where))
            how = "max_concurrency 100" + ", requests_per_minute" * bool(where.requests_per_minute)
        elif PEERS[name].paced and not where.requests_per_minute:
            continue
        else:
            run = theirs(PEERS[name], rows, where)
            how = PEERS[name].quota if where.requests_per_minute else PEERS[name].plain
        ratio = f"{run.took / own.took:8.2f}" if own else " " * 8
        print(
            f"{name:18}{run.lost:6}{run.took:8.1f}s{ratio}{run.setup:7.1f}s{run.refused:7}"
            f"{run.calls / rows:11.3f}{run.processor:10.1f}s{run.memory / 2**20:6.0f} MiB  {how}"
            f"{'' if run.finished else ': did not end by itself'}",
            flush=True,
        )
    return own.lost if own else 0


if __name__ == "__main__":
    sys.exit(main())
