"""What calls that told no tokens may have cost: bounded by what was asked, or not known."""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.jobs import parse_options
from schemas.money import MILLION, PinnedPrice
from schemas.outcomes import Usage
from schemas.results import CallRecord
from workers.rows.most_tokens import most_tokens
from workers.rows.reading import Refusal, Request, RowRules, read_row
from workers.rows.unmetered import bounded, cut_off
from workers.rows.writing import RowResult

CHEAP = PinnedPrice(input=MILLION, output=2 * MILLION, currency="USD")
DEAR = PinnedPrice(input=3 * MILLION, output=4 * MILLION, currency="USD")
PRICES = {"cheap": CHEAP, "dear": DEAR}
RULES = RowRules.of(parse_options({}), max_line_bytes=1 << 20)


def read(row: Mapping[str, Any]) -> Request | Refusal:
    data = json.dumps({"model": "phi", **row}).encode()
    return read_row(1, data, RULES, 0, len(data))


def call(deployment: str, *, tokens: int = 0, billed: bool = True) -> CallRecord:
    return CallRecord(deployment, "timeout", None, 0.0, None, 30.0, tokens, billed)


def result(row: int, *calls: CallRecord) -> RowResult:
    return RowResult(row, "failed", Usage(), b"{}", calls)


def bounds(rows: list[Request | Refusal], *results: RowResult) -> tuple[int, int]:
    told = bounded(results, rows, PRICES)
    assert told.calls == 0
    return told.bounded, told.most


def of_cut_off(
    calls: int, rows: list[Request | Refusal], names: tuple[str, ...] = ("cheap", "dear")
) -> tuple[int, int, int]:
    told = cut_off(calls, rows, PRICES, lambda _task, _model: names)
    return told.calls, told.bounded, told.most


def most_of(row: Request | Refusal, price: PinnedPrice) -> int:
    """In millionths: the prices here are whole ones for each token."""
    assert isinstance(row, Request)
    tokens = most_tokens(row.task, row.body)
    assert tokens is not None
    return price.of(*tokens) // MILLION


SHORT = read({"prompt": "a", "max_tokens": 5})
LONG = read({"prompt": "a" * 500, "max_tokens": 700})
ENDLESS = read({"prompt": "a"})
CHAT = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 5}
VECTOR, ITS_OTHER = read({"input": "a"}), read({"input": "b" * 90})


@given(
    st.lists(
        st.tuples(st.sampled_from(("cheap", "dear")), st.integers(0, 2), st.booleans()), max_size=8
    )
)
def test_a_call_may_cost_what_its_request_lets_it_take(made: list[tuple[str, int, bool]]) -> None:
    calls = [call(name, tokens=tokens, billed=billed) for name, tokens, billed in made]
    unmetered = [name for name, tokens, billed in made if billed and not tokens]
    told = bounds([SHORT, LONG], result(1, *calls), result(0))
    assert told == (len(unmetered), sum(most_of(LONG, PRICES[name]) for name in unmetered))


def test_nothing_bounds_a_call_for_as_many_tokens_as_it_likes() -> None:
    results = result(0, call("cheap")), result(1, call("cheap"))
    assert bounds([ENDLESS, SHORT], *results) == (1, most_of(SHORT, CHEAP))


def test_nothing_bounds_what_is_not_known_to_be_billed_as_it_looks() -> None:
    looked_up = read({**CHAT, "web_search_options": {}})
    assert isinstance(looked_up, Request)
    assert bounds([looked_up], result(0, call("cheap"))) == (0, 0)


def test_a_call_to_a_deployment_without_a_price_is_none_of_them() -> None:
    assert bounds([SHORT], result(0, call("free"), call("dear"))) == (1, most_of(SHORT, DEAR))


def test_a_packed_call_may_have_held_all_that_can_be_packed() -> None:
    rows = [VECTOR, SHORT, ITS_OTHER]
    both = most_of(VECTOR, CHEAP) + most_of(ITS_OTHER, CHEAP)
    assert bounds(rows, result(0, call("cheap")), result(2)) == (1, both)


def test_any_call_of_a_shard_may_be_the_one_that_was_cut_off() -> None:
    rows = [SHORT, LONG, read({"prompt": 7})]
    assert of_cut_off(3, rows) == (3, 3, 3 * most_of(LONG, DEAR))
    assert of_cut_off(2, rows, ("cheap",)) == (2, 2, 2 * most_of(LONG, CHEAP))
    assert of_cut_off(0, rows) == (0, 0, 0)


def test_what_was_cut_off_has_no_bound_where_one_of_its_rows_has_none() -> None:
    assert of_cut_off(2, [SHORT, ENDLESS]) == (2, 0, 0)
    assert of_cut_off(2, [SHORT], ("cheap", "free")) == (2, 0, 0)
    assert of_cut_off(2, []) == (2, 0, 0)


def test_a_bound_that_no_cap_could_be_is_none() -> None:
    dear = read({"prompt": "a", "max_tokens": 2**62})
    assert bounds([dear], result(0, call("cheap"))) == (0, 0)
    assert of_cut_off(1, [dear]) == (1, 0, 0)


def test_a_bound_is_rounded_up() -> None:
    price = PinnedPrice(input=1, output=1, currency="USD")
    told = bounded([result(0, call("phi"))], [SHORT], {"phi": price})
    assert (told.bounded, told.most) == (1, 1)


def test_where_the_input_is_gone_nothing_is_bounded() -> None:
    assert bounds([], result(0, call("cheap"))) == (0, 0)
