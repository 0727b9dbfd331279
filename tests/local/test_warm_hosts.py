"""A host that is forked for a test is to whoever started it what one that was executed is."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE

import psutil
import pytest

from local import hosts
from tests.warm_hosts import PROJECT, StartProcess, WarmHosts, WarmHostsError

from .conftest import DEADLINE, clean
from .test_run import children_of, gone

WAITING = ("--settings-from-stdin",)
# What starts a host, and then stands still.
STARTING = f"""
import asyncio
from tests.warm_hosts import WarmHosts

async def start() -> None:
    process = await WarmHosts().start({WAITING}, {{}})
    print(process.pid, flush=True)
    await process.wait()

asyncio.run(start())
"""


async def test_it_says_what_is_wrong_and_ends_alike(start_by_exec: StartProcess) -> None:
    ended = []
    for start in (start_by_exec, hosts.start_process):
        process = await start(WAITING, clean())
        said = await asyncio.wait_for(process.communicate(b"no settings\n"), DEADLINE)
        ended.append((process.returncode, *said))
    assert ended[0] == ended[1]
    assert ended[0][0] == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_signal_is_its_status(number: signal.Signals) -> None:
    process = await hosts.start_process(WAITING, clean())
    assert process.returncode is None
    assert os.getsid(process.pid) == process.pid
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), DEADLINE) == -number
    assert process.returncode == -number
    with pytest.raises(ProcessLookupError):
        process.kill()
    await process.communicate()


async def test_where_what_forks_them_dies_the_next_start_says_so_and_the_one_after_works() -> None:
    with WarmHosts() as warm:
        first = await warm.start(WAITING, clean())
        watching = psutil.Process(first.pid).parent()
        assert watching is not None
        forking = watching.parent()
        assert forking is not None
        forking.kill()
        await asyncio.to_thread(psutil.wait_procs, [forking], DEADLINE)
        with pytest.raises(WarmHostsError):
            await warm.start(WAITING, clean())
        second = await warm.start(WAITING, clean())
        for process in (first, second):
            process.kill()
            assert await asyncio.wait_for(process.wait(), DEADLINE) == -signal.SIGKILL
            await process.communicate()


async def test_none_is_left_when_what_runs_the_tests_is_killed() -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", STARTING), cwd=PROJECT, stdout=PIPE
    )
    assert program.stdout is not None
    host = int(await asyncio.wait_for(program.stdout.readline(), DEADLINE))
    started = await children_of(program, 3)  # what forks, what watches, the host
    assert host in [each.pid for each in started]
    program.kill()
    await program.communicate()
    assert await gone(started) == []
