"""The timer's look: what is odd about one job or dead letter hides none of the others."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from tests.doubles.bus import MemoryBus
from tests.doubles.service import bench
from tests.simulation.virtual_time import run
from workers.jobs.outbox import JOBS, SHARDS, WEBHOOKS
from workers.jobs.store import Held, JobStore
from workers.ports import BlobRef, Received
from workers.ports.errors import Unavailable
from workers.sweeper import LOOK_SECONDS


def test_a_job_that_is_odd_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
                await service.drop(b'{"prompt": "a"}\n', name)
                await service.announce(name)
            looked: list[str] = []
            state = JobStore.state

            async def odd(store: JobStore, job: str) -> Held | None:
                looked.append(job)
                if len(looked) == 1:
                    raise KeyError("nobody expected this")
                return await state(store, job)

            monkeypatch.setattr(JobStore, "state", odd)
            await asyncio.sleep(LOOK_SECONDS + 1)
            await service.sweeper.run()
            assert len(set(looked)) == 3

    run(story)


def test_help_that_was_due_at_a_look_that_failed_comes_at_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            announced: list[float] = []
            store, looks = service.sweeper._store, 0

            async def nothing_yet(_: JobStore, _job: str) -> None:
                nonlocal looks
                looks += 1
                if looks == 4:
                    raise Unavailable

            async def told(_: JobStore, _job: str) -> None:
                announced.append(asyncio.get_running_loop().time() // LOOK_SECONDS)

            await store.blobs.create(BlobRef(store.state_container, "open/a"), b"")
            monkeypatch.setattr(JobStore, "job", nothing_yet)
            monkeypatch.setattr(JobStore, "announcement", told)
            for _look in range(6):
                await asyncio.sleep(LOOK_SECONDS + 1)
                await service.sweeper.run()
            assert announced == [1, 2, 5]

    run(story)


def test_dead_letters_of_one_queue_do_not_hide_those_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            asked: list[str] = []

            async def odd(
                bus: MemoryBus,
                queue: str,
                handle: Callable[[Received], Awaitable[None]],
                most: int,
            ) -> int:
                asked.append(queue)
                if queue == JOBS:
                    raise KeyError("nobody expected this")
                return 0

            monkeypatch.setattr(MemoryBus, "take_dead", odd)
            await service.inbox.drain_dead()
            assert asked == [JOBS, SHARDS, WEBHOOKS]

    run(story)
