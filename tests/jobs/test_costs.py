"""What jobs cost: to the millionth, at the prices that were pinned, and never a guess."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.budgets import JobBudget, Spend
from schemas.deployments import Deployment, parse_deployments
from schemas.jobs import Job, JobOptions, JobState
from schemas.listing import span_of
from schemas.money import MILLION, Cost, PinnedPrice, Price, amount, micros
from schemas.outcomes import Outcome, Usage
from schemas.results import CodeCount, Counts, Manifest, ShardTokens, Use
from schemas.status import JobStatus
from tests.doubles.service import DEPLOYMENT, Answering, Bench, bench
from workers.jobs.costs import cost_of, cost_so_far, projected_cost, projected_tokens, summed
from workers.jobs.outbox import SHARDS
from workers.rows.most_tokens import most_tokens

PHI = PinnedPrice(input=130_000, output=520_000, currency="USD")
PRICED = Price(input="0.13", output="0.52", currency="USD")
TOKENS = st.integers(0, 10**12)


@given(st.integers(0, 10**14))
def test_an_amount_is_written_to_the_millionth(of: int) -> None:
    assert micros(amount(of)) == of


@pytest.mark.parametrize(
    ("written", "of"), [("0", 0), ("1.5", 1_500_000), ("0.000001", 1), ("12", 12_000_000)]
)
def test_amounts_are_read(written: str, of: int) -> None:
    assert micros(written) == of


def stands(counts: Counts, **fields: Any) -> JobState:
    return JobState(revision=1, state="in_progress", counts=counts, **fields)


def test_what_a_job_will_come_to_is_what_its_rows_cost_so_far() -> None:
    cost = Cost(currency="USD", counted="0.300000", at_most=None)
    # Of a hundred rows thirty are asked and ten could not be: sixty are left.
    counts = Counts(total=100, succeeded=25, failed=5, invalid=10)
    assert projected_cost(cost, stands(counts)) == "0.900000"
    # Or ten of them in a shard that is out, and in another some of which no cost is told.
    out = Counts(total=100, succeeded=15, failed=5, invalid=10)
    running = {"running": ((1, 10), (2, 7)), "running_tokens": (ShardTokens(1, 90, 9, 1),)}
    assert projected_cost(cost, stands(out, **running)) == "0.900000"
    assert projected_cost(cost, stands(Counts(total=100, invalid=10))) is None, (
        "none has cost anything"
    )
    assert projected_cost(cost, stands(Counts(total=10, succeeded=10))) is None, (
        "nothing is to come"
    )


def test_what_a_job_will_come_to_is_told_beyond_its_cap_too() -> None:
    cost, held = Cost(currency="USD", counted="0.300000", at_most=None), {"max_cost": 4 * 10**11}
    counts = Counts(total=90, succeeded=30)
    assert projected_cost(cost, stands(counts, budget=JobBudget(**held))) == "0.900000"
    # Rows that ended for want of room would have been asked like the others.
    stopped = Counts(total=90, succeeded=30, invalid=50)
    codes = {"budget_exceeded": CodeCount(rows=50), "invalid_json": CodeCount(rows=0)}
    told = projected_cost(cost, stands(stopped, budget=JobBudget(**held), codes=codes))
    assert told == "0.900000"


def test_tokens_are_projected_where_a_cap_counts_them() -> None:
    held = JobBudget(max_tokens=900, spent=Spend(600, 0))
    counts = Counts(total=90, succeeded=30)
    assert projected_tokens(held, stands(counts)) == 1800
    shard = {"running": ((1, 10),), "running_tokens": (ShardTokens(1, 150, 50, 1),)}
    out = Counts(total=90, succeeded=20)
    spent = held.model_copy(update={"spent": Spend(400, 0)})
    assert projected_tokens(spent, stands(out, **shard)) == 1800
    assert projected_tokens(JobBudget(max_cost=1), stands(counts)) is None, "nothing counts them"
    assert projected_tokens(held, stands(Counts(total=9))) is None, "none was asked"


def test_of_rows_that_will_not_be_asked_nothing_is_projected() -> None:
    cost = Cost(currency="USD", counted="0.300000", at_most=None)
    ending = stands(Counts(total=90, succeeded=30), ending="cancelled")
    assert projected_cost(cost, ending) is None


def job_with(prices: dict[str, PinnedPrice]) -> Job:
    return Job(
        id="20270115T080000Z-8b7a6f5e4d3c2f1b",
        door="drop",
        container="prompts",
        name="a.jsonl",
        etag="1",
        size=1,
        options=JobOptions(),
        priority="normal",
        created=0.0,
        expires=1.0,
        window=1,
        max_line_bytes=100,
        results="a",
        prices=prices,
    )


def answered(calls: int, tokens: int) -> Use:
    return Use(calls=calls, outcomes={"ok": calls}, tokens=tokens, prompt_tokens=tokens)


def test_what_has_no_price_costs_nobody_knows_what_and_not_0() -> None:
    job, counts = job_with({"phi": PHI}), Counts(total=100, succeeded=50)
    own = stands(counts, next=2, use={"own": answered(50, 900)})
    assert cost_so_far(job, own) is None
    # In the first shard of all too, of which no receipt tells the calls yet.
    first = stands(
        Counts(total=100), next=1, running=((0, 50),), running_tokens=(ShardTokens(0, 900, 50, 0),)
    )
    assert cost_so_far(job, first) is None
    both = stands(counts, next=2, use={"own": answered(25, 900), "phi": answered(25, 900)})
    told = cost_so_far(job, both)
    assert told is not None
    assert (told.counted, told.at_most, told.unpriced_calls) == ("0.000117", None, 25)
    assert projected_cost(told, both) is None, "who knows what the others will cost"
    # A part of it had a price.
    half = ShardTokens(0, 1800, 0, PHI.of(900, 0))
    mixed = stands(Counts(total=100), next=1, running=((0, 50),), running_tokens=(half,))
    told = cost_so_far(job, mixed)
    assert told is not None
    assert (told.counted, told.unpriced_calls) == ("0.000117", 1)
    assert projected_cost(told, mixed) is None


@given(st.lists(st.tuples(st.sampled_from(["phi", "dear", "free"]), TOKENS, TOKENS), min_size=1))
def test_no_price_is_missing_where_all_that_were_asked_have_one(
    shards: list[tuple[str, int, int]],
) -> None:
    prices = {
        "phi": PHI,
        "dear": PinnedPrice(input=9, output=1, currency="USD"),
        "free": PinnedPrice(input=0, output=0, currency="USD"),
    }
    out = tuple(
        ShardTokens(shard, prompt, completion, prices[name].of(prompt, completion))
        for shard, (name, prompt, completion) in enumerate(shards)
    )
    asked = {name: prices[name] for name, _, _ in shards}
    for pinned in (prices, asked):
        told = cost_so_far(job_with(pinned), stands(Counts(), next=1, running_tokens=out))
        assert told is not None
        assert told.unpriced_calls == 0


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=5))
def test_a_cost_is_exact_and_rounded_up_once(tokens: list[tuple[int, int]]) -> None:
    use = {
        str(number): Use(tokens=a + b, prompt_tokens=a, completion_tokens=b)
        for number, (a, b) in enumerate(tokens)
    }
    told = cost_of(use, dict.fromkeys(use, PHI))
    exact = sum(Fraction(a * 13 + b * 52, 100) for a, b in tokens)  # in millionths
    assert 0 <= micros(told.counted) - exact < 1
    assert told.at_most == told.counted


def test_what_is_not_known_is_no_bound() -> None:
    use = {
        "phi": Use(outcomes={"ok": 2}, tokens=30, prompt_tokens=20, completion_tokens=10),
        "own": Use(outcomes={"ok": 3}, tokens=99, prompt_tokens=99),
    }
    told = cost_of(use, {"phi": PHI})
    assert told == Cost(currency="USD", counted="0.000008", at_most=None, unpriced_calls=3)
    lost = {"phi": use["phi"].model_copy(update={"unmetered_calls": 1})}
    told = cost_of(lost, {"phi": PHI})
    assert (told.counted, told.at_most, told.unmetered_calls) == ("0.000008", None, 1)


def test_tokens_that_an_earlier_release_did_not_tell_apart_cost_what_costs_more() -> None:
    told = cost_of({"phi": Use(tokens=1_000_000)}, {"phi": PHI})
    assert told.counted == "0.520000"


def test_costs_are_summed_by_currency() -> None:
    one = Cost(currency="USD", counted="0.1", at_most="0.2")
    open_ = Cost(currency="USD", counted="0.3", at_most=None, unmetered_calls=2)
    euros = Cost(currency="EUR", counted="5", at_most="5")
    assert summed([one, one, euros]) == (
        euros,
        Cost(currency="USD", counted="0.200000", at_most="0.400000"),
    )
    assert summed([one, open_])[0].at_most is None


@pytest.mark.parametrize(
    "price",
    [
        {"input": "0.13", "currency": "USD"},
        {"currency": "USD"},
        {"input": 0.13, "output": 0.52, "currency": "USD"},
        {"input": "-1", "output": "1", "currency": "USD"},
        {"input": "0.1234567", "output": "1", "currency": "USD"},
        {"input": "1", "output": "1", "currency": "usd"},
        {"input": "1", "output": "1"},
    ],
)
def test_a_price_that_cannot_be_taken_is_refused(price: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Price.model_validate(price)


def test_what_costs_by_the_hour_is_not_priced_by_tokens() -> None:
    assert Price(per_hour="1.20", currency="USD").pinned is None
    assert Price(input="0", output="0", currency="USD").pinned == PinnedPrice(
        input=0, output=0, currency="USD"
    )


def test_prices_are_in_one_currency() -> None:
    def entry(name: str, currency: str) -> str:
        price = f'{{"input": "1", "output": "1", "currency": "{currency}"}}'
        return (
            f'{{"name": "{name}", "kind": "openai", "url": "http://localhost", "model": "m", '
            f'"auth": "none", "price": {price}}}'
        )

    assert len(parse_deployments(f"[{entry('a', 'USD')}, {entry('b', 'USD')}]")) == 2
    with pytest.raises(ValueError, match="prices are in EUR and USD: choose one"):
        parse_deployments(f"[{entry('a', 'USD')}, {entry('b', 'EUR')}]")


def test_a_month_begins_and_ends_in_utc() -> None:
    begin, end = span_of("2026-12")
    assert (end - begin) / 86400 == 31
    assert span_of("2027-01")[0] == end
    assert span_of("2028-02")[1] - span_of("2028-02")[0] == 29 * 86400


# -- in the service


def priced(service: Bench, price: Price | None = PRICED) -> None:
    """Have the deployment cost something from now on."""
    deployment: Deployment = DEPLOYMENT.model_copy(update={"price": price})
    object.__setattr__(service.settings, "deployments", (deployment,))


ROWS = b'{"prompt": "a"}\n{"prompt": "b"}\n'
# Two rows of 7 and 5 tokens: 14 x 0.13 + 10 x 0.52 = 7.02 millionths, rounded up.
OF_TWO = "0.000008"


async def asked_in_part(service: Bench, shards: int) -> str:
    """The job, once so many of its shards are asked and another is on its way."""
    left = shards

    def some(delivery: Any) -> bool:
        nonlocal left
        left -= delivery.queue == SHARDS
        return bool(left < 0)

    await service.settle(stop=some)
    return str(service.events[-1]["data"]["job"])


async def test_a_job_costs_what_was_pinned_with_it_everywhere() -> None:
    async with bench() as service:
        priced(service)
        await service.drop(ROWS)
        await service.announce()
        await service.settle(stop=lambda delivery: delivery.queue == "shards")
        priced(service, Price(input="9", output="9", currency="USD"))
        await service.settle()
        ended = await service.ended()
        cost = {"currency": "USD", "counted": OF_TWO, "at_most": OF_TWO}
        assert ended.manifest["cost"].items() >= cost.items()
        assert ended.manifest["prices"] == {"phi": PHI.model_dump()}
        told = await service.ask("GET", f"/api/jobs/{ended.manifest['job']}")
        assert JobStatus.model_validate(told.body).cost == Cost.model_validate(cost)
        assert ended.event["data"]["cost"].items() >= cost.items()


async def test_a_job_without_prices_has_no_cost_and_not_0() -> None:
    async with bench() as service:
        ended = await service.run(ROWS)
        assert (ended.manifest["cost"], ended.manifest["prices"]) == (None, {})
        assert "cost" not in ended.event["data"]


async def test_a_job_of_a_deployment_without_a_price_has_no_cost_at_any_time() -> None:
    other = DEPLOYMENT.model_copy(update={"name": "other", "model": "other", "price": PRICED})
    async with bench(deployments=(DEPLOYMENT, other)) as service:
        await service.drop(b'{"prompt": "a", "model": "phi-3-mini"}\n' * 600)
        await service.announce()
        job = await asked_in_part(service, 2)
        told = (await service.ask("GET", f"/api/jobs/{job}")).body
        assert 0 < told["counts"]["succeeded"] < 600
        assert told.keys().isdisjoint({"cost", "projected_cost"})
        await service.settle()
        assert (await service.ended()).manifest["cost"] is None
        (month,) = (await service.ask("GET", "/api/costs")).body["data"]
        assert (month["jobs"], month["unpriced_jobs"], month["costs"]) == (1, 1, [])


class Untold(Answering):
    """Times out the first time, and may have billed that."""

    async def ask(self, task: Any, body: Any) -> Outcome:
        self.asked.append((task, body))
        if len(self.asked) == 1:
            return Outcome("timeout", billed=True)
        return Outcome("ok", 200, {"choices": []}, Usage(7, 5), billed=True)


async def test_a_call_whose_answer_was_lost_leaves_the_bound_open() -> None:
    async with bench(endpoint=Untold()) as service:
        priced(service)
        ended = await service.run(b'{"prompt": "a"}\n')
        cost = ended.manifest["cost"]
        assert (cost["at_most"], cost["unmetered_calls"]) == (None, 1)
        assert cost["counted"] == "0.000004"


async def test_the_price_of_an_hour_is_pinned_and_part_of_no_cost() -> None:
    async with bench() as service:
        priced(service, Price(per_hour="1.50", currency="USD"))
        await service.drop(ROWS)
        await service.announce()
        await asked_in_part(service, 0)
        priced(service, Price(per_hour="9", currency="USD"))
        await service.settle()
        manifest = (await service.ended()).manifest
        assert manifest["hourly_prices"] == {
            DEPLOYMENT.name: {"per_hour": 1_500_000, "currency": "USD"}
        }
        assert (manifest["prices"], manifest["cost"]) == ({}, None)


async def test_an_hour_s_price_is_none_that_a_cap_could_hold() -> None:
    async with bench() as service:
        priced(service, Price(per_hour="1.50", currency="USD"))
        ended = await service.run(ROWS, options={"max_cost": "1", "max_tokens": 5})
        assert service.endpoint.asked == []
        assert ended.counts["succeeded"] == 0


async def test_what_a_row_may_have_bounds_the_call_whose_answer_was_lost() -> None:
    async with bench(endpoint=Untold()) as service:
        priced(service)
        ended = await service.run(b'{"prompt": "a", "max_tokens": 50}\n')
        cost = ended.manifest["cost"]
        assert (cost["counted"], cost["unmetered_calls"]) == ("0.000004", 1)
        body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 50}
        most = most_tokens("chat", {**body, "model": DEPLOYMENT.model})
        assert most is not None
        assert cost["at_most"] == amount(4 + -(-PHI.of(*most) // MILLION))


async def test_calls_that_an_earlier_release_dropped_leave_no_false_bound() -> None:
    async with bench() as service:
        priced(service)
        await service.drop(b'{"prompt": "a"}\n' * 2000)
        await service.announce()
        job = await asked_in_part(service, 4)
        held = await service.store.state(job)
        assert held is not None
        assert held.state.counts.succeeded
        # 0.1.0 swaps a state, and leaves out what it does not know.
        emptied = held.state.model_copy(update={"use": {}})
        assert await service.store.swap(job, held, emptied)
        told = JobStatus.model_validate((await service.ask("GET", f"/api/jobs/{job}")).body)
        assert told.cost is not None
        assert (told.cost.counted, told.cost.at_most) == ("0.000000", None)
        await service.settle()
        ended = await service.ended()
        told = JobStatus.model_validate((await service.ask("GET", f"/api/jobs/{job}")).body)
        assert told.cost == Cost.model_validate(ended.manifest["cost"])
        assert told.cost.at_most == told.cost.counted != "0.000000"


async def test_costs_of_a_month_are_summed_by_metadata() -> None:
    async with bench() as service:
        priced(service)
        for number, team in enumerate(("blue", "blue", "red")):
            options = {"metadata": {"team": team}}
            await service.run(ROWS, f"{number}.jsonl", options=options)
        await service.run(ROWS, "nobody.jsonl")
        month = "2027-01"  # of the clock of the doubles
        reply = await service.ask("GET", "/api/costs", month=month, by="team")
        assert reply.code == 200
        told = {each["value"]: each for each in reply.body["data"]}
        assert {value: each["jobs"] for value, each in told.items()} == {
            "blue": 2,
            "red": 1,
            None: 1,
        }
        assert told["blue"]["costs"][0]["counted"] == "0.000016"
        assert told["blue"]["prompt_tokens"] == 28
        whole = await service.ask("GET", "/api/costs", month=month)
        (every,) = whole.body["data"]
        assert (every["by"], every["value"], every["jobs"]) == ("tenant", "default", 4)
        named = await service.ask("GET", "/api/costs", month=month, by="tenant")
        assert named.body == whole.body
        for other in ("2026-12", "2027-02"):
            empty = await service.ask("GET", "/api/costs", month=other)
            assert (empty.body["data"], empty.body["has_more"]) == ([], False)
        for wrong in ("2027-13", "2027-1", "January", ""):
            assert (await service.ask("GET", "/api/costs", month=wrong)).code == 400
        assert (await service.ask("GET", "/api/costs")).body == whole.body, "of this month"


def test_the_unit_of_a_pinned_price_stands_beside_it() -> None:
    pinned = Price(input="0.13", output="0.52", currency="USD").pinned
    assert pinned is not None
    for name, told in (("input", "0.13"), ("output", "0.52")):
        words = PinnedPrice.model_fields[name].description or ""
        assert f"{getattr(pinned, name)} is {told} for a million tokens" in words
    assert "whole millionths of the currency's unit" in (
        Manifest.model_fields["prices"].description or ""
    )


async def test_costs_by_tenant_are_those_of_whom_the_jobs_are_for() -> None:
    async with bench() as service:
        priced(service)
        await service.run(ROWS, "a.jsonl", options={"metadata": {"tenant": "somebody"}})
        reply = await service.ask("GET", "/api/costs", by="tenant")
    assert [each["value"] for each in reply.body["data"]] == ["default"]


async def test_a_job_that_is_validated_has_a_price_already() -> None:
    async with bench() as service:
        priced(service)
        await service.drop(ROWS)
        await service.announce()
        await service.settle(stop=lambda delivery: delivery.queue == SHARDS)
        job = str(service.events[-1]["data"]["job"])
        await service.blobs.delete(service.store.ref(job, "state.json"))
        told = JobStatus.model_validate((await service.ask("GET", f"/api/jobs/{job}")).body)
        assert told.state == "validating"
        assert told.cost == Cost(currency="USD", counted="0.000000", at_most="0.000000")
        (month,) = (await service.ask("GET", "/api/costs", month="2027-01")).body["data"]
        assert (month["jobs"], month["unpriced_jobs"]) == (1, 0)


async def test_nobody_knows_a_bound_while_shards_are_out() -> None:
    async with bench() as service:
        priced(service)
        await service.drop(b'{"prompt": "a", "max_tokens": 5}\n' * 300)
        await service.announce()
        await service.settle(stop=lambda delivery: delivery.queue == SHARDS)
        job = str(service.events[-1]["data"]["job"])
        told = JobStatus.model_validate((await service.ask("GET", f"/api/jobs/{job}")).body)
        assert told.cost == Cost(currency="USD", counted="0.000000", at_most=None)
        await service.settle()
        told = JobStatus.model_validate((await service.ask("GET", f"/api/jobs/{job}")).body)
        assert told.cost is not None
        assert told.cost.at_most == told.cost.counted != "0.000000"


async def test_a_call_that_answers_many_rows_is_one_call() -> None:
    async with bench() as service:
        priced(service)
        ended = await service.run(b'{"input": "a text"}\n' * 20)
        cost = ended.manifest["cost"]
        assert (cost["at_most"], cost["unmetered_calls"]) == (cost["counted"], 0)
        assert {name: ended.event["data"]["cost"][name] for name in cost} == cost


async def test_a_long_month_is_summed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.api.costs.MOST_SUMMED", 2)
    async with bench() as service:
        priced(service)
        for number in range(5):
            await service.run(ROWS, f"{number}.jsonl")
        jobs, rounds = 0, 0
        after: dict[str, str] = {}
        while True:
            query = {"month": "2027-01", **after}
            reply = await service.ask("GET", "/api/costs", None, None, **query)
            jobs += sum(each["jobs"] for each in reply.body["data"])
            rounds += 1
            if not reply.body["has_more"]:
                break
            after = {"after": reply.body["last_id"]}
        assert (jobs, rounds) == (5, 3)


async def test_an_estimate_is_given_to_operators_too() -> None:
    async with bench() as service:
        group = {"task": "chat", "requests": 2, "prompt_tokens": 14.0, "answer_tokens": 10.0}
        told = await service.ask("POST", "/api/estimate", {"requests": [group]})
        assert (told.code, told.body["object"], told.body["requests"]) == (200, "estimate", 2)
        refused = await service.ask("POST", "/api/estimate", {"requests": []})
        assert (refused.code, refused.body["error"]["param"]) == (400, "requests")
