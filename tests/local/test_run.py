"""`python -m local run`, as a user starts it: what it prints, writes, returns and leaves behind."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import psutil
import pytest

from local import hosts as host_processes
from local.__main__ import main
from local.following import Events
from local.hosts import failure_in, hosts

from .conftest import APP, clean

PROJECT = Path(__file__).parents[2]
SAMPLE = PROJECT / "samples" / "every-dialect.jsonl"
DEADLINE = 240.0
UNLIMITED = ("--requests-per-minute", "0", "--tokens-per-minute", "0")


@asynccontextmanager
async def running(*arguments: str, **settings: str) -> AsyncIterator[Process]:
    """`local run`, with a data folder of its own unless one is named."""
    if "--data" not in arguments:
        with TemporaryDirectory() as data:
            async with running(*arguments, "--data", data, **settings) as process:
                yield process
        return
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local", "run", *arguments),
        stdout=PIPE,
        stderr=PIPE,
        env=clean() | settings,
        # As from a terminal, also where the tests run in the background: shells ignore it there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()  # and not wait(): its pipes close while there is a loop


async def run(*arguments: str, **settings: str) -> tuple[int, str, str]:
    async with running(*arguments, **settings) as process:
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


def run_here(*arguments: str) -> int:
    """The same in this process, where the process is not the point: the exit status."""
    return main(["run", *arguments])


async def children_of(process: Process, count: int) -> list[psutil.Process]:
    """Its children, once there are so many."""
    async with asyncio.timeout(DEADLINE):
        while True:
            found: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that are still there after a while."""
    alive: list[psutil.Process]
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 15)
    return alive


async def test_two_runs_at_once_come_back_complete_and_verified(tmp_path: Path) -> None:
    ended = await asyncio.gather(
        run(str(SAMPLE), *UNLIMITED, "--out", str(tmp_path / "0"), "--workers", "2"),
        run(str(SAMPLE), *UNLIMITED, "--out", str(tmp_path / "1"), "--options", '{"max_tokens":9}'),
    )
    for folder, (status, out, err) in zip((tmp_path / "0", tmp_path / "1"), ended, strict=True):
        assert (status, err) == (0, "")
        assert "16 of 16 rows · 16 succeeded · 0 failed" in out
        cost = json.loads((folder / "manifest.json").read_text())["cost"]
        assert f"tokens · {cost['counted']} USD · " in out
        assert float(cost["counted"]) > 0
        assert f"{cost['counted']} USD" in (folder / "report.html").read_text()
        assert f"results in {folder}/" in out
        assert "batch-chat: [simulated]" in out
        assert main(["verify", str(folder)]) == 0
        lines = (folder / "events.jsonl").read_text().splitlines()
        types = [json.loads(line)["type"] for line in lines]
        assert types[-1] == "job.completed"
        assert [each for each in types if each in out] == types
        rows = [json.loads(line) for line in (folder / "output.jsonl").read_text().splitlines()]
        assert [row["custom_id"] for row in rows[:3]] == [
            "batch-chat",
            "azure-batch-chat",
            "multi-turn",
        ]


def test_rejected_file_is_status_1_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "prompts.txt"
    wrong.write_text('{"prompt": "hello"}\n')
    status = run_here(str(wrong), "--out", str(tmp_path / "out"), "--data", str(tmp_path / "data"))
    assert status == 1
    assert capsys.readouterr().err.strip().splitlines() == [
        "error: the job was rejected: only files named .jsonl or .ndjson are run when dropped"
    ]
    assert "job.rejected" in (tmp_path / "out" / "events.jsonl").read_text()


@pytest.mark.parametrize(
    ("numbers", "status"),
    [
        ((signal.SIGINT, signal.SIGINT), 130),
        pytest.param((signal.SIGTERM,), 130, marks=pytest.mark.long),
        # In make test a killed one is looked at in test_interrupted.
        pytest.param((signal.SIGKILL,), -9, marks=pytest.mark.long),
    ],
)
async def test_nothing_is_left_running(
    tmp_path: Path, numbers: tuple[int, ...], status: int
) -> None:
    async with running(str(SAMPLE), "--out", str(tmp_path), "--latency", "30") as process:
        children = await children_of(process, 2)
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            while b"dropped" not in (line := await process.stdout.readline()):
                assert line, "it ended before it had dropped the file"
        for number in numbers:
            process.send_signal(number)
            await asyncio.sleep(0.1)
        _, err = await asyncio.wait_for(process.communicate(), DEADLINE)
        assert process.returncode == status
        assert await gone(children) == []
    if status == 130:
        assert err.decode().strip().splitlines() == [
            "interrupted: everything is stopped; the same command goes on with it"
        ]


async def test_a_cancellation_that_the_sdk_loses_is_kept() -> None:
    class Receiver:
        async def receive_messages(self, _: int, *, max_wait_time: float) -> list[Any]:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(max_wait_time)
            return []

    async def follow() -> None:
        async for _ in Events(cast("Any", Receiver()), "prompts/a.jsonl"):
            raise AssertionError("nothing arrives")

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(following, DEADLINE)


async def test_a_host_that_has_served_is_started_again_however_often_it_dies() -> None:
    said: list[str] = []
    async with hosts(1, APP, said.append) as kept:
        kept.give(HOST_SETTINGS)
        first = await asyncio.wait_for(kept.up(), DEADLINE)
        for _ in range(host_processes.GIVE_UP_AFTER + 1):
            dead = kept.processes[1]
            dead.kill()
            async with asyncio.timeout(DEADLINE):
                while kept.processes[1] is dead or 1 not in kept.addresses:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert kept.addresses[1] == first, "tools know the first address"
        assert "function host 1 ended with status -9: starting it again" in said
    assert kept.processes[1].returncode is not None


HOST_SETTINGS = {
    "AzureWebJobsStorage": "UseDevelopmentStorage=true;BlobEndpoint=http://127.0.0.1:1/none",
    "ServiceBusConnection": "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=n;"
    "SharedAccessKey=k;UseDevelopmentEmulator=true;",
    "JOBS_QUEUE": "jobs",
    "TIMER_SCHEDULE": "0 0 0 1 1 *",
    "RECORDER": "http://127.0.0.1:1/",
}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SHARD_SECONDS", "-3", "setting SHARD_SECONDS: "),
        ("NIGHTLY_SCHEDULE", "daily", "schedule 'daily' is not NCRONTAB"),
    ],
)
def test_a_wrong_setting_is_status_2_and_one_line(  # noqa: PLR0917
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(name, value)
    assert run_here(str(SAMPLE), "--out", str(tmp_path), "--data", str(tmp_path / "data")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert said in line


async def test_hosts_that_do_not_come_up_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_processes, "GIVE_UP_AFTER", 2)
    monkeypatch.setattr(host_processes, "PAUSE_SECONDS", 0.1)
    (tmp_path / "function_app.py").write_text("raise RuntimeError('broken on purpose')\n")
    failed = None
    try:
        async with hosts(1, tmp_path, lambda _: None) as kept:
            kept.give({})
            await asyncio.wait_for(kept.up(), DEADLINE)
    except BaseExceptionGroup as group:
        failed = failure_in(group)
    assert "broken on purpose" in str(failed)
