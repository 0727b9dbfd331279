"""Does a job come out whole while its workers are replaced by those of another release?

    python -m benchmarks.rolling --other COMMIT [--rows 4000] [--workers 3]

Runs one job on real processes (function hosts, Azurite, the broker). All hosts begin with the other
commit's checkout; while rows are answered they are replaced one after the other by this one's
(upgrade), then all by the other's (rollback), then all by this one's again. A host is replaced as
Azure does it, by SIGKILL. At the end every row has to stand in the results once, in order, rightly
answered, and billed twice at most as often as crashes allow. Exit status 1 when the promise is
broken. The other commit runs with the packages of this environment.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from local.stack import PROJECT
from tests.integration import ordeal
from tests.integration.ordeal import Ordeal, answered, job_of, keys_of
from tests.integration.processes import processes, until
from tests.integration.user import User, jsonl, user_of

NAME = "rolling.jsonl"
UP_SECONDS = 90.0


class Fleet:
    """Function hosts by their places, each of some checkout. Made by `fleet`."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._settings = json.dumps(dict(settings)) + "\n"
        self._hosts: dict[int, Process] = {}

    async def put(self, place: int, checkout: Path) -> None:
        """Start a host in a place, and wait until it serves; the one that was there is killed."""
        await self.end(place)
        host = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "local", "host", "--settings-from-stdin"),
            cwd=checkout,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
        )
        self._hosts[place] = host
        assert host.stdin is not None
        assert host.stdout is not None
        host.stdin.write(self._settings.encode())
        async with asyncio.timeout(UP_SECONDS):
            assert await host.stdout.readline(), f"a host of {checkout} does not come up"

    async def end(self, place: int) -> bool:
        """Kill the host in a place; whether there was one."""
        host = self._hosts.pop(place, None)
        if host is None:
            return False
        host.kill()
        await host.wait()
        return True

    async def end_all(self) -> None:
        """Kill them all."""
        for place in list(self._hosts):
            await self.end(place)


@asynccontextmanager
async def fleet(settings: Mapping[str, str]) -> AsyncIterator[Fleet]:
    """No hosts at first; none is left at the end."""
    made = Fleet(settings)
    try:
        yield made
    finally:
        await made.end_all()


@contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """Another commit's files, for as long as the context lasts."""
    there = folder / "other"
    git = ("git", "-C", str(PROJECT), "worktree")
    subprocess.run([*git, "add", "--quiet", "--detach", str(there), commit], check=True)
    try:
        yield there
    finally:
        subprocess.run([*git, "remove", "--force", str(there)], check=True)


async def _run(given: argparse.Namespace, folder: Path, other: Path) -> None:
    rows = ordeal.rows_of(given.rows)
    running = processes(
        folder,
        workers=0,
        simulator=ordeal.SIMULATOR,
        deployments=ordeal.deployments,
        settings=ordeal.SETTINGS,
        config=ordeal.config(),
    )
    places = range(1, given.workers + 1)
    order = [(place, where) for where in (PROJECT, other, PROJECT) for place in places]
    async with user_of(running) as user, fleet(user.processes.settings) as hosts:
        for place in places:
            await hosts.put(place, other)
        began = time.monotonic()
        await user.drop(NAME, jsonl(rows))
        target = Ordeal(user, await job_of(user, f"prompts/{NAME}"), keys_of(rows))
        for step, (place, where) in enumerate(order, 1):
            due = given.rows * step // (len(order) + 1)
            await until(partial(_past, user, due), f"{due} answers", given.patience)
            await hosts.end(place)
            await target.note_crash()
            await hosts.put(place, where)
            name = "this" if where == PROJECT else given.other
            print(f"{time.monotonic() - began:6.1f} s  {answered(user):,} answers, {place}: {name}")
        await _check(user, target, rows, given, began)


def _past(user: User, due: int) -> bool:
    return answered(user) >= due


async def _check(
    user: User,
    target: Ordeal,
    rows: list[dict[str, object]],
    given: argparse.Namespace,
    began: float,
) -> None:
    assert not any(told.last for told in user.told), "it ended too soon: give it more rows"
    ended = await user.job(f"prompts/{NAME}", seconds=given.patience)
    target.check(await user.results(ended.status), rows)
    print(f"{given.rows:,} rows exactly once and in order, in {time.monotonic() - began:.0f} s")
    print(f"{target.crashes} hosts replaced, billed twice: {target.billed_twice():,} calls")


def main() -> int:
    """0 when every row came back once, in order, and within the bound."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rolling", description=__doc__)
    parser.add_argument("--other", required=True, help="the other release's commit or tag")
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--patience", type=float, default=600.0, help="seconds for each wait")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, checkout(given.other, Path(folder)) as other:
        try:
            asyncio.run(_run(given, Path(folder), other))
        except AssertionError as error:
            print(f"broken: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
