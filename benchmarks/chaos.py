"""Is anything lost, doubled or paid for too often, however long workers are killed and frozen?

    python -m benchmarks.chaos --rows 20000 --seconds 120 --seed 1

Runs one job on real processes (function hosts, Azurite, the broker). For `--seconds` it kills a
worker (SIGKILL), freezes one until others have taken it for dead (SIGSTOP, SIGCONT), or restarts
storage or broker, every `--every` seconds; then it lets the job end and checks every row. The long
version of tests/integration/test_chaos.py. Exit status 1 when the promise is broken.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.integration import ordeal
from tests.integration.ordeal import Ordeal, answered, job_of, keys_of
from tests.integration.processes import processes
from tests.integration.user import User, jsonl, user_of

# A frozen worker's leases run out after 30 s.
FROZEN_SECONDS = 33.0
NAME = "ordeal.jsonl"


class Harm:
    """Harms a job's workers, by a seed, and counts what it did."""

    def __init__(self, target: Ordeal, workers: int, rng: random.Random) -> None:
        self._target, self._rng = target, rng
        self._alive = dict.fromkeys(range(1, workers + 1), 0.0)
        self._frozen: dict[int, float] = {}
        self.done: Counter[str] = Counter()

    async def some(self) -> None:
        """One harm. There is always a worker that is left alone."""
        self.thaw(time.monotonic() - FROZEN_SECONDS)
        choices = ["kill"] * 6 + ["restart storage", "restart bus"]
        if len(self._alive) > 2:
            choices += ["freeze"] * 3
        what = self._rng.choice(choices)
        self.done[what] += 1
        if what == "restart storage":
            await self._target.restart_storage()
        elif what == "restart bus":
            await self._target.restart_bus()
        else:
            # The one that has lived longest: hosts that end over and over are given up.
            worker = min(self._alive, key=lambda each: self._alive[each])
            self._alive[worker] = time.monotonic()
            if what == "kill":
                await self._target.kill(worker)
            else:
                del self._alive[worker]
                self._frozen[worker] = time.monotonic()
                await self._target.stop(worker)

    def thaw(self, before: float) -> None:
        """Let those go on that were frozen before a time."""
        for worker, since in list(self._frozen.items()):
            if since <= before:
                self._target.resume(worker)
                self._alive[worker] = self._frozen.pop(worker)


async def _run(given: argparse.Namespace, folder: Path) -> None:
    rows = ordeal.rows_of(given.rows)
    running = processes(
        folder,
        workers=given.workers,
        simulator=ordeal.SIMULATOR,
        deployments=ordeal.deployments,
        settings=ordeal.SETTINGS,
        config=ordeal.config(),
    )
    async with user_of(running) as user:
        began = time.monotonic()
        await user.drop(NAME, jsonl(rows))
        target = Ordeal(user, await job_of(user, f"prompts/{NAME}"), keys_of(rows))
        harm = Harm(target, given.workers, random.Random(given.seed))
        try:
            await _harm(user, harm, given, began)
        finally:
            harm.thaw(time.monotonic())
        ended = await user.job(f"prompts/{NAME}", seconds=given.patience)
        took = time.monotonic() - began
        target.check(await user.results(ended.status), rows)
        twice = target.billed_twice()
        print(f"{given.rows:,} rows exactly once and in order, in {took:.0f} s")
        print(", ".join(f"{what}: {times}" for what, times in sorted(harm.done.items())))
        print(
            f"billed twice: {twice:,} calls in {target.crashes} crashes, "
            f"{twice / max(1, target.crashes):.0f} a crash"
        )


async def _harm(user: User, harm: Harm, given: argparse.Namespace, began: float) -> None:
    while time.monotonic() < began + given.seconds:
        await asyncio.sleep(given.every)
        if any(told.last for told in user.told):
            return
        await harm.some()
        print(f"{time.monotonic() - began:6.1f} s  {answered(user):,} answers", flush=True)


def main() -> int:
    """0 when every row came back once, in order, and within the bound."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    add = parser.add_argument
    add("--rows", type=int, default=20_000)
    add("--workers", type=int, default=3)
    add("--seconds", type=float, default=120.0, help="for how long harm is done")
    add("--every", type=float, default=6.0, help="seconds from one harm to the next")
    add("--patience", type=float, default=900.0, help="seconds for the job to end afterwards")
    add("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            asyncio.run(_run(given, Path(folder)))
        except AssertionError as error:
            print(f"broken: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
