"""What comes in at the doors, and which job it becomes."""

import json
from typing import Any

import pytest

from schemas.jobs import Asked, JobOptions
from schemas.messages import JobRequest
from tests.doubles.blobs import MemoryBlob, MemoryBlobs
from tests.doubles.faults import FaultyBlobs
from tests.doubles.service import EPOCH, Bench, bench
from workers.inbox import Received
from workers.ports import BlobInfo, BlobRef

ROWS = b'{"prompt": "p"}\n{"prompt": "q"}\n'
REQUEST = {"container": "prompts", "name": "in.jsonl"}


def jobs_of(service: Bench) -> set[str]:
    """The jobs that events tell of."""
    return {event["data"]["job"] for event in service.events if "job" in event["data"]}


@pytest.mark.parametrize("dropped_first", [True, False])
async def test_one_file_dropped_and_enqueued_without_options_is_one_job(
    *, dropped_first: bool
) -> None:
    async with bench() as service:
        await service.drop(ROWS, options={"max_tokens": 5})
        if dropped_first:
            await service.announce()
        await service.say(REQUEST)
        await service.settle()
        await service.announce()
        await service.settle()
        assert len(jobs_of(service)) == 1
        assert len(service.endpoint.asked) == 2
        assert (await service.ended()).manifest["options"]["max_tokens"] == 5


async def test_no_options_that_are_given_are_options() -> None:
    async with bench() as service:
        await service.run(ROWS, options={"max_tokens": 5})
        await service.say(REQUEST | {"options": {}})
        await service.settle()
        assert len(jobs_of(service)) == 2
        assert "max_tokens" not in (await service.ended()).manifest["options"]


def answers(service: Bench) -> list[dict[str, Any]]:
    """The data of events that answer requests for what is a job already."""
    return [event["data"] for event in service.events if event["type"] == "job.known"]


async def ask(service: Bench, message_id: str | None, *, deliveries: int = 1, **more: Any) -> None:
    """A request arrives, and all that follows from it is done."""
    body = json.dumps(REQUEST | more).encode()
    received = Received(
        body, message_id=message_id, deliveries=deliveries, properties={"team": message_id or "-"}
    )
    await service.inbox.jobs(received)
    await service.settle()


async def test_whoever_asks_for_what_is_a_job_already_is_told_of_it() -> None:
    async with bench() as service:
        await service.drop(ROWS, options={"metadata": {"own": "yes"}})
        await ask(service, "first")
        await ask(service, "first", deliveries=2)
        assert answers(service) == []
        for _ in range(2):
            await ask(service, "second")
        await ask(service, None)
        await ask(service, None)
        last = service.events[-1]
        told = answers(service)
        assert [each.get("message_id") for each in told] == ["second", None, None]
        assert {each["job"] for each in told} == jobs_of(service)
        assert {each["state"] for each in told} == {"completed"}
        assert told[0]["results"] == (await service.ended()).folder
        assert told[0]["metadata"] == {"own": "yes", "team": "second"}
        assert (last["type"], last["sequence"]) == ("job.known", "0000000004")
        assert len(service.endpoint.asked) == 2


async def test_a_request_is_answered_while_its_job_is_planned_and_after_a_cancel() -> None:
    async with bench() as service:
        await service.drop(ROWS)
        first = Received(json.dumps(REQUEST).encode(), message_id="first")
        await service.inbox.jobs(first)
        await ask(service, "second")
        job = answers(service)[0]["job"]
        reply = await service.ask("POST", f"/api/jobs/{job}/cancel")
        assert reply.code in (202, 409)
        await service.settle()
        await ask(service, "third")
        assert answers(service)[1]["state"] == (await service.ended()).state
        assert len(jobs_of(service)) == 1


async def test_a_rerun_is_a_job_of_its_own_however_often_it_is_delivered() -> None:
    async with bench() as service:
        await service.drop(ROWS)
        await ask(service, "first")
        await ask(service, "again", rerun=True)
        await ask(service, "again", rerun=True, deliveries=2)
        assert len(jobs_of(service)) == 2
        await ask(service, "once more", rerun=True)
        assert len(jobs_of(service)) == 3
        assert answers(service) == []
        assert len(service.endpoint.asked) == 6


async def test_a_rerun_without_an_id_is_refused() -> None:
    async with bench() as service:
        await service.drop(ROWS)
        await ask(service, None, rerun=True)
        [rejected] = [event["data"] for event in service.events]
        assert rejected["reason"]["code"] == "rerun_unnamed"
        assert "MessageId" in rejected["reason"]["message"]


@pytest.mark.parametrize(("message_id", "answers_told"), [(None, 3), ("a", 1)])
async def test_each_of_equal_messages_that_yield_no_job_is_answered(
    message_id: str | None, answers_told: int
) -> None:
    """With a MessageId they are one message that is delivered again."""
    async with bench() as service:
        for _ in range(3):
            await ask(service, message_id, name="gone.jsonl")
        assert len(service.events) == answers_told
        assert {event["type"] for event in service.events} == {"job.rejected"}
        assert len({event["data"]["rejection"] for event in service.events}) == 1
        listed = (await service.ask("GET", "/api/jobs", state="rejected")).body["data"]
        assert len(listed) == 1


async def test_a_file_whose_ended_job_was_deleted_is_not_run_again() -> None:
    async with bench() as service:
        await service.run(ROWS, container="nightly")
        [job] = jobs_of(service)
        blobs = stored(service)
        for ref in [ref for ref in blobs if ref.name.startswith(f"jobs/{job}/")]:
            del blobs[ref]
    async with bench(blobs=service.blobs) as later:
        await later.service.nightly.run()
        await later.announce(container="nightly")
        await later.settle()
        assert (later.endpoint.asked, later.events) == ([], [])
        await ask(later, "late", container="nightly")
        [told] = answers(later)
        assert (told["job"], told["state"]) == (job, "completed")
        reply = await later.ask("GET", f"/api/jobs/{job}")
        assert (reply.code, reply.body["state"]) == (200, "completed")
        listed = await later.ask("GET", "/api/jobs")
        assert [each["state"] for each in listed.body["data"]] == ["completed"]
        assert (await later.ask("GET", "/api/jobs", after=job)).body["data"] == []
        assert (await later.ask("POST", f"/api/jobs/{job}/cancel")).code == 409


async def test_the_end_is_remembered_before_the_marker_goes() -> None:
    order: list[str] = []

    def note(kind: str, name: str, phase: str) -> None:
        if phase == "after" and ("done/" in name or "open/" in name):
            order.append(f"{kind} {name.split('/')[1]}")

    blobs = FaultyBlobs(MemoryBlobs(lambda: EPOCH), note)
    async with bench(blobs=blobs) as service:
        await service.run(ROWS)
    assert order[-2:] == ["create done", "delete open"]


async def test_a_job_whose_container_is_no_input_any_more_fails_and_says_why() -> None:
    async with bench(input_containers=("prompts",)) as service:
        etag = await service.drop(ROWS)
        request = JobRequest.model_validate(REQUEST)
        announcement = await service.doors.announced(request, Asked(message_id="m"))
        assert announcement.etag == etag
        # Its worker dies between job.json and plan.
        await service.store.open(announcement)
        job = service.service.intake._job(announcement, await head(service), JobOptions(), None)
        await service.store.create_job(job)
    async with bench(blobs=service.blobs, input_containers=("inputs",)) as later:
        await later.doors.send(announcement, repeated=True)
        await later.settle()
        ended = await later.ended()
        assert (ended.state, ended.reason["code"]) == ("failed", "wrong_container")
        assert "inputs" in ended.reason["message"]
        assert later.endpoint.asked == []
        assert not await later.store.is_open(announcement.job)


async def test_what_may_not_become_a_job_any_more_is_told_of_once() -> None:
    async with bench() as service:
        await service.drop(ROWS)
        announcement = await service.doors.announced(JobRequest.model_validate(REQUEST), Asked())
        await service.store.open(announcement)
    async with bench(blobs=service.blobs, input_containers=("inputs",)) as later:
        for _ in range(3):
            async for job, _marked in later.store.open_jobs():
                marked = await later.store.announcement(job)
                assert marked is not None
                await later.doors.send(marked, repeated=True)
            await later.settle()
        assert [event["type"] for event in later.events] == ["job.rejected"]
        assert later.events[0]["data"]["input"] == "prompts/in.jsonl"


async def head(service: Bench) -> BlobInfo:
    return await service.blobs.head(BlobRef("prompts", "in.jsonl"))


def stored(service: Bench) -> dict[BlobRef, MemoryBlob]:
    assert isinstance(service.blobs, MemoryBlobs)
    return service.blobs.blobs
