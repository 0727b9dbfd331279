"""`validate` says what the service's intake says of the same file."""

import io
import json
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3batch.checking import Checker, context_in_name, lines_in, rules_for
from schemas.jobs import JobOptions
from workers.intake.pieces import Scanner, Seen
from workers.intake.planning import JUDGED_ROWS, DuplicateFinder
from workers.rows.lines import kept_bytes
from workers.rows.reading import Refusal

MAX_LINE = 1024
ROWS = st.one_of(
    st.builds(lambda n: json.dumps({"prompt": "p", "id": n}).encode(), st.integers(0, 5)),
    st.builds(lambda n: json.dumps({"messages": [], "id": n}).encode(), st.integers(0, 5)),
    st.builds(lambda n: json.dumps({"input": "i" * n}).encode(), st.integers(0, 2 * MAX_LINE)),
    st.sampled_from([b"", b"  ", b"{", b"[]", b"\xff", b"\r", b'{"prompt": "p", "id": 1e3}']),
    st.just(b'{"input": "' + b"x" * (kept_bytes(MAX_LINE) + 5) + b'"}'),
)
FILES = st.builds(
    lambda rows, end, bom: bom + b"\n".join(rows) + end,
    st.lists(ROWS, max_size=12),
    st.sampled_from([b"", b"\n"]),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
)


def checked(data: bytes, **options: Any) -> tuple[Checker, list[Refusal]]:
    contexts = options.pop("contexts", {})
    checker = Checker(rules_for(JobOptions(**options), MAX_LINE), contexts)
    return checker, list(checker.refusals(io.BytesIO(data)))


def json_or_none(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


@given(data=FILES, duplicates=st.sampled_from(["refuse", "number"]))
def test_the_verdicts_are_those_of_the_intake(data: bytes, duplicates: Any) -> None:
    checker, refusals = checked(data, on_duplicate=duplicates)
    rules = checker.rules
    if checker.report.foreign is not None:
        assert refusals == []
        rows = [json_or_none(line) for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
        assert not any(isinstance(row, dict) for row in rows)
        return
    scanner, finder = Scanner(rules), DuplicateFinder()
    scanned = [*chain(*scanner.feed(data), *scanner.close())]
    refused = [row for _, _, row in scanned if isinstance(row, Refusal)]
    asked = [row for _, _, row in scanned if isinstance(row, Seen)]
    for row in asked:
        finder.add(row.custom_id)
    finder.candidates()
    twice = {r.line for r in asked if finder.confirm(r.line, r.custom_id, named=r.named)}
    repeated = [r for r in refusals if r.code == "duplicate_custom_id"]
    assert [r for r in refusals if r.code != "duplicate_custom_id"] == refused
    assert {r.line for r in repeated} == (twice if duplicates == "refuse" else set())
    report = checker.report
    assert report.rows == len(scanned)
    assert report.requests == len(asked) - len(repeated) == report.tasks.total()
    assert report.refused == len(refusals)
    assert [(line.offset, line.length) for line in lines_in(io.BytesIO(data), MAX_LINE)] == [
        (offset, length) for offset, length, _ in scanned
    ]


def test_a_file_that_is_no_json_lines_is_told_what_it_is() -> None:
    checker, refusals = checked(b"a,b\n1,2\n" * 2000)
    assert refusals == []
    assert checker.report.rows == JUDGED_ROWS
    assert checker.report.foreign is not None
    assert "a CSV" in checker.report.foreign


def test_strange_rows_are_told_in_their_order_once_one_is_not() -> None:
    checker, refusals = checked(b'1\n2\n{"prompt": "hi"}\n3\n')
    assert [refusal.line for refusal in refusals] == [1, 2, 4]
    assert checker.report.foreign is None


def test_rows_over_the_context_are_told_apart_from_those_that_may_be() -> None:
    rows = [
        {"prompt": "x" * 900, "model": "Phi-3-mini-4k-instruct"},
        {"prompt": "x" * 900, "model": "tiny"},
        {"prompt": "x" * 120, "model": "tiny", "max_tokens": 1},
        {"prompt": "x", "model": "tiny", "max_tokens": 1},
    ]
    data = "\n".join(map(json.dumps, rows)).encode()
    checker, (refusal,) = checked(data, contexts={"tiny": 40})
    assert (refusal.line, refusal.code) == (2, "context_length_exceeded")
    assert "more tokens than the 40 that tiny can read" in refusal.message
    assert checker.report.perhaps_too_long == 1
    assert checker.report.long_lines == [3]
    assert checker.report.contextless == 0
    assert checker.report.requests == 3


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("Phi-3-mini-4k-instruct", 4096),
        ("phi-3-small-128K-instruct", 131072),
        ("Phi-3-medium-4k", 4096),
        ("phi3", None),
        ("gpt-4k4", None),
    ],
)
def test_the_context_that_a_name_tells(model: str, tokens: int | None) -> None:
    assert context_in_name(model) == tokens


def test_the_first_requests_are_those_that_are_asked_by_their_ids() -> None:
    data = b"".join(b'{"prompt": "p", "id": "%d"}\n' % each for each in (1, 1, 2, 3, 4))
    for option, ids in (("refuse", ["1", "2", "3"]), ("number", ["1", "1#2", "2"])):
        checker, refusals = checked(data, on_duplicate=option)
        assert len(refusals) == (option == "refuse")
        assert [each["custom_id"] for each in checker.report.first] == ids


def test_the_first_requests_are_shown_as_they_are_sent() -> None:
    checker, _ = checked(b'{"prompt": "hello"}\n' * 5, system_prompt="Be brief.", max_tokens=3)
    assert len(checker.report.first) == 3
    assert checker.report.first[0] == {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "max_tokens": 3,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "hello"},
            ],
        },
    }
