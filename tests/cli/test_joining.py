"""From a table to requests, through the service's own reading and writing, to the table again."""

import io
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3batch.answers import NO_ANSWER, Joined, added_columns, head_of, joined, kind_of, value_of
from phi3batch.checking import lines_in, rules_for
from phi3batch.mistakes import Mistake
from phi3batch.results import Results, naming_in
from phi3batch.tasks import Asking, Naming, NotAsked, RowTask, embedding_task, prompt_task
from schemas.jobs import JobOptions
from schemas.outcomes import Outcome
from workers.rows import writing
from workers.rows.reading import Request, read_row

MAX_LINE = 4096
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
TASKS = (
    prompt_task("Label: {text}", "label", "You judge {text}."),
    embedding_task("text", "vector"),
    RowTask("both", {"url": "/v1/completions", "body": {"prompt": ["{text}", "x"]}}, "a-model"),
)
IDS = st.one_of(TEXTS.filter(bool), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False))
ROWS = st.lists(
    st.fixed_dictionaries({"key": IDS, "text": st.one_of(st.none(), TEXTS)}),
    max_size=8,
    unique_by=lambda row: Naming(("any",), "key").id_of(1, row),
)


def answer_of(request: Request) -> Any:
    """The body that an echoing endpoint answers with."""
    body = request.body
    match request.task:
        case "chat":
            said = body["messages"][-1]["content"]
            return {"choices": [{"message": {"role": "assistant", "content": said}}]}
        case "completions":
            return {"choices": [{"text": text} for text in body["prompt"]]}
        case _:
            return {"data": [{"embedding": [float(ord(char)) for char in body["input"]]}]}


def run(data: bytes, folder: Path, failing: frozenset[int] = frozenset()) -> None:
    """What the service makes of a file; the rows of some lines fail."""
    rules = rules_for(JobOptions(), MAX_LINE)
    with (folder / "output.jsonl").open("wb") as out, (folder / "errors.jsonl").open("wb") as bad:
        for at, line in enumerate(lines_in(io.BytesIO(data), MAX_LINE)):
            row = read_row(line.number, line.content, rules)
            if isinstance(row, Request):
                wrong = line.number in failing
                outcome = Outcome("transient" if wrong else "ok", body=answer_of(row), status=200)
                result = writing.answered("job", at, row, outcome, attempts=(), use=())
            else:
                result = writing.refused("job", at, row)
            (out if result.kind == "succeeded" else bad).write(result.text + b"\n")


def expected(text: str | None, column: str) -> Any:
    """What a column holds where its task was answered."""
    if text is None:
        return None
    if column == "label":
        return f"Label: {text}"
    return [float(ord(char)) for char in text] if column == "vector" else [text, "x"]


@given(
    rows=ROWS,
    tasks=st.lists(st.sampled_from(TASKS), min_size=1, unique_by=lambda task: task.column),
    by_number=st.booleans(),
    failing=st.frozensets(st.integers(1, 20)),
)
def test_each_row_gets_its_own_answers_or_the_code_of_its_error(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    tasks: list[RowTask],
    by_number: bool,
    failing: frozenset[int],
) -> None:
    naming = Naming(tuple(task.column for task in tasks), None if by_number else "key")
    lines = list(Asking(tasks, naming, MAX_LINE).lines(iter(rows)))
    asked = [line if isinstance(line, bytes) else line.as_line() for line in lines]
    assert len(lines) == len(rows) * len(tasks)
    assert len({json.loads(line)["custom_id"] for line in asked}) == len(asked)
    folder = tmp_path_factory.getbasetemp() / "results"
    folder.mkdir(exist_ok=True)
    run(b"".join(asked), folder, failing)
    refused = {head_of(line)[0] for line in (folder / "errors.jsonl").open("rb")}
    summary = Joined()
    with Results([folder], naming) as results:
        assert set(added_columns(naming, results.kinds)) >= set(naming.columns)
        found = list(joined(iter(rows), naming, results, summary))
    assert len(found) == summary.rows == len(rows)
    for number, (row, values) in enumerate(zip(rows, found, strict=True), 1):
        row_id = naming.id_of(number, row)
        assert row_id is not None
        for at, custom_id in enumerate(naming.custom_ids(row_id)):
            value, error = values[2 * at : 2 * at + 2]
            if row["text"] is None:
                assert (value, error) == (None, "template_field")
            elif custom_id in refused:
                assert value is None
                assert error
            else:
                assert (value, error) == (expected(row["text"], naming.columns[at]), None)


def test_a_row_without_what_its_task_needs_is_told_and_not_asked() -> None:
    asking = Asking(TASKS[:2], Naming(("label", "vector"), "key"), MAX_LINE)
    rows: list[dict[str, Any]] = [{"key": "a", "text": None}, {"key": None, "text": "b"}]
    told = list(asking.lines(iter(rows)))
    codes = [(each.custom_id, each.code) for each in told if isinstance(each, NotAsked)]
    assert codes == [
        ("a#label", "template_field"),
        ("a#vector", "template_field"),
        (None, "no_id"),
        (None, "no_id"),
    ]
    told_of = told[1]
    assert isinstance(told_of, NotAsked)
    assert told_of.message.startswith("row 1, column vector: the template's field 'text' is null")
    empty = Asking(TASKS[:1], Naming(("label",), "key"), MAX_LINE, "empty")
    (line,) = empty.lines(iter(rows[:1]))
    assert isinstance(line, bytes)
    assert json.loads(line)["body"]["messages"][1]["content"] == "Label: "


def test_the_requests_are_rows_of_an_openai_batch_file() -> None:
    asking = Asking(TASKS, Naming(("label", "vector", "both")), MAX_LINE)
    lines = [json.loads(line) for line in asking.lines(iter([{"text": "hi"}]))
             if isinstance(line, bytes)]  # fmt: skip
    assert lines == [
        {
            "custom_id": "1#label",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "messages": [
                    {"role": "system", "content": "You judge hi."},
                    {"role": "user", "content": "Label: hi"},
                ]
            },
        },
        {
            "custom_id": "1#vector",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"input": "hi"},
        },
        {
            "custom_id": "1#both",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": "a-model", "prompt": ["hi", "x"]},
        },
    ]


@given(
    columns=st.lists(TEXTS, min_size=1, max_size=3, unique=True),
    id_column=st.one_of(st.none(), TEXTS),
)
def test_a_batch_remembers_how_its_table_was_named(
    columns: list[str], id_column: str | None
) -> None:
    naming = Naming(tuple(columns), id_column)
    try:
        metadata = naming.as_metadata()
    except Mistake:
        assert len(str(columns)) + len(str(id_column)) > 300
        return
    JobOptions(metadata=metadata)
    assert Naming.from_metadata(metadata) == naming


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"columns": 1}', '{"columns": []}'])
def test_metadata_of_others_say_nothing(text: str) -> None:
    assert Naming.from_metadata({"phi3batch": text}) is None
    assert Naming.from_metadata({}) is None


@pytest.mark.parametrize("columns", [("a", "a"), ("a#b",), ("",), ("x" * 64,)])
def test_columns_that_cannot_be_told_apart_are_refused(columns: tuple[str, ...]) -> None:
    tasks = [prompt_task("{text}", column) for column in columns]
    with pytest.raises(Mistake, match="--as"):
        Asking(tasks, Naming(columns), MAX_LINE)


def test_a_later_folder_answers_what_an_earlier_one_could_not(tmp_path: Path) -> None:
    naming = Naming(("label",))
    lines = list(Asking(TASKS[:1], naming, MAX_LINE).lines(iter([{"text": "a"}, {"text": "b"}])))
    data = b"".join(line for line in lines if isinstance(line, bytes))
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    run(data, first, frozenset({1}))
    run((first / "errors.jsonl").read_bytes(), second)
    for folders in ([first, second], [second, first]):
        with Results(folders, naming) as results:
            answers = [results.answer(custom_id) for custom_id in ("1", "2", "3")]
        assert answers == [("Label: a", None), ("Label: b", None), (None, NO_ANSWER)]


def test_results_that_are_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="holds no results"):
        Results([tmp_path], Naming(("a",)))
    (tmp_path / "output.jsonl").write_text('{"custom_id": "1", "response": {}}\n')
    with pytest.raises(Mistake, match=r"output\.jsonl, line 1"):
        Results([tmp_path], Naming(("a",)))


def test_the_manifest_says_how_the_table_was_named(tmp_path: Path) -> None:
    naming = Naming(("label",), "key")
    assert naming_in(tmp_path) is None
    manifest = {"options": {"metadata": naming.as_metadata()}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert naming_in(tmp_path) == naming


def line_of(body: Any) -> bytes:
    return orjson.dumps({"custom_id": "1", "response": {"status_code": 200, "body": body}})


@pytest.mark.parametrize(
    ("body", "value", "kind"),
    [
        ({"choices": [{"message": {"content": "hi"}}]}, "hi", "text"),
        ({"choices": [{"message": {"content": None, "refusal": "no"}}]}, "no", "text"),
        ({"choices": [{"message": {"content": None}}]}, "", "text"),
        ({"choices": [{"text": "hi"}]}, "hi", "text"),
        ({"choices": [{"text": "a"}, {"text": "b"}]}, ["a", "b"], "json"),
        ({"choices": [{"message": {"tool_calls": [{"id": "t"}]}}]}, [{"id": "t"}], "json"),
        ({"data": [{"embedding": [0.5, 1]}]}, [0.5, 1], "vector"),
        ({"data": [{"embedding": [0.5]}, {"embedding": [1]}]}, [[0.5], [1]], "json"),
        ({"data": [{"embedding": "AAAA"}]}, "AAAA", "text"),
        ({"other": 1}, {"other": 1}, "json"),
    ],
)
def test_what_an_answer_says(body: Any, value: Any, kind: str) -> None:
    assert value_of(line_of(body)) == value
    assert kind_of(value) == kind


def test_answers_of_several_kinds_are_all_json() -> None:
    naming = Naming(("a", "b"))
    assert added_columns(naming, {"a": {"text", "json"}, "b": {"vector"}}) == {
        "a": "json",
        "a_error": "text",
        "b": "vector",
        "b_error": "text",
    }
