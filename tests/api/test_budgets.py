"""`GET /api/budgets`: a tenant's month as it is stored, and which jobs hold and await it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from schemas.listing import index_name, span_of
from schemas.money import MILLION, amount, micros
from schemas.tenants import Tenant
from tests.api.client import KEYS, Client, rows
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.service import Bench, bench
from tests.jobs.test_months import BLUE, MONTH, UNIT, asked, waiting
from tests.shards.test_caps import deployment
from tests.test_readme import section
from workers.ports import BlobRef, Stored

ROOT = Path(__file__).parents[2]
SPENT = amount(20 * (7 + 5 * 2))
"""Of the 20 rows of a job."""


async def read(service: Bench, **query: str) -> list[Any]:
    reply = await service.ask("GET", "/api/budgets", None, None, **query)
    assert reply.code == 200, reply.body
    assert (reply.body["object"], reply.body["has_more"]) == ("list", False)
    return list(reply.body["data"])


async def test_a_month_tells_what_is_spent_reserved_and_left_and_for_whom() -> None:
    async with waiting() as (service, _, first, second):
        [told] = await read(service)
        assert told == {
            "tenant": "blue",
            "month": "2027-01",
            "currency": "USD",
            "max_cost": "0.500000",
            "cost_spent": "0.000000",
            "cost_reserved": "0.300000",
            "cost_left": "0.200000",
            "reserving_jobs": 1,
            "reserving": [{"job": first, "input": "inputs/a.jsonl", "max_cost": "0.300000"}],
            "waiting": [{"job": second, "input": "inputs/b.jsonl", "max_cost": "0.300000"}],
            "open_jobs_not_read": 0,
            "message": None,
        }
        await service.settle()
        [told] = await read(service, tenant="blue", month="2027-01")
        assert (told["cost_spent"], told["cost_reserved"]) == (SPENT, "0.000000")
        assert (told["reserving_jobs"], told["reserving"]) == (0, [])
        assert [each["job"] for each in told["waiting"]] == [second]
        await service.ask("POST", f"/api/jobs/{second}/pause")
        [told] = await read(service)
        assert told["waiting"] == [], "nobody begins it: somebody has paused it"


async def test_jobs_of_a_month_are_called_as_everywhere_else() -> None:
    options = {"max_tokens": 5, "max_cost": "0.3", "on_budget": "pause"}
    async with bench(deployments=(deployment(),), tenants=BLUE, api_keys=KEYS) as service:
        client = Client(service, "blue")
        for name in ("a.jsonl", "h100.jsonl"):
            file = await client.upload(rows(20, model=deployment().model), name)
            await client.create(file["id"], phi3=options)
            await service.settle(lambda delivery: delivery.queue == "shards")
        [told] = await read(service)
    assert [each["filename"] for each in told["reserving"]] == ["a.jsonl"]
    assert [each["filename"] for each in told["waiting"]] == ["h100.jsonl"]


async def test_the_documented_answer_is_what_the_service_gives() -> None:
    told = section((ROOT / "docs/http.md").read_text("utf-8"), "Budgets")
    (example,) = re.findall(r"```json\n(.*?)\n```", told, re.DOTALL)
    expected = json.loads(example)
    (month,) = expected["data"]
    async with waiting() as (service, _, first, second):
        month["reserving"][0]["job"], month["waiting"][0]["job"] = first, second
        reply = await service.ask("GET", "/api/budgets", month="2027-01")
    assert reply.body == expected


async def test_a_job_counts_in_the_month_of_its_creation_alone() -> None:
    async with waiting() as (service, *_):
        [told] = await read(service, month="2027-02")
        assert (told["month"], told["cost_reserved"], told["cost_left"]) == (
            "2027-02",
            "0.000000",
            "0.500000",
        )
        assert told["waiting"] == []
        service.elapsed += 31 * 86400.0
        [told] = await read(service)
        assert told["month"] == "2027-02"


async def test_who_has_no_cap_has_no_month_and_costs_no_look_at_storage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(deployments=(deployment(),), tenants={"default": Tenant()}) as service:
        for name in ("read", "list", "head"):
            monkeypatch.delattr(MemoryBlobs, name)
        assert await read(service) == []
        assert await read(service, tenant="default", month="2026-11") == []


async def test_a_look_reads_so_many_jobs_however_many_are_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_of = list[str]()
    blob_of = MemoryBlobs.read

    async def counted(self: MemoryBlobs, ref: BlobRef) -> Stored:
        read_of.append(ref.name)
        return await blob_of(self, ref)

    monkeypatch.setattr(MemoryBlobs, "read", counted)
    held = {f"reserved-{n}": n for n in range(1000)}
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        await service.blobs.create(MONTH, json.dumps({"reserved": held, "spent": 0}).encode())
        for name in held:
            await service.blobs.create(BlobRef("state", f"open/{name}"), b"{}")
        await opened(service, "other", 1000)
        [told] = await read(service, month="2027-01")
    named = [name for name in read_of if name.endswith("job.json")]
    looked = [name for name in read_of if name.endswith("state.json")]
    assert (len(named), len(looked), len(read_of)) == (50, 200, 251)
    assert not any("reserved" in name for name in looked)
    assert (told["waiting"], told["open_jobs_not_read"]) == ([], 800)


async def test_older_jobs_of_others_and_of_other_months_take_no_places() -> None:
    async with waiting() as (service, _, _, second):
        await opened(service, "early", 300, month="2026-12")
        await opened(service, "late", 300, month="2027-02")
        await opened(service, "free", 300, tenant="default")
        assert isinstance(service.blobs, MemoryBlobs)
        service.blobs.blobs[service.store.marker(second)].last_modified += 60.0
        [told] = await read(service, month="2027-01")
        assert [each["job"] for each in told["waiting"]] == [second]
        assert told["open_jobs_not_read"] == 0
        for month in ("2026-12", "2027-02"):
            [told] = await read(service, month=month)
            assert (told["waiting"], told["open_jobs_not_read"]) == ([], 100)


async def test_tenants_have_as_many_places_each_and_one_that_is_named_has_all() -> None:
    tenants = {**BLUE, "red": Tenant(max_cost_per_month=2.5)}
    async with bench(deployments=(deployment(),), tenants=tenants) as service:
        await opened(service, "many", 500)
        await opened(service, "few", 30, tenant="red")
        blue, red = await read(service, month="2027-01")
        assert (blue["open_jobs_not_read"], red["open_jobs_not_read"]) == (330, 0)
        [blue] = await read(service, month="2027-01", tenant="blue")
        assert blue["open_jobs_not_read"] == 300


async def opened(
    service: Bench, name: str, jobs: int, *, tenant: str = "blue", month: str = "2027-01"
) -> None:
    """Jobs of which there is what tells that they are open, and when they were made."""
    begin, end = span_of(month)
    for n in range(jobs):
        created = begin if n == 0 else end - 0.001 * n
        listed = f"index/{tenant}/{index_name(created, f'{name}-{n}')}"
        for each in (f"open/{name}-{n}", listed):
            await service.blobs.create(BlobRef("state", each), b"{}")


async def test_a_tenant_that_nobody_knows_is_not_found() -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        for path, month in (
            ("/api/budgets", "2027-01"),
            ("/api/costs", "2027-01"),
            ("/api/jobs", ""),
        ):
            query = {"tenant": "zzz", **({"month": month} if month else {})}
            reply = await service.ask("GET", path, None, None, **query)
            error = reply.body["error"]
            assert (reply.code, error["code"], error["param"]) == (404, "unknown_tenant", "tenant")
            assert error["message"] == "there is no tenant 'zzz'; TENANTS knows: blue, default"
        assert (await service.ask("GET", "/api/budgets", month="2027-13")).code == 400


async def test_what_a_tenant_cost_is_told_when_the_settings_have_forgotten_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        await asked(service, "a.jsonl", max_cost="0.3")
        await service.settle()
        monthly = {"month": "2027-01", "tenant": "blue"}
        before = await service.ask("GET", "/api/costs", None, None, **monthly)
        monkeypatch.setattr(service.api._costs, "_tenants", {"default"})
        after = await service.ask("GET", "/api/costs", None, None, **monthly)
    assert (after.code, after.body) == (200, before.body)
    assert after.body["data"][0]["costs"][0]["counted"] == SPENT


async def test_a_month_that_cannot_be_read_says_so_and_leaves_the_others() -> None:
    tenants = {**BLUE, "red": Tenant(max_cost_per_month=2.5)}
    async with bench(deployments=(deployment(),), tenants=tenants) as service:
        await service.blobs.create(MONTH, b'{"reserved": {"a')
        blue, red = await read(service)
    assert "state/budgets/blue/2027-01 cannot be read" in blue["message"]
    assert (blue["cost_spent"], blue["cost_left"]) == (None, None)
    assert (red["tenant"], red["message"], red["cost_left"]) == ("red", None, "2.500000")


async def test_a_month_of_a_newer_release_is_left_as_it_is() -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        await service.blobs.create(MONTH, b'{"schema_version": 99, "reserved": {}, "spent": 0}')
        [told] = await read(service)
    assert told["message"] == (
        "state/budgets/blue/2027-01 was written by a newer release: leave it as it is, and look "
        "again once all instances are upgraded"
    )
    assert (told["cost_spent"], told["cost_left"]) == (None, None)


async def test_what_was_promised_above_a_lowered_cap_leaves_nothing() -> None:
    held = {"reserved": {f"j{n}": UNIT // 100 + n for n in range(60)}, "spent": 3 * MILLION + 1}
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        await service.blobs.create(MONTH, json.dumps(held).encode())
        [told] = await read(service)
    # Rounded up, as every cost is.
    assert (told["cost_spent"], told["cost_reserved"]) == ("0.000004", "0.600001")
    assert (told["cost_left"], told["reserving_jobs"]) == ("0.000000", 60)
    assert [each["job"] for each in told["reserving"]] == [f"j{59 - n}" for n in range(50)]
    assert {each["input"] for each in told["reserving"]} == {None}


async def test_what_a_job_holds_of_its_month_is_told_as_no_option_of_its_own() -> None:
    async with bench(deployments=(deployment(),), tenants=BLUE) as service:
        await asked(service, "named.jsonl", max_cost="0.3")
        await asked(service, "unnamed.jsonl")
        await service.settle()
        found = (await service.ask("GET", "/api/jobs", tenant="blue")).body["data"]
    told = {each["input"]: each["budget"] for each in found}
    assert "of_month" not in told["inputs/named.jsonl"]
    assert told["inputs/unnamed.jsonl"]["of_month"] is True
    assert told["inputs/unnamed.jsonl"]["max_cost"] < "0.300000"


async def test_a_month_counts_numbers_of_whatever_currency_the_prices_have() -> None:
    """As docs/protocol.md says of those who change the currency within a month."""
    blobs, dear = MemoryBlobs(lambda: 1.8e9), deployment()
    assert dear.price is not None
    euro = dear.model_copy(update={"price": dear.price.model_copy(update={"currency": "EUR"})})
    for used, currency in ((dear, "USD"), (euro, "EUR")):
        async with bench(blobs=blobs, deployments=(used,), tenants=BLUE) as service:
            await asked(service, f"{currency}.jsonl", max_cost="0.1")
            await service.settle()
            [month] = await read(service)
            costs = (await service.ask("GET", "/api/costs", tenant="blue")).body["data"]
    assert (month["currency"], month["cost_spent"]) == ("EUR", amount(2 * micros(SPENT)))
    assert [(each["currency"], each["counted"]) for each in costs[0]["costs"]] == [
        ("EUR", SPENT),
        ("USD", SPENT),
    ]
