"""The timer's look: what is odd about one job or dead letter hides none of the others."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from random import Random

import pytest

from schemas.jobs import Asked
from schemas.messages import JobRequest
from tests.doubles.bus import MemoryBus
from tests.doubles.service import bench
from tests.simulation.virtual_time import run
from workers.inbox import DEAD_TRIES
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


def test_what_was_rejected_meanwhile_becomes_no_job_by_the_sweepers_announcement() -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            assert isinstance(service.bus, MemoryBus)
            await service.drop(b'{"prompt": "a"}\n')
            request = {"type": "request", "container": "prompts", "name": "in.jsonl"}
            message = Received(json.dumps(request).encode(), message_id="m")
            announced = await service.service.doors.announced(
                JobRequest.model_validate(request), Asked(message_id="m")
            )
            # Its handler died behind the marker, and the sweeper announces it again.
            await service.store.open(announced)
            await asyncio.sleep(2 * LOOK_SECONDS)
            await service.sweeper.run()
            await service.sweeper.run()
            dead = replace(message, properties={"tries": str(DEAD_TRIES)})
            await service.inbox.dead_jobs(dead)
            sent = service.bus.waiting(JOBS)
            await service.settle()
            for each in sent:
                again = Received(each.body, each.message_id, properties=each.properties)
                given_up = {**again.properties, "tries": str(DEAD_TRIES)}
                await service.inbox.dead_jobs(replace(again, properties=given_up))
            assert sent
            assert await service.store.job(announced.job) is None
            assert not await service.store.is_open(announced.job)
            assert [event["type"] for event in service.events] == ["job.rejected"]

    run(story)


def test_what_was_rejected_while_the_sweeper_could_not_announce_it_is_not_marked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(*_: object) -> None:
        raise Unavailable

    async def story(_: Random) -> None:
        async with bench() as service:
            await service.drop(b'{"prompt": "a"}\n')
            request = JobRequest(container="prompts", name="in.jsonl")
            announced = await service.service.doors.announced(request, Asked(message_id="m"))
            monkeypatch.setattr(service.bus, "send", away)
            await service.service.doors.send(announced, repeated=True, marked=True)
            assert not await service.store.is_open(announced.job)
            await service.service.doors.send(announced)
            assert await service.store.is_open(announced.job)

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
