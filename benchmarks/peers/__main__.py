"""What do rows become in other programs that ask a model in bulk, and how long do they take?

    python -m benchmarks.peers [--rows 2000] [--rounds 1] [--only ours litellm ...]

Each program asks the same rows of the same simulated endpoint, 100 at once, set up as its documents
say for a quota that is known: without limit, at 50 requests a second judged second by second (429
beyond), and with 2% of the calls failing (half 503, half a connection that ends after the model
worked). Peers live in environments of their own below .local/peers, 1.5 GB, which the first run
makes. This service runs whole, with one worker, its storage and its bus on the same cores.

Printed: rows without their own answer; seconds from the rows on disk to the answers, and these as a
multiple of what this service took; seconds before that; refusals; calls a row; processor seconds
and peak memory of the program (of this service's worker: storage and bus stand in for Azure's).
Ends with status 1 if this service lost a row.
"""

import argparse
import asyncio
import os
import statistics
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
    parser.add_argument("--rounds", type=int, default=1, help="in which all take turns: medians")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    where = [each.name for each in ALL]
    parser.add_argument("--where", nargs="+", choices=where, default=where)
    asked = parser.parse_args()
    HOME.mkdir(parents=True, exist_ok=True)
    for name in set(asked.only) & PEERS.keys():
        PEERS[name].python()
    lost = [
        compared(each, asked.rows, asked.rounds, [name for name in names if name in asked.only])
        for each in ALL
        if each.name in asked.where
    ]
    return int(any(lost))


def compared(where: Circumstances, rows: int, rounds: int, names: list[str]) -> int:
    """Print a table; gives the rows that this service lost."""
    shown = [name for name in names if where.requests_per_minute or not needs_quota(name)]
    runs: dict[str, list[Run]] = {name: [] for name in shown}
    loads = [os.getloadavg()[0]]
    for _ in range(rounds):
        for name in shown:
            runs[name].append(one(name, rows, where))
            loads.append(os.getloadavg()[0])
    load = f"load {min(loads):.0f} to {max(loads):.0f}"
    print(f"\n{where.name}: {rows:,} rows, rounds: {rounds}, {load}")
    print(
        f"{'program':18}{'lost':>6}{'took':>9}{'x ours':>8}{'set-up':>8}{'429s':>7}"
        f"{'calls/row':>11}{'processor':>11}{'memory':>10}  set up as"
    )
    for name in shown:
        show(name, rows, where, runs[name], runs.get(OURS))
    return max((run.lost for run in runs.get(OURS, ())), default=0)


def needs_quota(name: str) -> bool:
    """Whether a peer does without a quota what another one does, which is shown already."""
    return name != OURS and PEERS[name].paced


def one(name: str, rows: int, where: Circumstances) -> Run:
    return asyncio.run(ours(rows, where)) if name == OURS else theirs(PEERS[name], rows, where)


def show(
    name: str, rows: int, where: Circumstances, runs: list[Run], beside: list[Run] | None
) -> None:
    """A line: the most rows that were lost, of all else the median."""

    def of(runs: list[Run], field: str) -> float:
        return float(statistics.median(getattr(run, field) for run in runs))

    took = of(runs, "took")
    ratio = f"{took / of(beside, 'took'):8.2f}" if beside else " " * 8
    if name == OURS:
        how = "max_concurrency 100" + ", requests_per_minute" * bool(where.requests_per_minute)
    else:
        how = PEERS[name].quota if where.requests_per_minute else PEERS[name].plain
    print(
        f"{name:18}{max(run.lost for run in runs):6}{took:8.1f}s{ratio}{of(runs, 'setup'):7.1f}s"
        f"{of(runs, 'refused'):7.0f}{of(runs, 'calls') / rows:11.3f}{of(runs, 'processor'):10.1f}s"
        f"{of(runs, 'memory') / 2**20:6.0f} MiB  {how}"
        f"{'' if all(run.finished for run in runs) else ': did not end by itself'}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
