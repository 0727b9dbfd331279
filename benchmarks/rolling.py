"""Do jobs come out whole while their workers are replaced by those of another release?

    python -m benchmarks.rolling --other COMMIT [--rows 1000] [--workers 3]

Runs one job after the other on real processes (function hosts, Azurite, the broker). All hosts
begin with the other commit's files; while rows are answered they are replaced one after the other
by this one's (upgrade), then all by the other's (rollback), then all by this one's again. A host is
replaced as Azure does it, by SIGKILL. At its end every row of a job has to stand in the results
once, in order, rightly answered, and billed twice at most as often as crashes allow. Exit status 1
when the promise is broken. The other commit runs with the packages of this environment.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from local.stack import PROJECT
from tests.integration import ordeal
from tests.integration.ordeal import Ordeal, answered, job_of, keys_of
from tests.integration.processes import CHAT_MODEL, processes, until
from tests.integration.user import User, chats, jsonl, user_of
from workers.ports.errors import first_of

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


def checkout(commit: str, folder: Path) -> Path:
    """Another commit's files, in a folder of their own."""
    there = folder / "other"
    archive = folder / "other.tar"
    command = ["git", "archive", "--output", str(archive), commit]
    subprocess.run(command, cwd=PROJECT, check=True)
    with tarfile.open(archive) as files:
        files.extractall(there, filter="data")
    return there


class Load:
    """One job after the other, until somebody has seen enough; each is checked at its end."""

    def __init__(self, user: User, rows: int, patience: float) -> None:
        self._user, self._rows, self._patience = user, rows, patience
        self._starting = asyncio.Lock()
        self._running: list[Ordeal] = []
        self.enough = False
        self.jobs = 0
        self.twice = 0

    async def run(self) -> None:
        """Run jobs. Raises AssertionError with the first thing that is wrong."""
        while not self.enough:
            rows = chats(self._rows, f"job {self.jobs}", model=CHAT_MODEL, max_tokens=16)
            name = f"rolling-{self.jobs}.jsonl"
            async with self._starting:
                await self._user.drop(name, jsonl(rows))
                job = await job_of(self._user, f"prompts/{name}")
                target = Ordeal(self._user, job, keys_of(rows))
                self._running.append(target)
            ended = await self._user.job(f"prompts/{name}", seconds=self._patience)
            self._running.remove(target)
            target.check(await self._user.results(ended.status), rows)
            self.jobs += 1
            self.twice += target.billed_twice()

    async def lose(self, end: Awaitable[object]) -> None:
        """Let a host end, while no job is just beginning."""
        async with self._starting:
            await end
            for target in self._running:
                await target.note_crash()


async def _run(given: argparse.Namespace, folder: Path, other: Path) -> None:
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
        began, load = time.monotonic(), Load(user, given.rows, given.patience)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            for place, where in order:
                due = answered(user) + given.rows // 4
                await until(partial(_past, user, due), f"{due} answers", given.patience)
                await load.lose(hosts.end(place))
                await hosts.put(place, where)
                name = "this" if where == PROJECT else given.other
                took = f"{time.monotonic() - began:6.1f} s"
                print(f"{took}  {answered(user):,} answers, {place}: {name}", flush=True)
            load.enough = True
    print(f"{load.jobs} jobs of {given.rows:,} rows: every row exactly once and in order")
    print(f"{len(order)} hosts replaced, billed twice: {load.twice:,} calls")


def _past(user: User, due: int) -> bool:
    return answered(user) >= due


def main() -> None:
    """Exit status 0 when every row came back once, in order, and within the bound."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rolling", description=__doc__)
    parser.add_argument("--other", required=True, help="the other release's commit or tag")
    parser.add_argument("--rows", type=int, default=1_000, help="of each job")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--patience", type=float, default=600.0, help="seconds for each wait")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        other = checkout(given.other, Path(folder))
        try:
            asyncio.run(_run(given, Path(folder), other))
        except* AssertionError as broken:
            print(f"broken: {first_of(broken)}", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
