"""The short way of a scan accepts only what the long way accepts, as the same request."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.jobs import JobOptions
from workers.rows.fast_path import read_usual
from workers.rows.lines import line_content
from workers.rows.reading import Request, RowRules, read_row

RULES = RowRules.of(JobOptions(), max_line_bytes=1 << 20)
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "tool", "robot"]) | ANYTHING},
    optional={
        "content": st.sampled_from(["", " ", "\n\t"]) | st.text(max_size=8) | ANYTHING,
        "name": ANYTHING,
    },
)
BODY = st.fixed_dictionaries(
    {"messages": st.lists(TURN, max_size=2) | ANYTHING, "model": st.text(max_size=4) | ANYTHING},
    optional={"max_tokens": ANYTHING, "temperature": ANYTHING, "stream": ANYTHING},
)
ROW = st.fixed_dictionaries(
    {
        "custom_id": st.text(max_size=520) | ANYTHING,
        "url": st.sampled_from(["/v1/chat/completions", "/chat/completions", "/embeddings"]),
        "body": BODY | ANYTHING,
    },
    optional={"method": st.sampled_from(["POST", "GET", ""]) | ANYTHING, "id": ANYTHING},
)
USUAL = (
    b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", '
    b'"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "temperature": 0.5}}'
)


def agree(line: bytes) -> bool:
    usual = read_usual([line])
    if not usual.models:
        return False
    row = read_row(7, line_content(line, 7, len(line)), RULES)
    assert isinstance(row, Request)
    assert ([row.custom_id], row.task, [row.model]) == (usual.custom_ids, "chat", usual.models)
    return True


@given(ROW)
@settings(max_examples=400, deadline=None)
def test_whatever_a_row_holds_both_ways_agree(row: dict[str, Any]) -> None:
    agree(json.dumps(row).encode("utf-8", "replace"))


@given(st.integers(0, len(USUAL) - 1), st.binary(max_size=3))
@example(USUAL.index(b"Hi"), b"  ")
@example(USUAL.index(b"Hi"), b"\\n")
@example(USUAL.index(b"Hi"), b"\xff\xfe")
@example(USUAL.index(b"Hi"), b"\x01a")
@example(USUAL.index(b"5,"), b"1e2")
@example(USUAL.index(b"5,"), b"5.0")
@example(0, b" \t\r")
@example(0, b"\x0c")
@example(0, b"\xef\xbb\xbf")
@settings(max_examples=600, deadline=None)
def test_whatever_bytes_are_changed_both_ways_agree(place: int, change: bytes) -> None:
    agree(USUAL[:place] + change + USUAL[place + len(change) :])
    agree(USUAL[:place] + change + USUAL[place:])


@pytest.mark.parametrize("number", ["1e2", "1.0", "-1", "0", "1E400", "9" * 30, "true", "01"])
@pytest.mark.parametrize("name", [b'"max_tokens": 5', b'"temperature": 0.5'])
def test_both_ways_agree_on_numbers(name: bytes, number: str) -> None:
    field = name.split(b":")[0]
    agree(USUAL.replace(name, field + b": " + number.encode()))


def test_the_short_way_is_taken() -> None:
    assert agree(USUAL)
    assert not agree(USUAL.replace(b"POST", b"GET"))
    assert not agree(USUAL.replace(b"custom_id", b"id"))
    assert not agree(USUAL.replace(b"Hi", b""))
    assert not agree(USUAL.replace(b"Hi", b" "))


def test_a_run_ends_before_the_first_row_that_is_not_usual() -> None:
    other = USUAL.replace(b'"a"', b'"b"')
    unread = iter([USUAL, other, b"{", USUAL])
    assert read_usual(unread) == (["a", "b"], ["m", "m"])
    assert list(unread) == [USUAL]
    assert read_usual([USUAL.replace(b"Hi", b" "), USUAL]) == read_usual([]) == ([], [])
