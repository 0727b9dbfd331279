"""What a tenant's jobs of a month may cost together, and what of it comes back."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.budgets import MonthBudget
from schemas.deployments import prices_of
from schemas.jobs import JobOptions
from schemas.money import MILLION, Price
from schemas.plans import Verdict
from schemas.tenants import Tenant
from tests.api.client import KEYS, Client
from tests.doubles.service import Answering, Bench, bench
from tests.shards.test_caps import deployment, rows
from workers.api.http import HttpCall, JsonReply
from workers.intake.estimating import QuotaEstimator
from workers.intake.pieces import Scanner
from workers.jobs.budget import picos, reserved, settled
from workers.jobs.months import read_month
from workers.jobs.outbox import JOBS
from workers.ports import BlobRef
from workers.ports.errors import Unreadable
from workers.rows.most_tokens import most_tokens
from workers.rows.reading import RowRules
from workers.rows.sizes import MOST_KINDS

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
        assert "may_cost" not in ended.manifest["estimate"]
        told = await month(service)
    assert (job, told["reserved"]) == (ended.event["data"]["job"], {})
    assert told["spent"] == 20 * (7 + 5 * 2) * MILLION


async def test_what_a_month_has_left_is_read_of_what_is_stored() -> None:
    cap = picos(BLUE["blue"].max_cost_per_month)
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        store = service.store
        assert (await read_month(store, "blue", "2027-01")).left(cap) == UNIT // 2
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle(lambda delivery: delivery.queue == "shards")
        assert (await read_month(store, "blue", "2027-01")).left(cap) == UNIT // 5
        assert (await read_month(store, "blue", "2027-02")).left(cap) == UNIT // 2
        await service.settle()
        held = await read_month(store, "blue", "2027-01")
        assert held.left(cap) == UNIT // 2 - 20 * (7 + 5 * 2) * MILLION
        assert held.left(held.spent - 1) == 0
        await service.blobs.delete(MONTH)
        await service.blobs.create(MONTH, b"{")
        with pytest.raises(Unreadable):
            await read_month(store, "blue", "2027-01")


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
        assert failing[0]["reason"]["message"] == (
            "max_cost 0.3 is more than the 0.2 USD left of blue's 0.5 USD for 2027-01 (0.3 "
            "reserved by open jobs): lower it, or drop the file again when other jobs have ended"
        )
        assert endpoint.asked == []
        await service.settle()
        assert len(endpoint.asked) == 20
        # There is room again.
        await asked(service, "c.jsonl", max_cost="0.3")
        await service.settle()
        assert (await service.ended()).counts["succeeded"] == 20


async def test_a_job_that_names_no_cap_reserves_the_most_that_its_rows_can_cost() -> None:
    endpoint = Answering()
    async with bench(deployments=(deployment(),), tenants=BLUE, endpoint=endpoint) as service:
        await asked(service, "a.jsonl")
        await service.settle(lambda delivery: delivery.queue == "shards")
        [cost] = (await month(service))["reserved"].values()
        await service.settle()
        ended = await service.ended()
        bounds = [most_tokens(*each) or (0, 0) for each in endpoint.asked]
        assert cost == sum(prompt + 2 * answer for prompt, answer in bounds) * MILLION
        assert ended.counts["succeeded"] == len(bounds) == 20
        assert ended.manifest["estimate"]["may_cost"] == ended.event["data"]["budget"]["max_cost"]
        told = await month(service)
    assert (told["reserved"], told["spent"]) == ({}, 20 * (7 + 5 * 2) * MILLION)


async def test_what_its_rows_can_cost_is_told_where_the_month_has_no_room_for_it() -> None:
    endpoint = Answering()
    async with bench(deployments=(deployment(),), tenants=BLUE, endpoint=endpoint) as service:
        await asked(service, "a.jsonl", max_tokens=50_000)
        await service.settle()
        ended = await service.ended()
    assert (ended.state, ended.reason["code"]) == ("failed", "budget_exceeded")
    assert "can cost, 2.00" in ended.reason["message"]
    assert "USD, is more than all of blue's 0.5 USD for 2027-01" in ended.reason["message"]
    assert "name a max_cost" in ended.reason["message"]
    assert endpoint.asked == []


async def test_a_row_without_max_tokens_fails_the_job_where_a_month_is_capped() -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        await asked(service, "a.jsonl", max_tokens=None)
        await service.settle()
        ended = await service.ended()
    assert (ended.state, ended.reason["code"]) == ("failed", "max_tokens_missing")


async def test_beyond_so_many_models_the_dearest_price_counts() -> None:
    dear = deployment("dear", model="dear", price=Price(input="10", output="20", currency="USD"))
    data = b"".join(
        orjson.dumps({"model": f"m{n}", "prompt": "hi"}) + b"\n" for n in range(MOST_KINDS + 1)
    )
    scanner = Scanner(RowRules.of(JobOptions(max_tokens=5), max_line_bytes=1000, monthly=True))
    assert sum(1 for rows in scanner.feed(data) for _ in rows) == MOST_KINDS + 1
    assert (len(scanner.most), scanner.most[None][1]) == (MOST_KINDS + 1, 5)
    estimator = QuotaEstimator((deployment(), dear), {}, {})
    prices = prices_of((deployment(), dear))
    assert estimator.may_cost([(None, (7, 5))], prices) == (7 * 10 + 5 * 20) * MILLION


@asynccontextmanager
async def waiting() -> AsyncIterator[tuple[Bench, Answering, str, str]]:
    """A month whose room one job has, and another that waits for it: their ids."""
    endpoint, priced = Answering(), (deployment(),)
    async with bench(deployments=priced, tenants=BLUE, api_keys=KEYS, endpoint=endpoint) as service:
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle(lambda delivery: delivery.queue == "shards")
        await asked(service, "b.jsonl", max_cost="0.3", on_budget="pause")
        while delivery := service.bus.receive(JOBS):  # type: ignore[attr-defined]
            await service.deliver(JOBS, delivery.message.body)
            service.bus.complete(delivery)  # type: ignore[attr-defined]
        told = {each["data"]["input"]: each["data"]["job"] for each in service.events}
        yield service, endpoint, told["inputs/a.jsonl"], told["inputs/b.jsonl"]


async def test_what_waits_for_its_month_says_so_and_begins_when_others_have_ended() -> None:
    async with waiting() as (service, endpoint, first, second):
        reply = await service.api.answer(HttpCall("GET", f"/api/jobs/{second}"))
        assert isinstance(reply, JsonReply)
        told = reply.body
        assert (told["state"], told["waiting"]["reason"]) == ("paused", "budget")
        assert told["waiting"]["message"] == (
            "At the last look max_cost 0.3 was more than what was left of blue's 0.5 USD for "
            "2027-01: the next one is within five minutes, or at once when it is resumed. It "
            "begins by itself when others have ended and there is room, or at a higher cap. To "
            "begin now: cancel it, and send it with a lower max_cost"
        )
        assert service.events[-1]["type"].endswith("job.paused")
        looked = await service.ask("POST", f"/api/jobs/{second}/resume")
        assert (looked.code, looked.body["state"]) == (202, "paused"), "there is no room yet"
        await service.sweeper.run()
        await service.settle(lambda delivery: delivery.queue == "shards")
        assert list((await month(service))["reserved"]) == [first]
        assert endpoint.asked == []
        await service.settle()
        assert (await service.ended()).event["data"]["job"] == first
        await service.sweeper.run()
        await service.settle()
        ended = await service.ended()
    assert (ended.event["data"]["job"], ended.counts["succeeded"]) == (second, 20)


@pytest.mark.parametrize("door", ["/api/jobs/", "/v1/batches/batch_"])
async def test_a_resume_looks_at_once_whether_a_month_has_room(door: str) -> None:
    async with waiting() as (service, endpoint, first, second):
        await service.settle()
        assert (await service.ended()).event["data"]["job"] == first
        stale = (await service.ask("GET", f"/api/jobs/{second}")).body
        assert (stale["state"], stale["waiting"]["reason"]) == ("paused", "budget")
        if door == "/api/jobs/":
            assert (await service.ask("POST", f"{door}{second}/resume")).code == 202
        else:
            status, _ = await Client(service, "blue").ask("POST", f"{door}{second}/resume")
            assert status == 200
        await service.settle()
        ended = await service.ended()
    assert (ended.event["data"]["job"], ended.counts["succeeded"]) == (second, 20)
    assert len(endpoint.asked) == 40, "no sweep has looked at it"


async def test_what_waits_for_its_month_can_be_cancelled() -> None:
    async with waiting() as (service, endpoint, _, second):
        await service.settle()
        assert len(endpoint.asked) == 20
        reply = await service.api.answer(HttpCall("POST", f"/api/jobs/{second}/cancel"))
        assert reply.code == 202
        await service.settle()
        ended = await service.ended()
        assert (ended.event["data"]["job"], ended.state) == (second, "cancelled")
        assert ended.counts["cancelled"] == 20
        assert (await month(service))["reserved"] == {}
    assert len(endpoint.asked) == 20


@pytest.mark.parametrize("paused", [False, True])
async def test_what_waits_for_its_month_ends_with_its_window(paused: bool) -> None:
    async with waiting() as (service, endpoint, _, second):
        if paused:
            await service.ask("POST", f"/api/jobs/{second}/pause")
        await service.settle()
        service.elapsed += 24 * 3600.0 + 1.0
        await service.sweeper.run()
        await service.settle()
        ended = await service.ended()
    assert (ended.event["data"]["job"], ended.state) == (second, "expired")
    assert len(endpoint.asked) == 20


async def test_a_verdict_that_is_found_while_a_job_waits_for_its_month_ends_it() -> None:
    """Two workers planned it, and only the later one saw that nobody serves it."""
    async with waiting() as (service, endpoint, _, second):
        await service.store.create_verdict(second, Verdict(code="no_deployment", message="none"))
        await service.settle()
        await service.sweeper.run()
        await service.settle()
        ended = await service.ended()
    assert (ended.event["data"]["job"], ended.state) == (second, "failed")
    assert ended.reason["code"] == "no_deployment"
    assert len(endpoint.asked) == 20


async def test_what_could_cost_more_than_can_be_counted_is_refused_like_any_other() -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        await asked(service, "a.jsonl", max_tokens=10**12)
        await service.settle()
        ended = await service.ended()
    assert (ended.state, ended.reason["code"]) == ("failed", "budget_exceeded")
    assert "9000000 USD" in ended.reason["message"]


def test_one_deployment_may_be_the_dearest_for_prompts_and_another_for_answers() -> None:
    prices = [Price(input=i, output=o, currency="USD") for i, o in (("10", "1"), ("1", "10"))]
    pair = [deployment(f"d{n}", model="phi", price=price) for n, price in enumerate(prices)]
    most = QuotaEstimator(pair, {}, {}).may_cost([(("chat", "phi"), (1010, 1010))], prices_of(pair))
    # As rows: (1000, 10) costs most at the first, (10, 1000) at the second.
    assert most >= (1000 * 10 + 10 * 1 + 10 * 1 + 1000 * 10) * MILLION


async def test_what_is_paused_while_it_waits_for_its_month_does_not_begin_by_itself() -> None:
    async with waiting() as (service, endpoint, first, second):
        told = await service.ask("POST", f"/api/jobs/{second}/pause")
        assert (told.code, told.body["state"], "waiting" in told.body) == (202, "paused", False)
        assert service.events[-1]["type"].endswith("job.paused")
        assert (await service.ask("POST", f"/api/jobs/{second}/pause")).code == 202
        await service.settle()
        await service.sweeper.run()
        await service.settle()
        assert (await service.ended()).event["data"]["job"] == first
        assert ((await month(service))["reserved"], len(endpoint.asked)) == ({}, 20)
        told = await service.ask("POST", f"/api/jobs/{second}/resume")
        assert (told.code, told.body["waiting"]["reason"]) == (202, "budget")
        await service.sweeper.run()
        await service.settle()
        ended = await service.ended()
    assert (ended.event["data"]["job"], ended.counts["succeeded"]) == (second, 20)


async def test_the_door_of_openai_pauses_what_waits_for_its_month_too() -> None:
    async with waiting() as (service, endpoint, _, second):
        client, batch = Client(service, "blue"), f"/v1/batches/batch_{second}"
        status, told = await client.ask("POST", f"{batch}/resume")
        assert (status, told["phi3"]["paused"]) == (200, True), "there is no room yet"
        status, told = await client.ask("POST", f"{batch}/pause")
        assert (status, told["phi3"]["paused"], told["phi3"].get("waiting")) == (200, True, None)
        await service.settle()
        await service.sweeper.run()
        await service.settle()
        assert len(endpoint.asked) == 20
        status, told = await client.ask("POST", f"{batch}/resume")
        assert (status, told["phi3"]["waiting"]["reason"]) == (200, "budget")
        status, told = await client.ask("POST", f"{batch}/cancel")
        await service.settle()
        ended = await service.ended()
    assert (ended.event["data"]["job"], ended.counts["cancelled"]) == (second, 20)


async def test_what_no_month_could_have_room_for_does_not_wait() -> None:
    endpoint = Answering()
    async with bench(deployments=(deployment(),), tenants=BLUE, endpoint=endpoint) as service:
        await asked(service, "a.jsonl", max_cost="0.6", on_budget="pause")
        await service.settle()
        ended = await service.ended()
    assert (ended.state, ended.reason["code"]) == ("failed", "budget_exceeded")
    assert (
        "max_cost 0.6 is more than all of blue's 0.5 USD for 2027-01: lower it"
        in ended.reason["message"]
    )
    assert endpoint.asked == []


async def test_what_waits_is_told_when_only_a_higher_cap_could_let_it_begin() -> None:
    async with waiting() as (service, _, _, second):
        await service.settle()
        held = await month(service)
        held = {**held, "spent": UNIT // 2 - 1}
        await service.blobs.delete(MONTH)
        await service.blobs.create(MONTH, json.dumps(held).encode())
        before = (await service.ask("GET", f"/api/jobs/{second}")).body["waiting"]
        await service.sweeper.run()
        await service.settle()
        told = (await service.ask("GET", f"/api/jobs/{second}")).body["waiting"]
    assert "when others have ended" in before["message"]
    assert "at a higher cap only" in told["message"]
    assert told["since"] == before["since"]


steps = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(1, 60), st.integers(0, 60), st.booleans()),
    max_size=40,
)


@given(cap=st.integers(0, 100).map(MILLION.__mul__), steps=steps)
def test_what_is_spent_and_reserved_is_never_above_the_cap(
    cap: int, steps: list[tuple[str, int, int, bool]]
) -> None:
    held, caps = MonthBudget(), dict[str, int]()
    for job, micros, spent, ends in steps:
        # Caps are whole millionths, and what is spent is not.
        cost = micros * MILLION
        if ends:
            held = settled(held, job, min(spent * (MILLION - 1), caps.get(job, 0)))
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
