"""What the quotas need for a file, reckoned from its requests and tokens."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.budgets import MonthBudget
from schemas.deployments import Deployment
from schemas.estimating import EstimateCreate
from schemas.hours import Hours
from schemas.listing import month_of
from schemas.money import MILLION, CostRange, Price
from schemas.tenants import Tenant
from tests.api.client import KEYS, Client
from tests.doubles.service import Bench, bench
from tests.test_readme import section
from workers.intake.estimating import QuotaEstimator, Terms
from workers.ports import BlobRef

HTTP = (Path(__file__).parents[2] / "docs/http.md").read_text("utf-8")


def deployment(name: str, model: str, calls: float | None, tokens: float | None) -> Deployment:
    return Deployment(
        name=name,
        kind="openai",
        url="http://127.0.0.1:1",
        model=model,
        auth="none",
        requests_per_minute=calls,
        tokens_per_minute=tokens,
    )


QUOTA = deployment("phi", "phi", 60, 6000)
KNOWN = QuotaEstimator(
    deployments=(
        deployment("east", "phi", 60, 6000),
        deployment("west", "phi", 60, 6000),
        deployment("own", "other", None, 600),
    ),
    routes={"any": ("east", "own")},
    default_models={"chat": "phi"},
)


def group(requests: int = 1, tokens: float = 0, **fields: Any) -> dict[str, Any]:
    return {
        "task": "chat",
        "requests": requests,
        "prompt_tokens": tokens,
        "answer_tokens": 0.0,
        **fields,
    }


def seconds(groups: list[dict[str, Any]]) -> float | None:
    return KNOWN.told(EstimateCreate.model_validate({"requests": groups}).requests).seconds


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([group(120)], 60.0),
        ([group(1, 12_000.0)], 60.0),
        ([group(120), group(120, task="completions", model="phi")], 120.0),
        ([group(120, task="embeddings", model="phi")], None),
        ([group(1, 12_000.0, task="embeddings", model="phi")], 60.0),
        ([group(1, 600.0, model="other")], 60.0),
        ([group(10_000, model="other")], None),
        ([group(10_000, model="any")], None),
        ([group(1, 6_600.0, model="any")], 60.0),
        ([group(60), group(1, 1200.0, model="other")], 120.0),
    ],
)
def test_the_scarcest_quota_tells(groups: list[dict[str, Any]], expected: float | None) -> None:
    assert seconds(groups) == expected


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1e6)), min_size=1, max_size=5))
def test_how_a_file_is_grouped_does_not_matter(parts: list[tuple[int, float]]) -> None:
    whole = group(sum(calls for calls, _ in parts), sum(tokens for _, tokens in parts))
    assert seconds([group(*part) for part in parts]) == pytest.approx(seconds([whole]))


def test_a_deployment_is_asked_by_its_name_too() -> None:
    assert seconds([group(120, model="west")]) == 120.0


def test_what_nobody_answers_is_named() -> None:
    asked = [group(model="nobody's"), group(task="embeddings"), group()]
    found = KNOWN.told(EstimateCreate.model_validate({"requests": asked}).requests)
    assert [(each.model, each.task) for each in found.unserved] == [
        ("nobody's", "chat"),
        (None, "embeddings"),
    ]
    assert found.requests == 3


async def test_it_is_asked_over_http_and_refuses_what_is_none() -> None:
    async with bench(api_keys=KEYS) as service:
        client = Client(service)
        status, told = await client.ask("POST", "/v1/estimate", {"requests": [group(7)]})
        assert (status, told["requests"], told["seconds"]) == (200, 7, None)
        status, told = await client.ask("POST", "/v1/estimate", {"requests": [group(0)]})
        assert (status, told["error"]["param"]) == (400, "requests.0.requests")


# -- ranges


def test_what_is_given_as_ranges_is_told_as_ranges() -> None:
    asked = [
        {**group(60), "prompt_tokens": [600.0, 6_000], "answer_tokens": (0, 12_000.0)},
        group(60, 400.4),
    ]
    found = KNOWN.told(EstimateCreate.model_validate({"requests": asked}).requests)
    assert (found.prompt_tokens, found.completion_tokens) == ((1_000, 6_400), (0, 12_000))
    # By their number at least; at most by their tokens, with what a job does not use.
    assert found.seconds == 60.0
    assert found.seconds_shared == pytest.approx(60 * 18_400.4 / 12_000)
    assert found.job_seconds == (60.0, round(92.002 / 0.9 + 30, 1))


def test_a_cost_is_that_of_the_fewest_and_of_the_most_tokens() -> None:
    asked = {**group(10), "prompt_tokens": [1e6, 2e6], "answer_tokens": [0, 1e6]}
    assert costs(asked) == CostRange(currency="USD", least="1.000000", most="8.000000")


@pytest.mark.parametrize(
    "wrong", [[2, 1], [1], [1, 2, 3], [], "1", None, True, [0, True], -1, [-1, 1], 1e16, math.nan]
)
async def test_what_is_no_range_is_refused_in_a_word(wrong: Any) -> None:
    asked = {"requests": [{**group(), "prompt_tokens": wrong}]}
    async with bench(deployments=(QUOTA,)) as service:
        reply = await service.ask("POST", "/api/estimate", asked)
    error = reply.body["error"]
    assert (reply.code, error["param"]) == (400, "requests.0.prompt_tokens")
    assert "has to be a number from 0 to 10^15, or a list of the least" in error["message"]


async def test_more_requests_than_anybody_has_are_refused() -> None:
    async with bench(deployments=(QUOTA,)) as service:
        reply = await service.ask("POST", "/api/estimate", {"requests": [group(10**400)]})
    assert (reply.code, reply.body["error"]["param"]) == (400, "requests.0.requests")


# -- hours


NIGHT = {"hours": "22:00-06:00", "time_zone": "UTC"}


def make_it_noon(service: Bench) -> None:
    """In UTC."""
    service.elapsed += (43_200.0 - service.clock()) % 86_400.0


@pytest.mark.parametrize(
    ("hours", "priority_hours", "priority", "wait"),
    [
        (NIGHT, {}, None, 10 * 3600.0),
        (None, {"low": Hours(**NIGHT)}, "low", 10 * 3600.0),
        (None, {"low": Hours(**NIGHT)}, None, 0.0),
        (NIGHT, {"low": Hours(hours="23:00-05:00", time_zone="UTC")}, "low", 11 * 3600.0),
    ],
)
async def test_the_most_waits_for_the_hours_and_the_least_does_not(
    hours: dict[str, str] | None,
    priority_hours: dict[str, Hours],
    priority: str | None,
    wait: float,
) -> None:
    limited = QUOTA.model_copy(update=hours or {})
    asked = {"requests": [group(60)], **({"priority": priority} if priority else {})}
    async with bench(deployments=(limited,), priority_hours=priority_hours) as service:
        make_it_noon(service)
        told = (await service.ask("POST", "/api/estimate", asked)).body
    assert told["seconds"] == told["job_seconds"][0] == 60.0
    assert told["seconds_shared"] == pytest.approx(wait + 60.0, abs=1.0)
    assert told["job_seconds"][1] == pytest.approx(wait + 60.0 / 0.9 + 30.0, abs=1.0)
    assert told["closed_seconds"] == pytest.approx(wait, abs=1.0)


async def test_nothing_is_closed_where_one_that_may_answer_is_open() -> None:
    others = deployment("all-day", "other", 60, 6000)
    async with bench(deployments=(QUOTA.model_copy(update=NIGHT), others)) as service:
        make_it_noon(service)
        asked = {"requests": [group(60, model="phi"), group(60, model="other")]}
        told = (await service.ask("POST", "/api/estimate", asked)).body
    assert told["closed_seconds"] == 0.0
    assert told["seconds_shared"] == pytest.approx(10 * 3600.0 + 60.0, abs=1.0)


@pytest.mark.parametrize("others", [(), ("other",)])
async def test_no_time_is_told_where_hours_never_meet(others: tuple[str, ...]) -> None:
    day = {"hours": "08:00-12:00", "time_zone": "UTC"}
    asked = {"requests": [group(60, model=each) for each in ("phi", *others)], "priority": "low"}
    deployments = (QUOTA.model_copy(update=day), deployment("all-day", "other", 60, 6000))
    async with bench(deployments=deployments, priority_hours={"low": Hours(**NIGHT)}) as service:
        told = (await service.ask("POST", "/api/estimate", asked)).body
    assert told["seconds"] == 60.0
    assert [told[each] for each in ("closed_seconds", "seconds_shared", "job_seconds")] == [
        None
    ] * 3


async def test_hours_bound_what_no_quota_does() -> None:
    limited = FREE.model_copy(update=NIGHT)
    async with bench(deployments=(limited,)) as service:
        make_it_noon(service)
        asked = {"requests": [group(60, model="other")]}
        told = (await service.ask("POST", "/api/estimate", asked)).body
    wait = 10 * 3600.0
    assert told["seconds"] is None
    assert told["seconds_shared"] == pytest.approx(wait, abs=1.0)
    assert told["job_seconds"] == [0.0, pytest.approx(wait + 30.0, abs=1.0)]


def test_hours_are_looked_up_once_for_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0
    standing = Hours.standing

    def counted(hours: Hours, now: float) -> tuple[bool, float]:
        nonlocal looked
        looked += 1
        return standing(hours, now)

    monkeypatch.setattr(Hours, "standing", counted)
    apart = [f"{hour:02d}:{hour:02d}-{(hour + 8) % 24:02d}:00" for hour in range(20)]
    limited = [
        deployment(f"d{n}", "phi", 60, 6000).model_copy(update={"hours": of, "time_zone": "UTC"})
        for n, of in enumerate(apart)
    ]
    asked = EstimateCreate.model_validate({"requests": [group(10**15, 1e15, model="phi")]})
    terms = Terms(43_200.0, hours=Hours(**NIGHT))
    found = QuotaEstimator(limited, {}, {}).told(asked.requests, terms)
    assert found.seconds_shared is not None
    # 21 hours open and close on each of 14 days; requests, tokens and openings share that.
    assert looked <= 21 * 2 * 15


# -- what it costs

DEAR = deployment("dear", "phi", None, None).model_copy(
    update={"price": Price(input="2", output="4", currency="USD")}
)
CHEAP = deployment("cheap", "phi", None, None).model_copy(
    update={"price": Price(input="1", output="3", currency="USD")}
)
FREE = deployment("unknown", "other", None, None)
RENTED = deployment("rented", "rented", None, None).model_copy(
    update={"price": Price(per_hour="1.5", currency="USD")}
)
PRICED = QuotaEstimator((DEAR, CHEAP, FREE, RENTED), routes={}, default_models={"chat": "phi"})


def costs(*groups: dict[str, Any]) -> CostRange | None:
    return PRICED.told(EstimateCreate.model_validate({"requests": list(groups)}).requests).cost


def test_a_cost_lies_between_the_cheapest_and_the_dearest_that_may_answer() -> None:
    asked = group(10, 1_000_000.0) | {"answer_tokens": 500_000.0}
    assert costs(asked) == CostRange(currency="USD", least="2.500000", most="4.000000")
    assert costs(asked, asked) == CostRange(currency="USD", least="5.000000", most="8.000000")


@pytest.mark.parametrize("model", ["other", "rented"])
def test_a_cost_of_which_a_part_is_not_known_is_not_told(model: str) -> None:
    assert costs(group(1, 10.0), group(1, 10.0, model=model)) is None


def test_what_nobody_answers_costs_nothing_and_is_told_elsewhere() -> None:
    assert costs(group(1, 10.0, model="nobody's")) is None
    both = costs(group(1, 1_000_000.0), group(1, 10.0, model="nobody's"))
    assert both == CostRange(currency="USD", least="1.000000", most="2.000000")


# -- whether it fits its caps

PRICED_PHI = QUOTA.model_copy(update={"price": Price(input="1", output="1", currency="USD")})
# From 1 to 3 USD; calls are pledged for up to 63 times the prompts, and 256 more.
RANGE = {"requests": [group() | {"prompt_tokens": [1e6, 2e6], "answer_tokens": [0, 1e6]}]}


async def fits(body: dict[str, Any], cap: float | None = None, **others: Any) -> dict[str, Any]:
    """By the cap, what is told of it; what others have of the month stands in storage."""
    tenants = {"default": Tenant(max_cost_per_month=cap), "other": Tenant(max_cost_per_month=1.0)}
    async with bench(deployments=(others.pop("phi", PRICED_PHI),), tenants=tenants) as service:
        month = BlobRef("state", f"budgets/default/{month_of(service.clock())}")
        if others:
            data = others.pop("data", MonthBudget(**others).model_dump_json().encode())
            await service.blobs.create(month, data)
        reply = await service.ask("POST", "/api/estimate", body)
    assert reply.code == 200
    return {each.pop("cap"): each for each in reply.body["caps"]}


@pytest.mark.parametrize(
    ("cap", "word"),
    [("127.000256", "yes"), (128, "yes"), (127, "perhaps"), (1, "perhaps"), (0.99, "no")],
)
async def test_a_cost_fits_its_cap_or_not_or_perhaps(cap: Any, word: str) -> None:
    told = await fits({**RANGE, "max_cost": cap})
    limit = f"{float(cap):.6f}"
    assert told == {"max_cost": {"limit": limit, "left": limit, "fits": word}}


@pytest.mark.parametrize(
    ("cap", "word"), [(127_000_256, "yes"), (127_000_255, "perhaps"), (999_999, "no")]
)
async def test_tokens_fit_their_cap_or_not_or_perhaps(cap: int, word: str) -> None:
    told = await fits({**RANGE, "max_total_tokens": cap})
    assert told == {"max_total_tokens": {"limit": cap, "left": cap, "fits": word}}


@pytest.mark.parametrize(
    ("model", "cap", "word"),
    [
        ("phi", 5_000_000, "yes"),
        ("phi", 4_999_999, "perhaps"),
        # The service adds the name of its model.
        (None, 5_000_256, "yes"),
        (None, 5_000_255, "perhaps"),
    ],
)
async def test_what_calls_are_pledged_for_fits_where_it_is_told(
    model: str | None, cap: int, word: str
) -> None:
    (asked,) = RANGE["requests"]
    pledged = {**asked, "model": model, "pledged_tokens": [3_000_000, 2_000_000]}
    told = await fits({"requests": [pledged], "max_total_tokens": cap, "max_cost": cap / 1e6})
    assert told["max_total_tokens"]["fits"] == told["max_cost"]["fits"] == word


@pytest.mark.parametrize("wrong", [[1], [1, -1], [1, 10**16], [1, 2.5], 1, [True, 1], "1"])
async def test_what_is_no_pledge_is_refused_in_a_word(wrong: Any) -> None:
    asked = {"requests": [{**group(), "pledged_tokens": wrong}]}
    async with bench(deployments=(QUOTA,)) as service:
        reply = await service.ask("POST", "/api/estimate", asked)
    assert reply.code == 400
    assert reply.body["error"]["param"].startswith("requests.0.pledged_tokens")


UNPRICED = "needs a price of input and output in DEPLOYMENTS for 'phi'"


@pytest.mark.parametrize("phi", [QUOTA, QUOTA.model_copy(update={"price": RENTED.price})])
async def test_a_job_whose_cost_is_capped_fails_without_a_price(phi: Deployment) -> None:
    asked = {**RANGE, "max_cost": 1000, "max_total_tokens": 10**12}
    told = await fits(asked, cap=5000.0, phi=phi)
    for cap in ("max_cost", "max_cost_per_month"):
        assert told[cap]["fits"] == "no"
        assert told[cap]["reason"] == f"{cap} {UNPRICED}"
    assert told["max_total_tokens"]["fits"] == "perhaps"
    async with bench(deployments=(phi,)) as service:
        ended = await service.run(b'{"prompt": "x"}', options={"max_cost": 1000, "max_tokens": 1})
    assert ended.reason["code"] == "no_price"
    assert UNPRICED in ended.reason["message"]


async def test_a_job_whose_cost_is_capped_asks_only_what_has_a_price() -> None:
    other = QUOTA.model_copy(update={"name": "other"})
    async with bench(deployments=(PRICED_PHI, other)) as service:
        free = (await service.ask("POST", "/api/estimate", RANGE)).body
        capped = (await service.ask("POST", "/api/estimate", {**RANGE, "max_cost": 127.1})).body
    assert (free["cost"], free["caps"]) == (None, [])
    assert capped["seconds"] == 2 * free["seconds"]
    assert capped["cost"] == {"currency": "USD", "least": "1.000000", "most": "3.000000"}
    assert capped["caps"][0]["fits"] == "yes"


async def test_what_has_no_price_is_told_as_such_and_not_as_what_is_not_served() -> None:
    small = QUOTA.model_copy(update={"name": "small", "model": "small"})
    of_small = group() | {"model": "small", "prompt_tokens": 1e6, "answer_tokens": 1e6}
    async with bench(deployments=(PRICED_PHI, small)) as service:
        for groups in ([of_small], [group() | {"model": "phi"}, of_small]):
            asked = {"requests": groups}
            free = (await service.ask("POST", "/api/estimate", asked)).body
            told = (await service.ask("POST", "/api/estimate", {**asked, "max_cost": 1})).body
            assert (free["unserved"], free["cost"]) == ([], None)
            [cap] = told["caps"]
            assert (cap["fits"], cap["reason"]) == (
                "no",
                "max_cost needs a price of input and output in DEPLOYMENTS for 'small'",
            )
            # No cost of a part of it, and what it would take without the cap.
            assert {**told, "caps": []} == free


PICOS = MILLION * MILLION


@pytest.mark.parametrize(
    ("max_cost", "word"),
    [
        # What one job reserved, and what others have spent, leaves 3.
        (3, "yes"),
        (3.01, "no"),
        (None, "perhaps"),
    ],
)
async def test_what_a_job_reserves_fits_what_is_left_of_the_month(
    max_cost: float | None, word: str
) -> None:
    asked = {**RANGE, **({} if max_cost is None else {"max_cost": max_cost})}
    told = await fits(asked, cap=6.0, spent=2 * PICOS, reserved={"some-job": PICOS})
    expected = {"limit": "6.000000", "left": "3.000000", "fits": word}
    assert told["max_cost_per_month"] == expected


async def test_a_job_reserves_no_less_than_the_most_of_its_estimate() -> None:
    told = await fits(RANGE, cap=6.0, spent=3 * PICOS + 1)
    assert told == {"max_cost_per_month": {"limit": "6.000000", "left": "2.999999", "fits": "no"}}


async def test_a_month_that_nobody_can_read_has_room_perhaps() -> None:
    told = await fits({**RANGE, "max_cost": 1}, cap=6.0, data=b"no JSON")
    assert told["max_cost_per_month"] == {"limit": "6.000000", "left": None, "fits": "perhaps"}


async def test_nothing_is_told_of_caps_that_nobody_has() -> None:
    assert await fits(RANGE) == {}


async def test_what_the_documents_show_is_asked_and_answered_so() -> None:
    asked, answered = re.findall(r"```json\n(.*?)\n```", section(HTTP, "Estimates"), re.DOTALL)
    phi = deployment("phi", "phi-3-mini", 1000, 100_000).model_copy(
        update={"price": Price(input="0.13", output="0.52", currency="USD")}
    )
    tenants = {"default": Tenant(max_cost_per_month=0.5)}
    async with bench(deployments=(phi,), tenants=tenants) as service:
        reply = await service.ask("POST", "/api/estimate", json.loads(asked))
    assert reply.code == 200
    assert reply.body == json.loads(answered)
