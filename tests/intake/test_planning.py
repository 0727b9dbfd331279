"""A plan covers every row once, whatever the pieces; duplicates are found exactly."""

import json
from collections import Counter
from itertools import accumulate, chain, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.deployments import Task
from schemas.jobs import JobOptions
from schemas.plans import PlannedShard
from workers.intake import planning
from workers.intake.pieces import (
    MAX_ANSWER_BYTES,
    Run,
    ScannedRow,
    ScannedRows,
    Scanner,
    Seen,
    seen,
)
from workers.intake.planning import Draft, DuplicateFinder, Planner, Survey
from workers.rows.dialects import told_apart
from workers.rows.fast_path import Usual
from workers.rows.lines import kept_bytes, lines_of
from workers.rows.most_tokens import most_tokens
from workers.rows.reading import MAX_BYTES, Refusal, Request, RowRules, read_row
from workers.rows.sizes import MOST_KINDS, SizeSample

MAX_LINE = 70_000
RULES = RowRules.of(JobOptions(), max_line_bytes=MAX_LINE, default_models={"chat": "phi"})


def scanned(data: bytes, sizes: list[int] | None = None) -> list[ScannedRow]:
    """All rows of a file that comes in pieces of these sizes, over and over."""
    scanner, rows, start, turn = Scanner(RULES), list[ScannedRow](), 0, 0
    while start < len(data):
        size = sizes[turn % len(sizes)] if sizes else len(data)
        rows += chain(*scanner.feed(data[start : start + size]))
        start, turn = start + size, turn + 1
    return [*rows, *chain(*scanner.close())]


def test_a_scan_gives_the_template_what_the_template_decides() -> None:
    """Not the fast path, which would ask a usual row as it stands."""
    chat = {"model": "phi", "messages": [{"role": "user", "content": "a column"}]}
    line = json.dumps({"custom_id": "a", "url": "/v1/chat/completions", "body": chat}).encode()
    template: dict[str, Any] = {"prompt": "{question}"}
    decides = JobOptions(template=template)
    for options, refused in (
        (decides, True),
        (decides.model_copy(update={"template_for": "other_rows"}), False),
    ):
        rules = RowRules.of(options, max_line_bytes=MAX_LINE)
        fed = Scanner(rules).feed(b"\n" + line + b"\n" + line + b"\n")
        rows = [row for _, _, row in chain(*fed)]
        assert [isinstance(row, Refusal) for row in rows] == [refused, refused]


def planned(data: bytes, sizes: list[int] | None = None) -> list[PlannedShard]:
    planner = Planner(len(data))
    shards = [
        planner.add(offset, length, row.line, row.weight if isinstance(row, Seen) else length)
        for offset, length, row in scanned(data, sizes)
    ]
    return [shard for shard in (*shards, planner.close()) if shard is not None]


def as_run(data: bytes, shard: PlannedShard) -> list[Request | Refusal]:
    """The rows that a runner reads in a shard."""
    most = max(MAX_BYTES, kept_bytes(MAX_LINE) + 1)
    piece = data[shard.offset : shard.offset + min(shard.length, most)]
    lines = lines_of(piece, MAX_LINE, number=shard.line, offset=shard.offset, length=shard.length)
    return [read_row(line.number, line.content, RULES, line.offset, line.length) for line in lines]


LINES = st.sampled_from(
    [
        b"",
        b" \t",
        b"\r",
        b"{",
        b'{"prompt": "p"}',
        b'{"prompt": "p"}\r',
        b'  {"custom_id": "a", "prompt": "q"} ',
        b'\xef\xbb\xbf{"prompt": "p"}',
        b'{"prompt": "\xff"}',
        b"x" * MAX_LINE,
        b"x" * (MAX_LINE + 1),
        b" " * MAX_LINE,
        b" " * (MAX_LINE + 1),
        b" " * (MAX_LINE - 14) + b'{"prompt": "p"}',
        b" " * (MAX_LINE * 3) + b'{"prompt": "p"}',
        b'{"prompt": "' + b"y" * MAX_LINE * 2 + b'"}',
        b'{"error": {}, "raw": "' + b'\\"' * (MAX_LINE - 1) + b'"}',
    ]
)
FILES = st.builds(
    lambda start, lines, end: start + b"\n".join(lines) + end,
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(LINES, max_size=12),
    st.sampled_from([b"", b"\n", b"\r\n", b" \n\n"]),
)
SIZES = st.lists(st.integers(1, 300) | st.integers(10_000, 200_000), min_size=1, max_size=4)


@given(FILES, SIZES)
@settings(max_examples=150, deadline=None)
def test_rows_are_the_same_whatever_the_pieces(data: bytes, sizes: list[int]) -> None:
    sizes = [max(size, len(data) // 2000) for size in sizes]
    assert _told(scanned(data, sizes)) == _told(scanned(data))


def _told(rows: list[ScannedRow]) -> list[Any]:
    """Rows without the text of over-long ones, of which a scan keeps only the beginning."""
    return [
        (offset, length, row if isinstance(row, Seen) else (row.line, row.code, row.message))
        for offset, length, row in rows
    ]


def _usual(**other: Any) -> bytes:
    turns = [{"role": "user", "content": other.pop("content", "Hi")}]
    row = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
    body = {"model": other.pop("model", "phi"), "messages": turns, **other.pop("said", {})}
    return json.dumps({**row, **other, "body": body}, ensure_ascii=False).encode()


USUAL = st.builds(
    _usual, custom_id=st.sampled_from("abcd") | st.text(max_size=2), model=st.sampled_from("mn")
) | st.sampled_from([_usual(), _usual() + b"\r", b" " + _usual(content="é" * 9_000)])
ODDITIES = [
    *(b"", b"\r", b"{", b"7", b'{"prompt": "p"}', b"x" * (MAX_LINE + 1)),
    *(_usual(content=" "), _usual(method="GET"), _usual(id=7), _usual(custom_id=8)),
    *(_usual() * 2, _usual() + b"," + _usual(), _usual()[:-1], _usual()[50:], b"}"),
    _usual(content="y" * MAX_LINE),
    b'{"error": {"code": "c"}, "custom_id": "a", "request": {"prompt": "p"}}',
    b'{"error": {"code": "c"}, "raw": "{\\"q\\": \\"p\\"}"}',
    *(b'{"prompt": "\\ud800"}', b'{"q": "\\ud800"}', b'{"q": "p", "x": "\xff"}'),
    *(b'{"q": "p", "x": 1e999}', b'{"q": "p", "x": ' + b"[" * 101 + b"]" * 101 + b"}"),
    *(b'{"prompt": " ", "prompt": "p"}', b'{"prompt": "p", "prompt": 7}'),
    *(_usual(said={"id": "a"}), _usual(said={"max_tokens": 7, "custom_id": "a"})),
    *(b'{"id": -0, "prompt": "p"}', b'{"id": 7.0, "prompt": "p"}', b'{"id":1e2,"input":"i"}'),
    *(b'{"prompt": "p"}{"prompt": "q"}\n', b'{"prompt": "p"}{"prompt": "q"}\n{"prompt":\n"r"}'),
    b'{"prompt": "p", "response_format": {"a": {}\n{}}}',
]
ODD = st.sampled_from(ODDITIES)
# What an id, a text, a name or a number may be, and what it may not.
VALUE = st.sampled_from([None, True, 0, 1, 7, 2**53 + 1, 10**30, -1, 1.5, 1.0, 1e300, "", " ", "a"])
TEXT = st.sampled_from(["Hi", "1", "é", "\u00a0", 'a "quote"\\', "{q}", "x" * 600]) | VALUE
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "robot"]), "content": TEXT},
    optional={"name": st.just("n")},
)
SAID: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"prompt": TEXT}, optional={"messages": st.just([])}),
    st.fixed_dictionaries({"input": TEXT | st.lists(TEXT, max_size=2)}),
    st.fixed_dictionaries({"messages": st.lists(TURN, max_size=3) | VALUE}),
    st.fixed_dictionaries({"q": TEXT}, optional={"r": TEXT | st.just({"s": ["t"]})}),
)
# Parameters of a row's own, of which some have the values that are usual and others any.
USUAL_VALUES: dict[str, list[Any]] = {
    "model": ["m"],
    "user": ["u", ""],
    "max_tokens": [1, 70],
    "max_completion_tokens": [1, 90],
    "temperature": [0, 0.5],
    "top_p": [0, 1, 0.5],
    "seed": [42, -1],
    "stop": ["x", ["x", "\n"], [], ["x", 7]],
    "presence_penalty": [-2, 0.5],
    "frequency_penalty": [-2.0, 1],
    "repetition_penalty": [1.1],
    "top_k": [40, -1],
    "min_p": [0.05],
    "n": [1, 2, 128, 129],
    "logprobs": [True, False],
    "top_logprobs": [0, 5, 20],
    "stream": [True, False],
    "response_format": [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "é", "schema": {"a": [1.0, None, 2**64]}}},
        {"type": json.loads("[" * 101 + "]" * 101)},
        [],
    ],
    "dimensions": [1, 64, 100_000],
    "encoding_format": ["float", "base64"],
    "input_type": ["query"],
    "unheard": [1],
    "echo": [True],
    "service_tier": ["priority"],
    "tools": [[{"type": "function"}]],
}
OWN = st.sampled_from([*USUAL_VALUES]).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(USUAL_VALUES[name]) | VALUE)
)
BODY = st.builds(lambda said, own: said | dict(own), SAID, st.lists(OWN, max_size=3))
URL = st.sampled_from(["/v1/chat/completions", "/chat/completions", "/v1/embeddings", "/other"])
IDS = dict.fromkeys(("custom_id", "id", "prompt_id"), VALUE | st.text(max_size=2))
ROW = st.builds(
    lambda row, ids: json.dumps(ids | row, ensure_ascii=False).encode("utf-8", "replace"),
    BODY | st.fixed_dictionaries({"url": URL, "body": BODY}, optional={"method": st.just("POST")}),
    st.fixed_dictionaries({}, optional=IDS),
)
# What a job with a cap counts, as it may be written.
NUMBER = st.sampled_from(["1", "0", "0.50", "1e2", "1E+2", "1e-7", "-0", "0.0", "1e15", "1e16"])
COUNTED_TEXT = st.sampled_from(
    ["Hi", "\\u00e9", "é\U0001f600", '\\"\\\\\\/', "\\n\\u0000\\u007f\x7f", "\\ud83d\\ude00"]
)
COUNTED = st.builds(
    lambda turns, more: (
        '{"messages": ['
        + ",".join(f'{{"content":"{text}","role":"{role}"}}' for role, text in turns)
        + "]"
        + "".join(f',"{name}":{value}' for name, value in more.items())
        + "}"
    ).encode(),
    st.lists(
        st.tuples(st.sampled_from(["user", "assistant", "system", "developer"]), COUNTED_TEXT),
        min_size=1,
        max_size=3,
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "model": st.sampled_from(['"m"', '"n"', '"\\u00e9"']),
            "max_tokens": st.sampled_from(["1", "70", "9007199254740992", "null"]),
            "max_completion_tokens": st.sampled_from(["9", "null"]),
            "temperature": NUMBER,
            "min_p": NUMBER,
            "seed": NUMBER,
            "n": st.sampled_from(["1", "3", "null"]),
            "logprobs": st.sampled_from(["true", "false"]),
            "stop": st.sampled_from(['"\\u00e9"', '["\\n", "\U0001f600"]', '""', "null"]),
            "response_format": COUNTED_TEXT.map(lambda text: f'{{"type": ["{text}", 1e2, -0.0]}}'),
        },
    ),
) | st.builds(
    lambda text, limit: f'{{"prompt": "{text}"{limit}}}'.encode(),
    COUNTED_TEXT,
    st.sampled_from(["", ', "max_tokens": 5', ', "max_tokens": 5, "temperature": 1e2']),
)
DIALECTS = USUAL | ODD | COUNTED | ROW | ROW.map(lambda line: b" " + line + b"\t\r")
# What is read many lines at a time, and what only looks as if it were.
TIGHT = (
    st.sampled_from([_usual(), _usual(custom_id=8), _usual(model="n", content="é" * 900)])
    | COUNTED
    | st.sampled_from([line for line in ODDITIES if line[:1] == b"{" and line[-1:] == b"}"])
)
RUNS = st.sampled_from([DIALECTS, TIGHT]).flatmap(
    lambda lines: st.lists(
        st.lists(lines, max_size=4).map(lambda few: few * 30)
        | st.lists(lines, max_size=4)
        | lines.map(lambda line: [line] * 100),
        max_size=4,
    )
)
FILE = st.builds(
    lambda start, parts, newline, end: bytearray(start + newline.join(chain(*parts)) + end),
    st.sampled_from([b"", b"\xef\xbb\xbf", b"\n"]),
    RUNS,
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from([b"", b"\n"]),
)

TEMPLATES: list[dict[str, Any]] = [
    {"prompt": "{q}"},
    {"prompt": "Q: {q}{r}", "model": "{model}", "max_tokens": "{max_tokens}"},
    {"custom_id": "row-{id}", "input": "{q}"},
    {"id": "{id}", "messages": [{"role": "user", "content": "{{}} {q}"}], "n": 3},
    {"messages": [{"role": "{r}", "content": "{q}"}, {"role": "user", "content": "{r.s.0}é"}]},
    {"url": "/embeddings", "body": {"input": "{q}", "dimensions": 64, "model": "m"}},
    {"url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "{q}"}]}},
    {"prompt": "{prompt}" * 40},
    {"method": "{q}", "body": "{body}"},
]
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just("phi"),
        "system_prompt": st.sampled_from(["", " ", "Be short.", "s" * 5_000]),
        "max_tokens": st.sampled_from([1, 100]),
        "temperature": st.just(0.5),
        "dimensions": st.sampled_from([1, 100_000]),
        "parameters": st.sampled_from(
            [
                *({"n": 100}, {"n": 129}, {"best_of": -1}, {"stream": True}, {"model": "own"}),
                *({"model": ""}, {"messages": "none"}, {"prompt": 7}, {"input": []}),
                *({"return_full_text": True}, {"best_of": 3}, {"max_completion_tokens": 9}),
                *({"tools": [{"type": "function"}]}, {"seed": 7}, {"unheard": 1}),
                *({"max_tokens": "x"}, {"encoding_format": "base64"}, {"id": "p"}),
            ]
        ),
        "template": st.sampled_from(TEMPLATES),
        "template_for": st.sampled_from(["all_rows", "other_rows"]),
        "on_missing": st.sampled_from(["refuse", "empty"]),
        "endpoint": st.sampled_from(["/v1/chat/completions", "/v1/embeddings"]),
        "mixed": st.booleans(),
        "max_total_tokens": st.just(1000),
    },
)


def _drafted(draft: Draft, parts: list[ScannedRows]) -> Any:
    for rows in parts:
        draft.add(rows)
    shards, finder = draft.close(), draft.finder
    hashes, candidates = list(finder._hashes), finder.candidates()
    for rows in parts:
        draft.confirm(rows)
    return shards, draft.survey, hashes, candidates, finder.duplicates, finder.repeated


@pytest.mark.slow
@given(FILE, OPTIONS, SIZES, st.lists(st.tuples(st.integers(0), st.binary(max_size=1)), max_size=3))
@settings(max_examples=400, deadline=None)
def test_a_plan_by_runs_is_that_by_rows(
    data: bytearray,
    options: dict[str, Any],
    sizes: list[int],
    changes: list[tuple[int, bytes]],
) -> None:
    """Whatever bytes a file has, whatever its job wants, and wherever its slices end."""
    for number, change in changes:
        place = number % (len(data) + 1)
        data[place : place + len(change)] = change
    file, size = bytes(data), len(data)
    models: dict[Task, str] = {"chat": "default"}
    rules = RowRules.of(JobOptions(**options), max_line_bytes=MAX_LINE, default_models=models)
    scanner, by_runs, turn, start = Scanner(rules), list[ScannedRows](), 0, 0
    while start < size:
        end = start + max(sizes[turn % len(sizes)], size // 500)
        by_runs += scanner.feed(file[start:end])
        start, turn = end, turn + 1
    by_runs += scanner.close()
    measured, by_rows, most = SizeSample(), list[ScannedRows](), Counter[Any]()
    for line in lines_of(file, MAX_LINE):
        row = read_row(line.number, line.content, rules, line.offset, line.length)
        if isinstance(row, Request):
            if line.number >= measured.due:
                measured.add(line.number, row.task, row.model, row.body)
            if rules.capped:
                prompt, answer = most_tokens(row.task, row.body) or (0, 0)
                most[row.task, row.model, "prompt"] += prompt
                most[row.task, row.model, "answer"] += answer
        by_rows.append([(line.offset, line.length, seen(row))])
    assert _told([*chain(*by_runs)]) == _told([*chain(*by_rows)])
    assert _drafted(Draft(size), by_runs) == _drafted(Draft(size), by_rows)
    assert (scanner.sizes.means, scanner.sizes.due) == (measured.means, measured.due)
    assert {
        (*kind, which): tokens
        for kind, both in scanner.most.items()
        if kind is not None
        for which, tokens in zip(("prompt", "answer"), both, strict=True)
    } == most


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(("odd", "rows"), [(b"", 0), (b"{", 1), (b"{}", 1)])
def test_usual_rows_come_in_runs(odd: bytes, rows: int, end: bytes) -> None:
    """Behind a `{}` they are read many at a time: all lines begin with { and end with }."""
    lines = [odd, *[_usual()] * 500, odd, _usual(), b""]
    found = list(Scanner(RULES).feed(end.join(lines)))
    assert [len(list(each)) for each in found] == [rows, 500, rows, 1]
    assert [isinstance(each, Run) for each in found] == [False, True, False, True]


def test_a_usual_row_that_is_too_long_is_refused() -> None:
    lines = [b"", _usual(), _usual(content="y" * MAX_LINE), _usual(), b""]
    _, refusal, _ = (row for _, _, row in chain(*Scanner(RULES).feed(b"\n".join(lines))))
    assert isinstance(refusal, Refusal)
    assert (refusal.line, refusal.code) == (3, "line_too_long")


@pytest.mark.slow
@given(FILES, SIZES)
@settings(max_examples=150, deadline=None)
def test_a_runner_sees_the_rows_that_were_planned(data: bytes, sizes: list[int]) -> None:
    sizes = [max(size, len(data) // 2000) for size in sizes]
    shards = planned(data, sizes)
    assert shards == planned(data)
    expected = [row for _, _, row in scanned(data)]
    run = [seen(row) for shard in shards for row in as_run(data, shard)]
    assert run == expected
    for shard in shards:
        rows = as_run(data, shard)
        assert shard.rows == len(rows)
        assert shard.line == rows[0].line
        assert shard.gaps == (rows[-1].line - rows[0].line + 1 != len(rows))
        assert shard.offset == 0 or data[shard.offset - 1 : shard.offset] == b"\n"
        end = shard.offset + shard.length
        assert end == len(data) or data[end : end + 1] == b"\n"
    for one, next_one in pairwise(shards):
        assert next_one.shard == one.shard + 1
        assert one.offset + one.length < next_one.offset


ROWS = st.lists(st.integers(1, 200) | st.integers(1, 9_000_000), max_size=40)


FACTORS = st.sampled_from([1, 1000, 10**6])
"""How many times as large a whole file is as the rows of it that are planned."""


@pytest.mark.slow
@given(
    ROWS,
    st.integers(1, 1200),
    st.lists(st.sampled_from([0, 1, 50, 2000]), min_size=1, max_size=7),
    FACTORS,
)
@settings(max_examples=200, deadline=None)
def test_shards_are_bounded_however_large_the_file(
    lengths: list[int], times: int, heavier: list[int], factor: int
) -> None:
    """Lengths alone matter to the planner: files too big to make can be planned all the same."""
    lengths = (lengths * times)[:5000]
    weights = [max(1, heavier[at % len(heavier)]) * length for at, length in enumerate(lengths)]
    size = (sum(lengths) + len(lengths)) * factor
    planner, offset, shards = Planner(size), 0, list[PlannedShard]()
    for number, (length, weight) in enumerate(zip(lengths, weights, strict=True), 1):
        if done := planner.add(offset, length, number, weight):
            shards.append(done)
        offset += length + 1
    if last := planner.close():
        shards.append(last)
    assert sum(shard.rows for shard in shards) == len(lengths)
    for shard in shards:
        assert shard.rows <= (planning.MAX_ROWS if factor == 1 else planning.MOST_ROWS)
        assert shard.length <= MAX_BYTES or shard.rows == 1
        held = weights[shard.line - 1 : shard.line - 1 + shard.rows]
        assert sum(held) <= MAX_BYTES or shard.rows == 1
    # By bytes no more than a file may have, beside those that two neighbours were too heavy for.
    heavy = 2 * sum(weights) / MAX_BYTES
    crowded = len(lengths) / planning.MOST_ROWS
    few = max(planning.USUAL_SHARDS, len(lengths) / planning.FEW_ROWS)
    assert len(shards) <= min(few, planning.LIGHT_SHARDS / factor) + heavy + crowded + 2


@pytest.mark.slow
@given(
    ROWS,
    st.integers(1, 300),
    st.lists(st.integers(1, 400), min_size=1),
    st.booleans(),
    st.tuples(
        st.lists(st.sampled_from([0, 1, 1_000_000, 9_000_000]), min_size=1, max_size=5), FACTORS
    ),
)
@settings(max_examples=200, deadline=None)
def test_runs_are_cut_as_their_rows_are(
    lengths: list[int],
    times: int,
    parts: list[int],
    blank: bool,
    huge: tuple[list[int], int],
) -> None:
    """Also where heavy rows stand between the runs."""
    heavy, factor = huge
    lengths = (lengths * times)[:3000]
    size = (sum(lengths) + 2 * len(lengths)) * factor
    by_runs, by_rows = Planner(size), Planner(size)
    in_runs, in_rows = list[PlannedShard](), list[PlannedShard]()
    offset, line, turn = 0, 1, 0
    while lengths:
        part = lengths[: parts[turn % len(parts)]]
        del lengths[: len(part)]
        if weight := heavy[turn % len(heavy)]:
            for planner, found in ((by_runs, in_runs), (by_rows, in_rows)):
                if done := planner.add(offset, 9, line, weight):
                    found.append(done)
            offset, line = offset + 10, line + 1
        count, weights = len(part), [each * (1 + turn % 3) for each in part]
        starts = [*accumulate((length + 1 for length in part), initial=turn)]
        usual = Usual("chat", ["a"] * count, ["m"] * count, weights, [], lambda at: {})
        run = Run(line, offset, starts, usual)
        in_runs += by_runs.add_run(run)
        for start, length, row in run:
            assert isinstance(row, Seen)
            if done := by_rows.add(start, length, row.line, row.weight):
                in_rows.append(done)
        offset, line, turn = run.offset(len(run)) + blank, line + len(run) + blank, turn + 1
    assert in_runs == in_rows
    assert by_runs.close() == by_rows.close()


def test_a_shard_is_bounded_as_requests_too() -> None:
    """A template makes much of little: what a runner holds at a time is requests."""
    planner, shards = Planner(1000 * 21), list[PlannedShard]()
    for at in range(1000):
        if done := planner.add(at * 21, 20, at + 1, 1024 * 1024):
            shards.append(done)
    assert {shard.rows for shard in shards} == {8}


@pytest.mark.slow
def test_a_shard_is_bounded_by_what_its_answers_may_be() -> None:
    """400 rows of 2,048 texts to embed come to many gigabytes: never more than one in a shard."""
    inputs = json.dumps({"input": ["text"] * 2048}).encode()
    assert [shard.rows for shard in planned(b"\n".join([inputs] * 400))] == [1] * 400
    few = json.dumps({"input": ["text"] * 2048, "dimensions": 64}).encode()
    rows = [shard.rows for shard in planned(b"\n".join([few] * 400))]
    assert sum(rows) == 400
    assert max(rows) * 2048 * 64 * 20 < MAX_ANSWER_BYTES
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4096}
    likely = json.dumps(chat | {"logprobs": True, "top_logprobs": 20}).encode()
    rows = [shard.rows for shard in planned(b"\n".join([likely] * 200))]
    assert sum(rows) == 200
    assert 1 < max(rows) <= MAX_ANSWER_BYTES / (4096 * 21 * 75)
    # What is usual is cut as ever.
    one = b'{"input": "text"}'
    assert max(shard.rows for shard in planned(b"\n".join([one] * 10_000))) == planning.MAX_ROWS


def test_a_file_of_few_rows_is_shared_by_several_workers() -> None:
    data = b'{"prompt": "p"}\n' * 1319
    shards = planned(data)
    assert 20 <= len(shards) <= planning.USUAL_SHARDS
    assert all(shard.rows >= planning.FEW_ROWS for shard in shards[:-1])
    assert len(planned(b'{"prompt": "p"}\n' * planning.FEW_ROWS)) == 1


def shards_of_a_thousandth(rows: int, length: int, body: dict[str, Any] | None = None) -> int:
    """How many shards the first rows of a huge file come to, which need not be written for it."""
    weight = length
    if body is not None:
        request = Request(1, "a", "embeddings", "m", body, size=length)
        row = seen(request)
        assert isinstance(row, Seen)
        weight = row.weight
    planner, part = Planner(rows * length), rows // 1000
    return sum(
        planner.add(at * length, length - 1, at + 1, weight) is not None for at in range(part)
    )


def test_a_plan_of_a_huge_file_stays_small_enough_to_read() -> None:
    assert 0 < shards_of_a_thousandth(200_000_000, 100) <= planning.LIGHT_SHARDS / 1000


def test_a_huge_file_of_vectors_fits_a_plan_and_no_shard_of_it_is_too_large() -> None:
    """10 GiB of texts to embed by a large model, one a row: 1.6 TB of answers."""
    one = {"input": "text", "dimensions": 3072}
    assert 48 <= shards_of_a_thousandth(24_000_000, 447, one) <= planning.MAX_SHARDS / 1000


def test_a_huge_file_of_heavy_rows_is_more_than_one_job_can_have() -> None:
    """10 GiB of 10 KB each, which ask for 2,048 vectors: a row a shard, and not gigabytes."""
    many = {"input": ["text"] * 2048}
    assert shards_of_a_thousandth(1_000_000, 10_737, many) == 1000 - 1


def test_a_file_of_too_many_shards_is_told_where_to_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planning, "MAX_SHARDS", 3)
    many = json.dumps({"input": ["text"] * 2048, "model": "m"}).encode()
    draft = Draft(1)
    for rows in Scanner(RULES).feed(b"\n".join([b"", *[many] * 9, b""])):
        draft.add(rows)
    assert len(draft.close()) == 3 + 1
    assert draft.beyond == 5
    fits = Draft(1)
    for rows in Scanner(RULES).feed(b"\n".join([b"", *[many] * 3, b""])):
        fits.add(rows)
    assert len(fits.close()) == 3
    assert fits.beyond is None


def test_a_line_of_any_length_costs_no_more_memory_than_the_limit() -> None:
    scanner = Scanner(RULES)
    for _ in range(1000):
        assert not list(chain(*scanner.feed(b"x" * 100_000)))
        assert len(scanner._rest) <= kept_bytes(MAX_LINE) + 1
    (offset, length, row), (after, _, other) = [
        *chain(*scanner.feed(b"\n" + b'{"prompt": "p"}'), *scanner.close()),
    ]
    assert (offset, length, after) == (0, 100_000_000, 100_000_001)
    assert isinstance(row, Refusal)
    assert (row.code, row.offset, row.length) == ("line_too_long", 0, 100_000_000)
    assert isinstance(other, Seen)
    assert other.line == 2


@given(
    st.lists(st.sampled_from("abcdefgh") | st.text(max_size=3) | st.integers(0, 30).map(str))
    | st.lists(st.sampled_from(["a", "b", "a#2", "a#3", "a#4", "b#3"]))
)
@settings(max_examples=300, deadline=None)
def test_duplicates_are_those_that_a_dict_finds(ids: list[str]) -> None:
    assert _duplicates(ids) == _by_dict(ids)


def test_duplicates_are_found_among_many() -> None:
    ids = [f"request-{at % 39_999}" for at in range(40_000)]
    assert _duplicates(ids) == [40_000]


def test_ids_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "hash", len, raising=False)
    ids = ["aa", "bb", "aa", "cc", "bb", "d"]
    assert _duplicates(ids) == _by_dict(ids) == [3, 5]


def _duplicates(ids: list[str]) -> list[int]:
    finder = DuplicateFinder()
    for custom_id in ids:
        finder.add(custom_id)
    if finder.candidates():
        for line, custom_id in enumerate(ids, 1):
            finder.confirm(line, custom_id)
    return finder.duplicates


def _by_dict(ids: list[str]) -> list[int]:
    first: dict[str, int] = {}
    found = [
        line for line, custom_id in enumerate(ids, 1) if first.setdefault(custom_id, line) != line
    ]
    taken = [line for line in found if told_apart(ids[line - 1], line) in first]
    return sorted([*found, *taken])


def test_a_given_id_goes_before_the_number_of_a_line_wherever_it_stands() -> None:
    finder = DuplicateFinder()
    rows = [("1", False), ("1", True), ("5", True), ("4", False), ("5", False), ("1", True)]
    for custom_id, _ in rows:
        finder.add(custom_id)
    assert finder.candidates() == 2
    for line, (custom_id, named) in enumerate(rows, 1):
        finder.confirm(line, custom_id, named=named)
    assert finder.duplicates == [1, 5, 6]
    assert finder.repeated == [6]


def test_the_second_scan_has_to_follow_the_first() -> None:
    with pytest.raises(RuntimeError):
        DuplicateFinder().confirm(1, "a")


def test_a_survey_counts_what_is_asked_and_keeps_the_first_refusal() -> None:
    survey = Survey()
    rows = [{"prompt": "p"}, {}, {"input": "i"}, {"prompt": "p"}, {"prompt": ""}]
    for number, row in enumerate(rows, 1):
        survey.note(seen(read_row(number, json.dumps(row).encode(), RULES)))
    assert survey.asked == {("chat", "phi"): 2, ("embeddings", None): 1}
    assert survey.invalid == 2
    assert survey.wrong[0].line == 2


def test_a_survey_is_bounded_whatever_a_file_asks() -> None:
    survey = Survey()
    for number in range(2 * MOST_KINDS):
        survey.note(Seen(number, str(number), "chat", f"model-{number}", 9))
    assert len(survey.asked) == MOST_KINDS
