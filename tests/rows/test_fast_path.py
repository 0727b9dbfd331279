"""The short way of a scan accepts only what the long way accepts, as the same request."""

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.jobs import JobOptions
from workers.intake.pieces import Run, Seen, answer_weight, seen
from workers.rows import fast_path
from workers.rows.blocks import Block
from workers.rows.fast_path import UsualRows
from workers.rows.lines import line_content
from workers.rows.reading import Request, RowRules, read_row

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
PROMPT = b'{"id": 12, "prompt": "Hi", "model": "m", "max_tokens": 5, "temperature": 0.5}'
EMBEDDING = b'{"custom_id": "a", "url": "/v1/embeddings", "body": {"model": "m", "input": "Hi"}}'
TEMPLATE: dict[str, Any] = {"prompt": "{prompt}?", "max_tokens": "{max_tokens}"}


def rules_of(**options: Any) -> RowRules:
    return RowRules.of(JobOptions(**options), max_line_bytes=1 << 20)


PLAIN, FILLED = rules_of(), rules_of(template=TEMPLATE)
ALTERED = rules_of(system_prompt="Be short.", top_p=0.5, parameters={"n": 100}, dimensions=9_999)


def block_of(lines: list[bytes]) -> Block:
    piece = b"".join(line + b"\n" for line in lines)
    return Block(piece, 0, len(piece))


def read(lines: list[bytes], rules: RowRules = PLAIN, number: int = 7) -> list[Seen | None]:
    """What is kept of each line that is usual, where all of them are read as one block."""
    reader, block, found = UsualRows(rules, answer_weight), block_of(lines), list[Seen | None]()
    while (at := len(found)) < len(lines):
        if usual := reader.read(block, at):
            assert isinstance(usual.weights, int) or len(usual.weights) == len(usual.models)
            starts = block.starts[at : at + len(usual.models) + 1]
            for start, length, row in Run(number + at, starts[0], starts, usual):
                assert (start, length) == (block.starts[len(found)], len(lines[len(found)]))
                assert isinstance(row, Seen)
                # Not those of numpy, of which JSON and pydantic know nothing.
                assert {type(start), type(length), type(row.weight)} == {int}
                found.append(row)
        else:
            found.append(None)
    return found


def is_usual(line: bytes, rules: RowRules = PLAIN) -> bool:
    """Whether a line is; if so, it is read as the long way reads it."""
    [usual] = read([line], rules)
    if usual is None:
        return False
    row = read_row(7, line_content(line, 7, len(line)), rules)
    assert isinstance(row, Request)
    assert seen(row) == usual
    return True


@pytest.mark.slow
@given(ROW)
@settings(max_examples=400, deadline=None)
def test_whatever_a_row_holds_both_ways_agree(row: dict[str, Any]) -> None:
    is_usual(json.dumps(row).encode("utf-8", "replace"))


@pytest.mark.slow
@given(
    st.integers(0, len(USUAL) - 1),
    # A line holds no newline: it ends at the first.
    st.binary(max_size=3).filter(lambda change: b"\n" not in change),
    st.sampled_from([USUAL, PROMPT, EMBEDDING]),
    st.sampled_from([PLAIN, ALTERED, FILLED]),
)
@example(USUAL.index(b"Hi"), b"  ", USUAL, PLAIN)
@example(USUAL.index(b"Hi"), b"\\n", USUAL, PLAIN)
@example(USUAL.index(b"Hi"), b"\xff\xfe", USUAL, PLAIN)
@example(USUAL.index(b"Hi"), b"\x01a", USUAL, PLAIN)
@example(USUAL.index(b"5,"), b"1e2", USUAL, PLAIN)
@example(USUAL.index(b"5,"), b"5.0", USUAL, PLAIN)
@example(PROMPT.index(b"12"), b"-0", PROMPT, PLAIN)
@example(PROMPT.index(b"Hi"), b"  ", PROMPT, FILLED)
@example(0, b" \t\r", USUAL, PLAIN)
@example(0, b" \t\r", PROMPT, FILLED)
@example(0, b"\x0c", USUAL, PLAIN)
@example(0, b"\xef\xbb\xbf", USUAL, PLAIN)
@settings(max_examples=1000, deadline=None)
def test_whatever_bytes_are_changed_both_ways_agree(
    place: int, change: bytes, line: bytes, rules: RowRules
) -> None:
    is_usual(line[:place] + change + line[place + len(change) :], rules)
    is_usual(line[:place] + change + line[place:], rules)


NUMBERS = ["1e2", "1.0", "-1", "0", "-0", "1E400", "9" * 30, "true", "null", "01", '"1"']


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", [b'"max_tokens": 5', b'"temperature": 0.5', b'"id": 12'])
@pytest.mark.parametrize("rules", [PLAIN, ALTERED, FILLED])
def test_both_ways_agree_on_numbers(name: bytes, number: str, rules: RowRules) -> None:
    changed = name.split(b":")[0] + b": " + number.encode()
    is_usual(USUAL.replace(name, changed), rules)
    is_usual(PROMPT.replace(name, changed), rules)


OWN: dict[str, list[Any]] = {
    "user": ["u"],
    "max_completion_tokens": [1, 500],
    "top_p": [0, 1, 0.5],
    "seed": [42, -1],
    "stop": ["x", ["x", "\n\n"]],
    "presence_penalty": [-2, 0.5],
    "frequency_penalty": [1, -0.5],
    "repetition_penalty": [1.1],
    "top_k": [40, -1],
    "min_p": [0.05],
    "n": [1, 2, 128],
    "logprobs": [True, False],
    "top_logprobs": [5],
    "stream": [False],
    "response_format": [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": {"minimum": -1.5}}},
    ],
}
OWN_OF_EMBEDDINGS: dict[str, list[Any]] = {
    "user": ["u"],
    "dimensions": [1, 3072],
    "encoding_format": ["float", "base64"],
    "input_type": ["query"],
}
DEEP = json.loads('{"a":' * 99 + "{}" + "}" * 99)
ANY_VALUE = [
    *(None, True, 0, 1, -1, 129, 2**53, 2**53 + 1, 2**64, 10**30, 0.5, 1.0, 1e300, "", " ", "a"),
    *([], ["a"], [7], {}, {"a": 2**64}, {"a": [[{}]]}, DEEP, [DEEP]),
]
CAPPED = rules_of(max_total_tokens=100, max_tokens=5)


def saying(line: bytes, name: str, value: Any) -> bytes:
    """A line whose body says this as well."""
    row = json.loads(line)
    row.get("body", row)[name] = value
    return json.dumps(row).encode()


@pytest.mark.parametrize("rules", [PLAIN, ALTERED, CAPPED])
@pytest.mark.parametrize(
    ("line", "own"), [(USUAL, OWN), (PROMPT, OWN), (EMBEDDING, OWN_OF_EMBEDDINGS)]
)
def test_it_is_taken_for_parameters_of_a_row_s_own(
    line: bytes, own: dict[str, list[Any]], rules: RowRules
) -> None:
    for name, values in own.items():
        for value in (*values, None):
            assert is_usual(saying(line, name, value), rules), (name, value)


@pytest.mark.parametrize("rules", [PLAIN, ALTERED, CAPPED])
@pytest.mark.parametrize("line", [USUAL, PROMPT, EMBEDDING])
def test_both_ways_agree_on_any_value_of_any_parameter(line: bytes, rules: RowRules) -> None:
    unheard = ["unheard", "tools", "echo", "prompt_logprobs", "best_of", "messages", "input"]
    for name in (*OWN, *OWN_OF_EMBEDDINGS, "max_tokens", "temperature", "model", *unheard):
        for value in ANY_VALUE:
            is_usual(saying(line, name, value), rules)


def test_the_short_way_is_taken() -> None:
    assert is_usual(USUAL)
    assert is_usual(USUAL.replace(b"custom_id", b"id"))
    assert is_usual(USUAL + b" \r")
    assert not is_usual(USUAL.replace(b"POST", b"GET"))
    assert not is_usual(USUAL.replace(b"Hi", b""))
    assert not is_usual(USUAL.replace(b"Hi", b" "))


@pytest.mark.parametrize("rules", [PLAIN, ALTERED, rules_of(max_tokens=5), rules_of(model="m")])
@pytest.mark.parametrize(
    "line",
    [
        *(USUAL, PROMPT, EMBEDDING, b'{"prompt": "p"}', b'{"input": "i"}'),
        *(b'{"custom_id": "a", "prompt": "p"}', b'{"prompt_id": 7, "prompt": "p"}'),
        b'{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}]}',
    ],
)
def test_it_is_taken_in_every_dialect_whatever_the_options_add(
    line: bytes, rules: RowRules
) -> None:
    assert is_usual(line, rules)


@pytest.mark.parametrize("line", [b'{"q": "a", "n": 7}', b'{"q": 7, "n": "a", "x": [1], "id": 8}'])
@pytest.mark.parametrize(
    "template",
    [
        *({"prompt": "{q}?"}, {"input": "Of {n}: {q}"}, {"prompt": "{{q}} {q}", "max_tokens": 9}),
        {"custom_id": "row-{n}", "messages": [{"role": "user", "content": "{n}, {q}"}]},
        {"url": "/v1/embeddings", "body": {"model": "m", "input": "é {q}"}},
    ],
)
def test_it_is_taken_for_what_a_template_makes(template: dict[str, Any], line: bytes) -> None:
    rules = rules_of(template=template, template_for="other_rows", max_tokens=5)
    assert is_usual(line, rules)
    assert is_usual(USUAL, rules)


def test_it_is_not_taken_where_the_options_are_wrong_or_have_to_be_judged_in_each_row() -> None:
    assert not is_usual(USUAL, rules_of(parameters={"n": 0}))
    assert not is_usual(USUAL, rules_of(system_prompt=" "))
    assert not is_usual(USUAL, rules_of(endpoint="/v1/embeddings"))
    assert not is_usual(USUAL, rules_of(max_total_tokens=100, parameters={"unheard": 1}))
    assert not is_usual(PROMPT, rules_of(template={"prompt": "{missing}"}))


def test_a_job_with_a_cap_takes_what_is_bounded() -> None:
    silent = b'{"prompt": "Hi", "model": "m"}'
    capped = rules_of(max_total_tokens=100)
    assert is_usual(USUAL, capped)
    assert is_usual(PROMPT, capped)
    assert is_usual(EMBEDDING, capped)
    assert not is_usual(silent, capped)
    assert not is_usual(PROMPT.replace(b"Hi", b" "), capped)
    assert is_usual(silent.replace(b"}", b', "max_completion_tokens": 5}'), capped)
    assert is_usual(silent, rules_of(max_total_tokens=100, max_tokens=5))


SPANNING = [
    *(b'{"prompt":', b'"Hi"', b"}", b'{"prompt":"p","response_format":{"a":{}', b"{}}}"),
    *(b'{"prompt":"r","response_format":', b'{"a":1}}'),
]
LINES = st.sampled_from(
    [
        *(USUAL, PROMPT, EMBEDDING, b'{"prompt":"p"}', b'{"prompt_id":7,"prompt":"p"}'),
        *(USUAL + b"\r", PROMPT + b"\r", b"\t" + PROMPT, PROMPT + b" ", PROMPT + b"\r\r"),
        *(b"", b"\r", b" \t", b"{", b"}", b"{}", b"7", b"\xef\xbb\xbf" + PROMPT, b'{"q":"a"}'),
        *(PROMPT * 2, b'{"prompt":"p"}' * 2, PROMPT + b"\r" + PROMPT, b"[" + PROMPT + b"]"),
        *(PROMPT.replace(b"Hi", b" "), PROMPT.replace(b"Hi", b"}"), USUAL.replace(b"5,", b"0,")),
        *(b'{"prompt":"p', b'q"}', b'{"prompt":"}', b'{"}', b'{"prompt":"p"},', *SPANNING),
        PROMPT.replace(b"Hi", b"y" * 9_000),
    ]
)


@pytest.mark.slow
@given(
    st.lists(
        st.lists(LINES, max_size=3).map(lambda lines: lines * 5) | st.lists(LINES, max_size=3)
    ),
    st.sampled_from([PLAIN, ALTERED, FILLED, CAPPED]),
    st.sampled_from([1, 2, 5, 64]),
    st.sampled_from([b"", b"\r"]),
)
@settings(max_examples=500, deadline=None)
def test_lines_are_read_together_as_each_by_itself(
    parts: list[list[bytes]], rules: RowRules, together: int, end: bytes
) -> None:
    lines = [line + end for part in parts for line in part]
    with patch.object(fast_path, "_TOGETHER", together):
        found = read(lines, rules)
    assert found == [row for at, line in enumerate(lines, 7) for row in read([line], rules, at)]


@pytest.mark.parametrize("end", [b"", b"\r"])
@pytest.mark.parametrize(
    "lines",
    [
        [b'{"prompt":"p"}{"prompt":"q"}', b""],
        [b"", b'{"prompt":"p"}{"prompt":"q"}'],
        [b'{"prompt":"p"} {"prompt":"q"}', b'{"prompt":', b'"r"}'],
        [b'{"prompt":"p"}{"prompt":"q"}', b'{"prompt":"r"', b"}"],
        [b'{"prompt":"p"}{"prompt":"q"}', b'{"prompt":"r","response_format":{"a":{}', b"{}}}"],
        [b'{"prompt":"p"}{"prompt":"q"}', b'{"prompt":"r","response_format":', b'{"a":1}}'],
    ],
)
def test_as_many_rows_as_lines_are_not_taken_for_a_row_in_each(
    lines: list[bytes], end: bytes
) -> None:
    """msgspec reads several values from a line, and one from several."""
    together = read([*[PROMPT + end] * 3, *[line + end for line in lines], PROMPT + end])
    assert [row is not None for row in together] == [True] * 3 + [False] * len(lines) + [True]


@pytest.mark.parametrize("end", [b"", b"\r"])
def test_usual_lines_are_read_many_at_a_time(end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind others, once all up to the end of a piece were usual."""

    def refuse(*_: Any) -> None:
        raise AssertionError

    reader = UsualRows(PLAIN, answer_weight)
    lines = [USUAL + end] * 200
    assert reader.read(block_of([*lines, PROMPT]), 0)
    assert reader.read(block_of(lines), 0)
    monkeypatch.setattr(fast_path, "_decoded", refuse)
    usual = reader.read(block_of(lines), 0)
    assert usual is not None
    assert len(usual.models) == 200


def test_a_run_ends_before_the_first_row_that_is_not_usual() -> None:
    other = USUAL.replace(b'"a"', b'"b"')
    for odd in (b"{", USUAL.replace(b"Hi", b" "), PROMPT, b""):
        reader = UsualRows(PLAIN, answer_weight)
        usual = reader.read(block_of([USUAL, other, odd, USUAL]), 0)
        assert usual is not None
        assert [*zip(usual.custom_ids, usual.models, strict=True)] == [("a", "m"), ("b", "m")]
    assert reader.read(block_of([USUAL.replace(b"Hi", b" "), USUAL]), 0) is None
    assert reader.read(block_of([b"{", USUAL]), 1) is not None


@pytest.mark.parametrize("every", [1, 2, 20])
def test_little_is_read_in_vain_however_often_a_text_is_blank(
    every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, plain = [], fast_path._Plain.read

    def counted(*asked: Any) -> Any:
        found = plain(*asked)
        decoded.append(len(found[0]))
        return found

    monkeypatch.setattr(fast_path._Plain, "read", counted)
    reader, rows = UsualRows(PLAIN, answer_weight), 6_000
    lines = [PROMPT if at % every else PROMPT.replace(b"Hi", b" ") for at in range(rows)]
    block, at = block_of(lines), 0
    while at < rows:
        usual = reader.read(block, at)
        at += 1 if usual is None else len(usual.models)
    assert sum(decoded) <= 2 * rows + 1000


def test_a_run_of_large_requests_is_short() -> None:
    """Reading it holds the loop, and a template makes much of little."""
    line = b'{"q": "a"}'
    for places, most in ((1, 5_000), (100, 40), (1000, 1)):
        reader = UsualRows(rules_of(template={"prompt": "{q}" * places}), answer_weight)
        usual = reader.read(block_of([line] * 10_000), 0)
        assert usual is not None
        assert len(usual.models) <= most
