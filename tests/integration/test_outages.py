"""What no redelivery brings back: files announced while a service is out of reach, plans that no
worker survives. And messages that travel again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any

import pytest

from tests.doubles.blobs import MemoryBlobs
from tests.doubles.bus import Delivery, MemoryBus
from tests.doubles.faults import FaultyBlobs, Phase
from tests.doubles.service import EPOCH, Bench, bench
from tests.simulation.virtual_time import run
from workers.inbox import DEAD_RETRY_SECONDS, DEAD_TRIES
from workers.intake import nightly, plans
from workers.jobs import helping, lifecycle
from workers.jobs.outbox import JOBS, SHARDS
from workers.jobs.store import Held, JobStore
from workers.ports import BlobInfo, BlobRef, OutMessage, Received
from workers.ports.errors import StorageError, Unavailable, Unreadable
from workers.sweeper import LOOK_SECONDS

ROWS = b'{"prompt": "a"}\n{"prompt": "b"}\n'


class OutOfReach:
    """While it is on, the bus takes nothing for `jobs`, and the storage lists nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = True
        send, listed = MemoryBus.send, MemoryBlobs.list

        async def lossy_send(bus: MemoryBus, entity: str, messages: Sequence[OutMessage]) -> None:
            if self.on and entity == JOBS:
                raise Unavailable
            await send(bus, entity, messages)

        async def lossy_list(
            blobs: MemoryBlobs, container: str, prefix: str = "", **paging: Any
        ) -> AsyncIterator[BlobInfo]:
            if self.on and container == "nightly":
                raise Unavailable
            async for info in listed(blobs, container, prefix, **paging):
                yield info

        monkeypatch.setattr(MemoryBus, "send", lossy_send)
        monkeypatch.setattr(MemoryBlobs, "list", lossy_list)


async def look(service: Bench) -> None:
    """Time passes, and the sweeper looks."""
    await asyncio.sleep(LOOK_SECONDS + 1.0)
    await service.sweeper.run()
    await service.settle()


def test_a_file_dropped_while_the_bus_is_away_is_run_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            await service.drop(ROWS)
            away = OutOfReach(monkeypatch)
            await service.doors.announce("prompts", "in.jsonl")
            away.on = False
            await look(service)
            assert (await service.ended()).counts["succeeded"] == 2

    run(story)


def test_a_night_waits_for_storage_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            await service.drop(ROWS, container="nightly")
            away = OutOfReach(monkeypatch)
            night = asyncio.create_task(service.service.nightly.run())
            await asyncio.sleep(nightly.PATIENCE_SECONDS / 2)
            away.on = False
            assert await night == 1
            await service.settle()
            assert (await service.ended()).counts["succeeded"] == 2

    run(story)


def test_a_night_ends_before_its_timer_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            OutOfReach(monkeypatch)
            with pytest.raises(Unavailable):
                await service.service.nightly.run()
            assert service.clock() - EPOCH < 1800.0

    run(story)


def test_a_file_that_kills_whoever_plans_it_fails_its_job_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            monkeypatch.setattr(plans, "scan", killed)
            await service.drop(ROWS, options={"completion_window": "1h"})
            for _try in range(40):
                with contextlib.suppress(Killed):
                    await service.announce()
                await asyncio.sleep(600.0)
            await service.settle()
            ended = await service.ended()
            assert (ended.state, ended.reason["code"]) == ("failed", "not_planned")
            assert ended.counts["total"] == 0

    run(story)


class Killed(Exception):
    """Stands for the end of a process."""


async def killed(*_: object) -> None:
    raise Killed


async def test_http_says_when_storage_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise Unavailable

    async with bench() as service:
        monkeypatch.setattr(MemoryBlobs, "read", away)
        for reply in (
            await service.ask("GET", "/api/jobs/a"),
            await service.ask("POST", "/api/jobs/a/cancel"),
        ):
            assert (reply.code, reply.body["error"]["code"]) == (503, "unavailable")


def test_a_dead_shard_waits_and_comes_again_as_a_repeat() -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            await service.drop(ROWS)
            await service.announce()
            assert isinstance(service.bus, MemoryBus)
            dead = service.bus.receive(SHARDS)
            assert dead is not None
            service.bus.complete(dead)
            await service.inbox.dead_shards(Received(dead.message.body, deliveries=11))
            assert service.bus.receive(SHARDS) is None
            await asyncio.sleep(61.0)
            copy = service.bus.receive(SHARDS)
            assert copy is not None
            assert copy.message.properties == {"again": "true"}
            assert copy.message.body == dead.message.body

    run(story)


async def test_a_trace_goes_with_the_messages_and_events_of_its_job() -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    async with bench() as service:
        assert isinstance(service.bus, MemoryBus)
        await service.drop(ROWS)
        request = {"container": "prompts", "name": "in.jsonl"}
        await service.say(request, **{"Diagnostic-Id": trace, "team": "search"})
        sent: list[str | None] = []

        def note(delivery: Delivery) -> bool:
            sent.append(delivery.message.properties.get("Diagnostic-Id"))
            return False

        await service.settle(note)
        assert len(sent) == 3  # the request, its shard, finish
        assert {*sent, *(event["traceparent"] for event in service.events)} == {trace}
        assert (await service.ended()).event["data"]["metadata"] == {"team": "search"}


async def test_what_is_no_trace_is_not_carried() -> None:
    async with bench() as service:
        await service.say({"container": "prompts", "name": "gone.jsonl"}, traceparent="x" * 999)
        await service.settle()
        (event,) = service.events
        assert "traceparent" not in event


async def test_options_of_a_message_are_bounded_as_those_of_a_file() -> None:
    async with bench() as service:
        await service.drop(ROWS)
        options = {"system_prompt": "x" * 70_000}
        await service.say({"container": "prompts", "name": "in.jsonl", "options": options})
        await service.settle()
        (event,) = service.events
        assert event["type"] == "job.rejected"
        assert "65,536 bytes: shorten them" in event["data"]["reason"]["message"]


async def test_a_damaged_document_hides_no_other_job_and_is_not_quoted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench() as service:
        for name in ("a.jsonl", "b.jsonl"):
            await service.drop(ROWS, name)
            await service.announce(name)
        first, second = [job async for job, _ in service.store.open_jobs()]
        ref = service.store.ref(first, "state.json")
        etag = (await service.blobs.head(ref)).etag
        await service.blobs.replace(ref, b'{"revision": "a secret prompt"}', etag)
        looked: list[str] = []
        read = JobStore.state

        async def noted(store: JobStore, job: str) -> Held | None:
            looked.append(job)
            return await read(store, job)

        monkeypatch.setattr(JobStore, "state", noted)
        await service.sweeper.run()
        assert looked == [first, second]
        assert "JobState is not what this service writes" in caplog.text
        assert "secret" not in caplog.text


async def test_a_plan_without_a_version_is_of_the_first() -> None:
    async with bench() as service:
        await service.drop(ROWS)
        await service.announce()
        (job,) = [job async for job, _ in service.store.open_jobs()]
        data = (await service.blobs.read(service.store.ref(job, "plan.jsonl"))).data
        assert b'"schema_version":1' in data
        assert (await service.store.planned(job, 0)).rows == 2


async def test_a_paused_job_with_nothing_left_finishes_and_is_not_paused() -> None:
    async with bench() as service:
        await service.drop(ROWS)
        await service.announce()
        await service.settle(lambda delivery: b'"finish"' in delivery.message.body)
        (job,) = [job async for job, _ in service.store.open_jobs()]
        assert (await service.ask("POST", f"/api/jobs/{job}/pause")).code == 202
        await service.settle()
        ended = await service.ended()
        assert ended.state == "completed"
        states = [event["data"]["state"] for event in service.events]
        assert states[-2:] == ["finalizing", "completed"]
        held = await service.store.state(job)
        assert held is not None
        assert not held.state.paused
        assert helping.nudge(held.state, held.state.revision) == lifecycle.NOTHING


@pytest.mark.parametrize(
    "error", [StorageError("refused with 403"), Unreadable("job.json"), Unavailable("away")]
)
def test_a_dead_letter_waits_while_what_decides_about_it_cannot_be_read(error: Exception) -> None:
    async def story(_: Random) -> None:
        loop = asyncio.get_running_loop()
        broken = True

        def fault(kind: str, name: str, phase: Phase) -> None:
            if broken and phase == "before" and name.startswith("state/"):
                raise error

        blobs = FaultyBlobs(MemoryBlobs(lambda: EPOCH + loop.time()), fault)
        async with bench(blobs=blobs) as service:
            await blobs.create(BlobRef("inputs", "in.jsonl"), ROWS)
            body = b'{"container": "inputs", "name": "in.jsonl"}'
            dead = Received(body, message_id="m", properties={"tries": str(DEAD_TRIES)})
            await service.inbox.dead_jobs(dead)
            assert service.events == []
            broken = False
            await service.settle()
            assert service.events == [], "it comes again after a while, not at once"
            await asyncio.sleep(DEAD_RETRY_SECONDS + 1.0)
            await service.settle()
            last = service.events[-1]
            assert (last["type"], last["data"]["counts"]["succeeded"]) == ("job.completed", 2)

    run(story)


@pytest.mark.parametrize("place", ["state/rejected/", "state/index/"])
@pytest.mark.parametrize("phase", ["before", "after"])
def test_what_was_rejected_becomes_no_job_though_storage_failed_meanwhile(
    place: str, phase: Phase
) -> None:
    async def story(_: Random) -> None:
        loop = asyncio.get_running_loop()
        broken = True

        def fault(kind: str, name: str, when: Phase) -> None:
            if broken and kind == "create" and when == phase and name.startswith(place):
                raise Unavailable

        blobs = FaultyBlobs(MemoryBlobs(lambda: EPOCH + loop.time()), fault)
        async with bench(blobs=blobs) as service:
            await blobs.create(BlobRef("inputs", "in.jsonl"), ROWS)
            body = b'{"container": "inputs", "name": "in.jsonl"}'
            dead = Received(body, message_id="m", properties={"tries": str(DEAD_TRIES)})
            await service.inbox.dead_jobs(dead)
            broken = False
            await asyncio.sleep(DEAD_RETRY_SECONDS + 1.0)
            await service.settle()
            assert {event["type"] for event in service.events} == {"job.rejected"}
            assert len({event["id"] for event in service.events}) == 1
            (listed,) = (await service.ask("GET", "/api/jobs")).body["data"]
            assert listed["state"] == "rejected"

    run(story)
