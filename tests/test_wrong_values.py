"""What is wrong with a value is told in words: nobody is shown a pattern."""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

import schemas
import workers.api
import workers.settings
from schemas.deployments import parse_deployments
from schemas.jobs import parse_options
from schemas.tenants import parse_tenants
from schemas.wrong_values import FORMS
from tests.doubles.service import bench

DEPLOYMENT = {"name": "a", "kind": "openai", "url": "http://h", "model": "m", "auth": "none"}
# Read from what the service itself has written: nobody writes them by hand.
STORED = {
    "at_most",
    "cost_left",
    "cost_reserved",
    "cost_spent",
    "counted",
    "may_cost",
    "projected_cost",
}
STORED |= {"least", "most", "max_cost", "cost", "key", "file", "parent", "batch", "limit", "left"}


def models() -> Iterator[type[BaseModel]]:
    """Each model of the service."""
    for package in (schemas, workers.api):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
    waiting = [BaseModel]
    while waiting:
        for model in waiting.pop().__subclasses__():
            waiting.append(model)
            if model.__module__.partition(".")[0] in ("schemas", "workers"):
                yield model


def patterned(schema: Any, field: str = "") -> Iterator[str]:
    """The names of fields whose texts have a pattern; `[key]` of names that are free."""
    if isinstance(schema, list):
        for each in schema:
            yield from patterned(each, field)
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("pattern"), str):
        yield field
    for key, value in schema.items():
        if key == "properties":
            for name, each in value.items():
                yield from patterned(each, name)
        elif key in ("patternProperties", "propertyNames"):
            yield "[key]"
            yield from patterned(list(value.values()), field)
        elif key not in ("$defs", "default", "pattern"):
            yield from patterned(value, field)


def test_each_field_with_a_pattern_has_words_for_it() -> None:
    found = {
        name
        for model in models()
        if not model.__pydantic_generic_metadata__["parameters"]
        for name in patterned(model.model_json_schema())
    }
    assert {"month", "currency", "tenant", "[key]"} <= found
    assert found - STORED - FORMS.keys() == set()


@pytest.mark.parametrize(
    ("price", "said"),
    [
        ({"output": "0,52"}, "'price.output': write an amount as text with a point, such as"),
        ({"output": 0.52}, "'price.output': write an amount as text with a point, such as"),
        ({"per_hour": "$1"}, "'price.per_hour': write an amount as text with a point"),
        ({"currency": "usd"}, "'price.currency': write three capital letters, such as USD"),
        ({"in": "1"}, "'price.in': is no field of a price: input, output, per_hour, currency"),
    ],
)
def test_a_mistake_in_a_price_says_how_it_is_written(price: dict[str, Any], said: str) -> None:
    given = {"input": "0.13", "output": "0.52", "currency": "USD", **price}
    with pytest.raises(ValueError, match="DEPLOYMENTS") as caught:
        parse_deployments(json.dumps([DEPLOYMENT | {"price": given}]))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("tenants", "said"),
    [
        ({"blue": {"max_cost_per_month": "1 USD"}}, "has to be a number; for example {"),
        ({"Team Blue": {}}, "must be 1 to 63 small letters and digits"),
    ],
)
def test_a_mistake_in_tenants_shows_one_that_is_right(tenants: Any, said: str) -> None:
    with pytest.raises(ValueError, match="TENANTS") as caught:
        parse_tenants(json.dumps(tenants))
    assert said in str(caught.value)
    assert '{"blue": {"weight": 2, "max_cost_per_month": 100}}' in str(caught.value)


@pytest.mark.parametrize("cap", ["12,50", True, [1]])
def test_a_cap_that_is_no_amount_says_what_one_is(cap: Any) -> None:
    with pytest.raises(ValueError, match=r"'max_cost': has to be an amount such as 12\.50, in the"):
        parse_options({"max_cost": cap})


@pytest.mark.parametrize("cap", [0, -1, "1e9", "0.0000001"])
def test_a_cap_that_no_sum_holds_says_what_is_possible(cap: Any) -> None:
    with pytest.raises(ValueError, match="more than 0 and at most 1,000,000, with six"):
        parse_options({"max_cost": cap})


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"month": "November"}, "a month from 01 to 12, as 2026-11"),
        ({"month": "9999-12"}, "month: write a year from 2000 to 2999 and a month from"),
        ({"month": "0000-01"}, "month: write a year from 2000 to 2999 and a month from"),
        ({"month": "2026-11", "tenant": "Blue!"}, "tenant: must be 1 to 63 small letters"),
        ({"month": "2026-11", "after": "x y"}, "after: write the `last_id`"),
    ],
)
async def test_a_query_says_what_its_parameters_look_like(query: dict[str, str], said: str) -> None:
    async with bench() as service:
        reply = await service.ask("GET", "/api/costs", None, None, **query)
    assert (reply.code, said in reply.body["error"]["message"]) == (400, True)
