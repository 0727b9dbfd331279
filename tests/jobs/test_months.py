"""What a tenant's jobs of a month may cost together, and what of it comes back."""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.budgets import MonthBudget
from schemas.jobs import JobState
from schemas.messages import Announcement
from schemas.money import MILLION
from schemas.tenants import Tenant
from tests.doubles.service import Answering, Bench, bench
from tests.shards.test_caps import deployment, rows
from workers.jobs.budget import picos, reserved, settled
from workers.jobs.months import MonthlyBudgets
from workers.jobs.outbox import JOBS
from workers.ports import BlobRef

BLUE = {"blue": Tenant(max_cost_per_month=0.5), "default": Tenant()}
MONTH = BlobRef("state", "budgets/blue/2027-01")
UNIT = MILLION * MILLION


async def asked(service: Bench, name: str, **options: Any) -> None:
    await service.drop(rows(20), name, container="inputs")
    request = {"container": "inputs", "name": name, "tenant": "blue"}
    await service.say({**request, "options": {"max_tokens": 5, **options}})


async def month(service: Bench) -> Mapping[str, Any]:
    return json.loads((await service.blobs.read(MONTH)).data)  # type: ignore[no-any-return]


async def test_a_job_reserves_its_cap_and_returns_what_it_did_not_spend() -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle(lambda delivery: delivery.queue == "shards")
        [[job, cost]] = (await month(service))["reserved"].items()
        assert cost == 3 * UNIT // 10
        await service.settle()
        ended = await service.ended()
        assert ended.counts["succeeded"] == 20
        told = await month(service)
    assert (job, told["reserved"]) == (ended.event["data"]["job"], {})
    assert told["spent"] == 20 * (7 + 5 * 2) * MILLION


async def test_what_does_not_fit_the_month_fails_before_its_first_call() -> None:
    endpoint = Answering()
    async with bench(deployments=(deployment(),), tenants=BLUE, endpoint=endpoint) as service:
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle(lambda delivery: delivery.queue == "shards")
        await asked(service, "b.jsonl", max_cost="0.3")
        while delivery := service.bus.receive(JOBS):  # type: ignore[attr-defined]
            await service.deliver(JOBS, delivery.message.body)
            service.bus.complete(delivery)  # type: ignore[attr-defined]
        failing = [each["data"] for each in service.events if each["data"].get("reason")]
        assert {each["input"] for each in failing} == {"inputs/b.jsonl"}
        assert failing[0]["reason"]["code"] == "budget_exceeded"
        assert endpoint.asked == []
        await service.settle()
        assert len(endpoint.asked) == 20
        # There is room again.
        await asked(service, "c.jsonl", max_cost="0.3")
        await service.settle()
        assert (await service.ended()).counts["succeeded"] == 20


async def test_a_job_without_a_cap_fails_where_its_month_has_one() -> None:
    endpoint = Answering()
    async with bench(deployments=(deployment(),), tenants=BLUE, endpoint=endpoint) as service:
        await asked(service, "a.jsonl")
        await service.settle()
        ended = await service.ended()
    assert (ended.state, ended.reason["code"]) == ("failed", "max_cost_missing")
    assert endpoint.asked == []


async def test_a_repeat_that_comes_when_its_job_has_ended_reserves_nothing() -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle()
        ended = await service.ended()
        job = await service.store.job(ended.event["data"]["job"])
        assert job is not None
        # A worker was slow: it had looked before the job ended, and reserves only now.
        months = MonthlyBudgets(service.store, rng=service.runner._rng)
        assert await months.reserve(job, 0.5) is None
        assert (await month(service))["reserved"] != {}
        again = Announcement(
            **{name: getattr(job, name) for name in ("container", "name", "etag", "size")},
            job=job.id,
            tenant=job.tenant,
            door=job.door,
        )
        await service.service.intake.run(again, repeated=True)
        assert (await month(service))["reserved"] == {}


async def test_settling_twice_counts_once() -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle()
        ended = await service.ended()
        job = await service.store.job(ended.event["data"]["job"])
        assert job is not None
        before = await month(service)
        state = JobState(revision=1, state="completed")
        await MonthlyBudgets(service.store, rng=service.runner._rng).settle(job, state)
        assert await month(service) == before


steps = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(1, 60), st.integers(0, 60), st.booleans()),
    max_size=40,
)


@given(cap=st.integers(0, 100), steps=steps)
def test_what_is_spent_and_reserved_is_never_above_the_cap(
    cap: int, steps: list[tuple[str, int, int, bool]]
) -> None:
    held, caps = MonthBudget(), dict[str, int]()
    for job, cost, spent, ends in steps:
        if ends:
            held = settled(held, job, min(spent, caps.get(job, 0)))
            caps.pop(job, None)
        else:
            held = reserved(held, job, cost, cap)
            if job in held.reserved:
                caps.setdefault(job, cost)
        assert held.reserved == caps
        assert held.spent + sum(held.reserved.values()) <= max(cap, 0)
        assert settled(held, "nobody", 5) is held


def test_an_amount_of_the_setting_is_taken_as_it_is_written() -> None:
    assert picos(0.1) == UNIT // 10
    assert picos(None) > picos(1_000_000)
