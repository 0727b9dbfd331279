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


class Abandoned(Odd):
    """Work that waits for what a library has given up."""

    async def __call__(self) -> None:
        self.started.append(asyncio.get_running_loop().time())
        given_up = asyncio.get_running_loop().create_future()
        given_up.cancel()
        await given_up


def test_work_that_was_cancelled_from_within_is_started_again_and_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(_: Random) -> None:
        background, abandoned = Background(), Abandoned(0)
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(background.keep("sharing quotas", abandoned))
            await asyncio.sleep(TOLD_AFTER * PAUSE_SECONDS - 0.1)
            assert len(abandoned.started) == TOLD_AFTER
            assert background.failing() == ("sharing quotas",)
            keeping.cancel()
        assert keeping.cancelled()
        assert len(abandoned.started) == TOLD_AFTER

    with caplog.at_level(logging.ERROR):
        run(story)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["[TASK_BUG]"] * 3


def test_work_that_is_cancelled_from_outside_ends() -> None:
    async def story(_: Random) -> None:
        runs_on = Odd(0)
        keeping = asyncio.create_task(Background().keep("sharing quotas", runs_on))
        await asyncio.sleep(1.0)
        keeping.cancel()
        await asyncio.wait([keeping])
        await asyncio.sleep(2 * PAUSE_SECONDS)
        assert (keeping.cancelled(), len(runs_on.started)) == (True, 1)

    run(story)


def test_a_process_that_has_asked_nothing_tells_of_its_failing_tasks_while_they_fail() -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            parts = service.service

            async def failing() -> list[str]:
                (told,) = (await service.ask("GET", "/api/deployments")).body["data"]
                return list(told["failing"])

            odd = Odd(30)
            keeping = asyncio.create_task(parts.background.keep("opening links", odd))
            telling = asyncio.create_task(parts.reporter.run())
            try:
                await asyncio.sleep(TOLD_AFTER * PAUSE_SECONDS + 2.0)
                assert await failing() == ["opening links"]
                await asyncio.sleep(100.0)
                assert await failing() == ["opening links"]
                await asyncio.sleep(30 * PAUSE_SECONDS + MENDED_SECONDS)
                assert await failing() == []
            finally:
                keeping.cancel()
                telling.cancel()

    run(story)


def test_telling_of_one_deployment_that_is_cancelled_from_within_ends_the_telling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            reporter = service.service.reporter
            monkeypatch.setattr(reporter, "_attend", lambda _lane: Abandoned(0)())
            with pytest.raises(ExceptionGroup, match="unhandled") as told:
                await reporter.run()
            assert "cancelled from within" in repr(told.value)

    run(story)


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
