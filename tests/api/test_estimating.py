"""What the quotas need for a file, reckoned from its requests and tokens."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.deployments import Deployment
from schemas.money import CostRange, Price
from schemas.openai import EstimateCreate
from tests.api.client import KEYS, Client
from tests.doubles.service import bench
from tests.test_readme import section
from workers.intake.estimating import QuotaEstimator

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


async def test_what_the_documents_show_is_asked_and_answered_so() -> None:
    asked, answered = re.findall(r"```json\n(.*?)\n```", section(HTTP, "Estimates"), re.DOTALL)
    phi = deployment("phi", "phi-3-mini", 1000, 100_000).model_copy(
        update={"price": Price(input="0.13", output="0.52", currency="USD")}
    )
    async with bench(deployments=(phi,)) as service:
        reply = await service.ask("POST", "/api/estimate", json.loads(asked))
    assert reply.code == 200
    assert reply.body == json.loads(answered)
