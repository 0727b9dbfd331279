"""What is told of a job where two change its state at the same time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any

import pytest

from schemas.jobs import JobState, Waiting
from tests.doubles.service import EPOCH, bench
from workers.jobs import lifecycle
from workers.jobs.history import History
from workers.jobs.outbox import SHARDS, Outbox
from workers.jobs.store import Held, JobStore
from workers.jobs.transitions import TURN_SECONDS, Transition, Transitions
from workers.ports.telemetry import Telemetry

ROWS = b'{"prompt": "a"}\n{"prompt": "b"}\n'


def reported(state: JobState | None, _repeated: bool) -> lifecycle.Change:
    assert state is not None
    return lifecycle.report(state, {0: lifecycle.Progress(1)}, EPOCH + 60.0)


def waits(state: JobState | None, _repeated: bool) -> lifecycle.Change:
    assert state is not None
    return lifecycle.wait(state, Waiting(reason="quota", deployment="phi", since=EPOCH))


class Contended(JobStore):
    """Another worker makes the same transition just before."""

    def __init__(self, store: JobStore, other: Transitions, transition: Transition) -> None:
        super().__init__(
            store.blobs,
            state_container=store.state_container,
            results_container=store.results_container,
        )
        self._other: Transitions | None = other
        self._transition = transition

    async def swap(self, job: str, before: Held | None, after: JobState) -> bool:
        other, self._other = self._other, None
        found = await self.job(job)
        if other is not None and found is not None:
            await other.take(found, self._transition)
        return await super().swap(job, before, after)


async def events_of(transition: Transition) -> list[str]:
    """What two workers tell who make one transition at the same time, after the first event."""
    async with bench() as made:
        await made.drop(ROWS)
        await made.announce()
        await made.settle(stop=lambda delivery: delivery.queue == SHARDS)
        known = len(made.events)
        job = await made.store.job(made.events[-1]["data"]["job"])
        assert job is not None

        def transitions(store: JobStore) -> Transitions:
            outbox = Outbox(made.bus, results_container="results", clock=made.clock, rng=Random(0))
            return Transitions(store, outbox, History(store), rng=Random(0), telemetry=Telemetry())

        contended = Contended(made.store, transitions(made.store), transition)
        await transitions(contended).take(job, transition)
        return [event["type"] for event in made.events[known:]]


async def test_a_report_that_another_worker_has_made_is_told_once() -> None:
    assert await events_of(reported) == ["job.progress"]


async def test_a_wait_that_another_worker_has_noted_is_told_once() -> None:
    assert await events_of(waits) == ["job.progress"]


class Slow(JobStore):
    """Storage takes its time: whoever asks meanwhile reads what stood before. Counts the swaps."""

    def __init__(self, store: JobStore) -> None:
        super().__init__(
            store.blobs,
            state_container=store.state_container,
            results_container=store.results_container,
        )
        self.swaps = 0
        self.seconds = 0.01
        self.asked = asyncio.Event()

    async def swap(self, job: str, before: Held | None, after: JobState) -> bool:
        self.swaps += 1
        self.asked.set()
        await asyncio.sleep(self.seconds)
        return await super().swap(job, before, after)


def counted(state: JobState | None, _repeated: bool) -> lifecycle.Change:
    assert state is not None
    return lifecycle.Change(state.model_copy(update={"nudges": state.nudges + 1}))


@asynccontextmanager
async def process() -> AsyncIterator[
    tuple[Slow, Callable[[], Coroutine[Any, Any, JobState | None]]]
]:
    """A process over slow storage, and what changes its job once."""
    async with bench() as made:
        await made.drop(ROWS)
        await made.announce()
        await made.settle(stop=lambda delivery: delivery.queue == SHARDS)
        job = await made.store.job(made.events[-1]["data"]["job"])
        assert job is not None
        slow = Slow(made.store)
        outbox = Outbox(made.bus, results_container="results", clock=made.clock, rng=Random(0))
        one = Transitions(slow, outbox, History(slow), rng=Random(0), telemetry=Telemetry())
        yield slow, partial(one.take, job, counted)


async def test_changes_of_one_process_take_turns_and_repeat_nothing() -> None:
    async with process() as (slow, change):
        states = await asyncio.gather(*(change() for _ in range(16)))
    assert slow.swaps == 16
    assert max(state.nudges for state in states if state) == 16


@pytest.mark.slow
async def test_storage_that_hangs_holds_nobody_up_for_long() -> None:
    async with process() as (slow, change):
        slow.seconds = 3600.0
        first = asyncio.create_task(change())
        await slow.asked.wait()
        slow.seconds = 0.01
        began = asyncio.get_running_loop().time()
        await change()
        assert asyncio.get_running_loop().time() - began < 2 * TURN_SECONDS
        first.cancel()
