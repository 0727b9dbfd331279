"""What a job reserved of its month goes back once, before its end is told, whatever comes late."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.jobs import Job, JobState
from schemas.messages import Announcement, EventType
from schemas.money import MILLION, Price
from tests.doubles.service import Answering, Bench, bench
from tests.jobs.test_months import BLUE, MONTH, UNIT, asked, month
from tests.shards.test_caps import deployment
from workers.jobs.store import Held
from workers.ports import BlobRef, Stored

COST = 20 * (7 + 5 * 2) * MILLION
"""Of the 20 rows of a job."""


class Died(Exception):
    """The process died here."""


def announcement_of(job: Job) -> Announcement:
    names = ("container", "name", "etag", "size", "tenant", "door")
    return Announcement(job=job.id, **{name: getattr(job, name) for name in names})


async def only_job(service: Bench) -> Job:
    [data] = {each["data"]["job"] for each in service.events}
    job = await service.store.job(data)
    assert job is not None
    return job


async def kept(service: Bench, **month: Any) -> None:
    """Somebody else has changed the month."""
    await service.blobs.delete(MONTH)
    await service.blobs.create(MONTH, json.dumps(month).encode())


async def test_the_room_that_a_job_leaves_is_there_when_its_end_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        outbox, seen = service.inbox._transitions._outbox, list[Mapping[str, Any]]()
        tell = outbox.tell

        async def told(kind: EventType, job: Job, state: JobState | None) -> None:
            if kind == "job.completed":
                seen.append(await month(service))
            await tell(kind, job, state)

        monkeypatch.setattr(outbox, "tell", told)
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle()
    assert [(each["reserved"], each["spent"]) for each in seen] == [({}, COST)]


async def test_who_dies_before_it_tells_of_the_end_has_the_cost_counted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        outbox = service.inbox._transitions._outbox
        tell, deaths = outbox.tell, [Died()]

        async def told(kind: EventType, job: Job, state: JobState | None) -> None:
            if kind == "job.completed" and deaths:
                raise deaths.pop()
            await tell(kind, job, state)

        monkeypatch.setattr(outbox, "tell", told)
        await asked(service, "a.jsonl", max_cost="0.3")
        with pytest.raises(Died):
            await service.settle()
        assert (await month(service))["reserved"] == {}
        await service.sweeper.run()
        await service.settle()
        assert (await service.ended()).counts["succeeded"] == 20
        assert (await month(service))["spent"] == COST


async def test_a_repeat_that_comes_before_the_end_is_remembered_counts_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        store, late = service.store, list[Mapping[str, Any]]()
        end, state_of = store.end, store.state

        async def before(job_id: str) -> Held | None:
            """As it stood when a slow worker looked, once."""
            held = await state_of(job_id)
            monkeypatch.setattr(store, "state", state_of)
            assert held is not None
            going = held.state.model_copy(update={"state": "in_progress"})
            return Held(going, held.etag, held.last_modified)

        async def ended(done: Any) -> None:
            if not late:
                late.append(await month(service))
                monkeypatch.setattr(store, "state", before)
                again = announcement_of(await only_job(service))
                await service.service.intake.run(again, repeated=True)
                late.append(await month(service))
            await end(done)

        monkeypatch.setattr(store, "end", ended)
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle()
        late.append(await month(service))
    assert [(each["reserved"], each["spent"]) for each in late] == [({}, COST)] * 3


async def test_what_has_ended_is_given_no_part_any_more() -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle()
        job, before = await only_job(service), await month(service)
        months = service.inbox._transitions._months
        assert await months.reserve(job, UNIT // 10, 0.5, service.clock()) is not None
        assert await month(service) == before
        await months.settle(job, JobState(revision=1, state="completed"))
        assert await month(service) == before


async def test_what_an_ended_job_left_reserved_is_returned_to_the_next_that_needs_it() -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle()
        job = await only_job(service)
        await kept(service, reserved={job.id: 3 * UNIT // 10}, spent=0)
        await asked(service, "b.jsonl", max_cost="0.4")
        await service.settle()
        assert (await service.ended()).counts["succeeded"] == 20
        told = await month(service)
    assert (told["reserved"], told["spent"]) == ({}, 2 * COST)


class Counted:
    """Counts what is read of jobs that have ended."""

    def __init__(self, service: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self._read, self.names = service.blobs.read, list[str]()
        monkeypatch.setattr(service.blobs, "read", self._counted)

    async def _counted(self, ref: BlobRef) -> Stored:
        if ref.name.startswith("done/"):
            self.names.append(ref.name)
        return await self._read(ref)


async def test_only_as_many_reservations_are_looked_at_as_the_room_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = {f"20270115T080000Z-{n:016x}": UNIT // 10_000 for n in range(1000)}
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle(lambda delivery: delivery.queue == "shards")
        [first] = (await month(service))["reserved"]
        open_one = {first: 3 * UNIT // 10}
        counted = Counted(service, monkeypatch)
        for reserved, cost, looks in (
            # All of those that may have ended would not make room.
            ({**open_one, **dict.fromkeys(others, 1)}, 3 * UNIT // 10, 0),
            # One that is open has not ended, whatever it holds.
            ({first: UNIT // 2}, 3 * UNIT // 10, 0),
            # 250 of them would make room: those that are left, when as many have not ended, do not.
            ({**open_one, **others}, UNIT // 8, 752),
        ):
            await kept(service, reserved=reserved, spent=0)
            counted.names.clear()
            job = (await only_job(service)).model_copy(update={"id": "another"})
            months = service.inbox._transitions._months
            assert await months.reserve(job, cost, 0.5, service.clock()) is not None
            assert len(counted.names) == looks


async def test_a_month_that_cannot_be_read_lets_jobs_wait_and_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = Answering()
    async with bench(deployments=(deployment(),), tenants=BLUE, endpoint=endpoint) as service:
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle(lambda delivery: delivery.queue == "shards")
        whole = await month(service)
        await service.blobs.delete(MONTH)
        await service.blobs.create(MONTH, b'{"reserved": {"a')
        await asked(service, "b.jsonl", max_cost="0.1")
        await service.settle()
        ended = await service.ended()
        assert (ended.event["data"]["input"], ended.counts["succeeded"]) == ("inputs/a.jsonl", 20)
        [waits] = [each["data"] for each in service.events if each["data"]["state"] == "paused"]
        assert waits["input"] == "inputs/b.jsonl"
        assert "state/budgets/blue/2027-01" in waits["waiting"]["message"]
        assert caplog.text.count("[MONTH_UNREAD] state/budgets/blue/2027-01") == 2
        assert len(endpoint.asked) == 20
        # Restored as it was, it counts what a job spent that ended meanwhile.
        await kept(service, **whole)
        await service.sweeper.run()
        await service.settle()
        assert (await service.ended()).event["data"]["input"] == "inputs/b.jsonl"
        assert (await month(service))["spent"] >= COST


async def test_budget_and_costs_are_of_the_same_month(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2027, 2, 1, tzinfo=UTC).timestamp() - 0.0004
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        monkeypatch.setattr(service.service.intake, "_clock", lambda: moment)
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle(lambda delivery: delivery.queue == "shards")
        names = [info.ref.name async for info in service.blobs.list("state", "budgets/")]
        [name] = names
        told = await service.ask("GET", "/api/costs", month=name[-7:], tenant="blue")
    assert [each["jobs"] for each in told.body["data"]] == [1]


async def test_a_month_has_spent_what_its_jobs_cost() -> None:
    odd = deployment().model_copy(
        update={"price": Price(input="0.13", output="0.52", currency="USD")}
    )
    async with bench(deployments=(odd,), tenants=BLUE) as service:
        for name in ("a.jsonl", "b.jsonl"):
            await asked(service, name, max_cost="0.1")
            await service.settle()
        [costs] = (await service.ask("GET", "/api/costs", tenant="blue")).body["data"]
        [told] = (await service.ask("GET", "/api/budgets")).body["data"]
    # 20 rows of 7 and 5 tokens are 70.2 millionths, and told as 71.
    assert costs["costs"][0]["counted"] == told["cost_spent"] == "0.000142"
