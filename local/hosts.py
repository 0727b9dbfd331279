"""N function hosts as child processes, as N instances would be; one that dies is started again."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from local.azurite import FolderInUseError
from local.servicebus.server.store import StoreInUseError
from workers.ports.errors import SettingsError

# Where so many have ended and none has ever served, none will.
GIVE_UP_AFTER = 3
# Before one that did not come to serve is started again.
PAUSE_SECONDS = 1.0
# A host's exit status where it would end so every time.
WRONG_SETTINGS = 2
# Longer than a host's own drain and the closing of its clients.
STOP_SECONDS = 8.0


async def start_process(arguments: Sequence[str], environment: Mapping[str, str]) -> Process:
    """Start a host whose streams are pipes. Tests put a function in its place that forks hosts."""
    # A session of its own, so that Ctrl-C reaches the parent only, which then stops the hosts
    # before what they depend on.
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local", "host", *arguments),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
        env=environment,
    )


class HostsFailedError(Exception):
    """The function hosts do not come up. The message holds what the last one said."""


MENDABLE = (HostsFailedError, SettingsError, StoreInUseError, FolderInUseError)


def failure_in(group: BaseExceptionGroup[BaseException]) -> Exception | None:
    """What people can mend, where it is all that an exception group is about."""
    failed, others = group.split(MENDABLE)
    if failed is None or others is not None:
        return None
    first: BaseException = failed
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return cast("Exception", first)


class Hosts:
    """Made by `hosts`. `addresses` are those of the hosts that serve HTTP now, by number."""

    def __init__(
        self,
        count: int,
        app: Path,
        tell: Callable[[str], None],
        *,
        http_port: int = 0,
        verbose: bool = False,
    ) -> None:
        self._count = count
        self._tell = tell
        self._arguments = ["--app", str(app), "--settings-from-stdin"]
        self._arguments += ["--verbose"] if verbose else []
        self._settings: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._stopping = False
        # By number: a host that is started again serves where people's tools expect it.
        self._ports = {1: http_port}
        self._up = asyncio.Event()
        self.addresses: dict[int, str] = {}
        self.processes: dict[int, Process] = {}

    def give(self, settings: Mapping[str, str]) -> None:
        """What the hosts wait for once they are loaded; those that start later get the same."""
        self._settings.set_result(json.dumps(dict(settings)) + "\n")

    async def up(self) -> str:
        """Wait until a host serves HTTP; gives its address."""
        await self._up.wait()
        return next(iter(self.addresses.values()))

    async def keep(self) -> None:
        """Keep all hosts running until cancelled. Errors: `HostsFailedError`, `SettingsError`."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(1, self._count + 1):
                tasks.create_task(self._keep_one(number))

    async def _keep_one(self, number: int) -> None:
        if number > 1:
            # Loading takes a core: the first host is up soonest when it is alone.
            await self._up.wait()
        failures = 0
        while not self._stopping:
            served, status, said = await self._run_one(number)
            if self._stopping:
                return
            if status == WRONG_SETTINGS and said:
                raise SettingsError(said[-1].removeprefix("error: "))
            failures += 1
            if failures >= GIVE_UP_AFTER and not self._up.is_set():
                last = said[-1] if said else "it said nothing"
                raise HostsFailedError(f"function host {number} does not come up: {last}")
            self._tell(f"function host {number} ended with status {status}: starting it again")
            if not served:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _run_one(self, number: int) -> tuple[bool, int, list[str]]:
        """One process from start to end: whether it served, its exit status, its last lines."""
        process = await start_process(
            [*self._arguments, "--port", str(self._ports.get(number, 0))],
            # The Azure SDKs, and our client, tell the services who of the hosts it is.
            {"AZURE_HTTP_USER_AGENT": f"host/{number}"} | os.environ,
        )
        self.processes[number] = process
        said: list[str] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._begin(number, process))
                tasks.create_task(self._listen(process, said))
            return number in self.addresses, await process.wait(), said
        finally:
            if self.addresses.pop(number, None) is None:
                self._ports.pop(number, None)  # somebody else may have it by now
            if process.returncode is None and not self._stopping:
                process.kill()

    async def _begin(self, number: int, process: Process) -> None:
        stdin = cast("asyncio.StreamWriter", process.stdin)
        stdout = cast("asyncio.StreamReader", process.stdout)
        stdin.write((await asyncio.shield(self._settings)).encode())
        if address := (await stdout.readline()).decode().strip():
            self.addresses[number] = address
            self._ports[number] = int(address.rpartition(":")[2])
            self._up.set()

    async def _listen(self, process: Process, said: list[str]) -> None:
        async for line in cast("asyncio.StreamReader", process.stderr):
            text = line.decode(errors="replace").rstrip()
            said[:] = [*said[-20:], text]
            self._tell(text)

    async def stop(self) -> None:
        """Let every host drain and end; kill those that do not. A second time does nothing."""
        self._stopping = True
        running = [each for each in self.processes.values() if each.returncode is None]
        for process in running:
            process.terminate()
        waits = [asyncio.create_task(each.wait()) for each in running]
        if waits:
            await asyncio.wait(waits, timeout=STOP_SECONDS)
        for process in running:
            if process.returncode is None:
                process.kill()


@asynccontextmanager
async def hosts(
    count: int,
    app: Path,
    tell: Callable[[str], None],
    *,
    http_port: int = 0,
    verbose: bool = False,
) -> AsyncIterator[Hosts]:
    """Start `count` hosts of the app in a folder; stop them at the end.

    They load at once and begin when they are given settings. `tell` gets what they log. The first
    serves HTTP on `http_port`; 0 takes a free one. Errors, in a group: `HostsFailedError`,
    `SettingsError`.
    """
    running = Hosts(count, app, tell, http_port=http_port, verbose=verbose)
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(running.keep())
        try:
            yield running
        finally:
            await running.stop()
            keeping.cancel()
