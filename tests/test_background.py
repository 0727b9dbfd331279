"""What a process does besides answering triggers goes on after any error, and who fails is told."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

import function_app
from tests.doubles.service import bench
from tests.simulation.virtual_time import run
from workers.dispatch.reporting import TELL_SECONDS
from workers.ports.telemetry import Telemetry
from workers.service import Running
from workers.service.background import MENDED_SECONDS, PAUSE_SECONDS, TOLD_AFTER, Background

SWEPT = ("sweeper", "inbox", "nightly", "drops", "retention")


class Odd:
    """Work that fails so often, with an error that nobody expected, and then runs for ever."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.started: list[float] = []

    async def __call__(self) -> None:
        self.started.append(asyncio.get_running_loop().time())
        if self.left:
            self.left -= 1
            raise AttributeError("'NoneType' object has no attribute 'link'")
        await asyncio.Event().wait()


def test_a_task_is_started_again_after_a_pause_and_each_error_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(_: Random) -> None:
        odd = Odd(2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                await Background().keep("sharing quotas", odd)
        assert odd.started == [0.0, PAUSE_SECONDS, 2 * PAUSE_SECONDS]

    with caplog.at_level(logging.ERROR):
        run(story)
    told = [record.getMessage().partition(" and ")[0] for record in caplog.records]
    assert told == ["[TASK_BUG] sharing quotas failed"] * 2
    assert all(record.exc_info for record in caplog.records)


def test_work_that_returns_is_done() -> None:
    async def story(_: Random) -> None:
        started = 0

        async def work() -> None:
            nonlocal started
            started += 1

        await Background().keep("opening links", work)
        assert started == 1

    run(story)


def test_a_task_is_told_of_from_its_third_error_in_a_row_until_it_has_long_been_well() -> None:
    async def story(_: Random) -> None:
        background = Background()
        keeping = asyncio.create_task(background.keep("sharing quotas", Odd(TOLD_AFTER)))
        told = []
        for _look in range(TOLD_AFTER + 1):
            await asyncio.sleep(PAUSE_SECONDS - 0.1)
            told.append(background.failing())
        assert told == [(), (), ("sharing quotas",), ("sharing quotas",)]
        await asyncio.sleep(MENDED_SECONDS)
        assert background.failing() == ()
        keeping.cancel()

    run(story)


async def for_ever() -> None:
    await asyncio.Event().wait()


def test_a_link_that_cannot_be_opened_ends_nobodys_work_and_is_told_in_the_status() -> None:
    async def story(_: Random) -> None:
        opening = Odd(10**6)

        async def opened(_: object) -> None:
            await opening()

        async with bench() as service:
            quotas_are_shared: Any = SimpleNamespace(run=for_ever)  # by the bench
            bus: Any = SimpleNamespace(open=opened)
            running = Running(
                replace(service.service, dispatcher=quotas_are_shared),
                bus,
                AsyncExitStack(),
                Telemetry(),
            )
            await service.run(b'{"prompt": "a"}\n')
            await asyncio.sleep(TOLD_AFTER * PAUSE_SECONDS)
            assert len(opening.started) == TOLD_AFTER
            await service.run(b'{"prompt": "b"}\n', "b.jsonl")
            await asyncio.sleep(2 * TELL_SECONDS)
            (told,) = (await service.ask("GET", "/api/deployments")).body["data"]
            assert (told["failing"], told["calls"]) == (["opening links"], 2)
            assert running.service

    run(story)


@pytest.mark.parametrize("broken", SWEPT)
async def test_what_the_sweep_does_does_not_wait_for_what_fails(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def look(name: str) -> Callable[[], Awaitable[None]]:
        async def looked() -> None:
            done.append(name)
            if name == broken:
                raise AttributeError(name)

        return looked

    async def running() -> SimpleNamespace:
        return SimpleNamespace(
            sweeper=SimpleNamespace(run=look("sweeper")),
            inbox=SimpleNamespace(drain_dead=look("inbox")),
            nightly=SimpleNamespace(resume=look("nightly")),
            drops=SimpleNamespace(run=look("drops")),
            retention=SimpleNamespace(run=look("retention")),
        )

    monkeypatch.setattr(function_app, "service", running)
    with pytest.raises(Exception, match="not all was looked after") as told:
        await function_app.sweep._function.get_user_function()(None)
    assert done == [*SWEPT]
    assert broken in repr(told.value)
