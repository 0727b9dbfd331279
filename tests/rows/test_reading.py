"""Every dialect becomes the right request, and whatever else a line holds becomes a refusal."""

import json
import tracemalloc
from types import SimpleNamespace
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.jobs import JobOptions
from schemas.requests import BODY_OF_TASK, TASK_OF_URL, URL_OF_TASK, ChatBody
from workers.rows import templating, writing
from workers.rows.dialects import plain_chat
from workers.rows.lines import MAX_ADDED_BYTES, kept_bytes, lines_of
from workers.rows.reading import Refusal, Request, RowRules, read_row

MAX_LINE = 256 * 1024
USER = {"role": "user", "content": "How many eggs?"}


def rules(default_model: str | None = "phi", **options: Any) -> RowRules:
    models = {} if default_model is None else dict.fromkeys(BODY_OF_TASK, default_model)
    return RowRules.of(JobOptions(**options), max_line_bytes=MAX_LINE, default_models=models)


def pinned(**options: Any) -> RowRules:
    """The rules of a job that stands, which an earlier release may have let in."""
    return RowRules.of(JobOptions(**options), max_line_bytes=MAX_LINE, pinned=True)


def read(row: object, with_rules: RowRules | None = None, line: int = 7) -> Request | Refusal:
    data = row if isinstance(row, bytes) else json.dumps(row).encode()
    return read_row(line, data, with_rules or rules())


def asked(row: object, with_rules: RowRules | None = None) -> Request:
    result = read(row, with_rules)
    assert isinstance(result, Request), result
    return result


def refused(row: object, with_rules: RowRules | None = None) -> Refusal:
    result = read(row, with_rules)
    assert isinstance(result, Refusal), result
    assert result.line == 7
    assert result.message.startswith("line 7")
    return result


CHAT = {"model": "phi", "messages": [USER]}
DIALECTS: list[tuple[str, Any, str, str, dict[str, Any]]] = [
    (
        "batch chat",
        {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT},
        "a",
        "chat",
        CHAT,
    ),
    (
        "batch without method, Azure's url, an integer for a custom_id",
        {"custom_id": 5, "url": "/chat/completions", "body": {"messages": [USER]}},
        "5",
        "chat",
        CHAT,
    ),
    (
        "batch completion",
        {"custom_id": "c", "url": "/v1/completions", "body": {"prompt": "Once"}},
        "c",
        "completions",
        {"prompt": "Once", "model": "phi"},
    ),
    (
        "batch embedding",
        {"custom_id": "e", "url": "/embeddings", "body": {"input": "text", "model": "other"}},
        "e",
        "embeddings",
        {"input": "text", "model": "other"},
    ),
    (
        "batch image embedding",
        {"custom_id": "i", "url": "/images/embeddings", "body": {"input": [{"image": "data:"}]}},
        "i",
        "image-embeddings",
        {"input": [{"image": "data:"}], "model": "phi"},
    ),
    (
        "messages with parameters",
        {"messages": [USER], "temperature": 0.2, "seed": 3, "id": "m"},
        "m",
        "chat",
        {"messages": [USER], "temperature": 0.2, "seed": 3, "model": "phi"},
    ),
    (
        "prompt with parameters",
        {"prompt": "How many eggs?", "max_tokens": 9},
        "7",
        "chat",
        {"messages": [USER], "max_tokens": 9, "model": "phi"},
    ),
    (
        "ultrachat_200k: the prompt is asked, not the finished conversation",
        {
            "prompt": "How many eggs?",
            "prompt_id": "f0e3",
            "messages": [USER, {"role": "assistant", "content": "Nine."}],
        },
        "f0e3",
        "chat",
        CHAT,
    ),
    ("text to embed", {"input": "text"}, "7", "embeddings", {"input": "text", "model": "phi"}),
    (
        "texts to embed",
        {"input": ["a", "b"], "dimensions": 8},
        "7",
        "embeddings",
        {"input": ["a", "b"], "dimensions": 8, "model": "phi"},
    ),
    (
        "images to embed",
        {"input": [{"image": "data:", "text": "t"}]},
        "7",
        "image-embeddings",
        {"input": [{"image": "data:", "text": "t"}], "model": "phi"},
    ),
    (
        "scoring",
        {
            "id": "s",
            "input_data": {
                "input_string": [USER],
                "parameters": {"max_new_tokens": 20, "temperature": 0.5, "do_sample": True},
            },
        },
        "s",
        "chat",
        {
            "messages": [USER],
            "temperature": 0.5,
            "do_sample": True,
            "max_tokens": 20,
            "model": "phi",
        },
    ),
    (
        "a line of errors.jsonl",
        {
            "id": "job-3",
            "custom_id": "x",
            "line": 3,
            "response": None,
            "error": {"code": "timeout", "message": "line 3: no answer in time"},
            "request": {
                "custom_id": "x",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": CHAT,
            },
            "attempts": [],
        },
        "x",
        "chat",
        CHAT,
    ),
    (
        "a line of errors.jsonl that says more than it has to",
        {
            "custom_id": "x",
            "url": "/v1/chat/completions",
            "body": CHAT,
            "error": {"code": "timeout", "message": ""},
            "request": {"url": "/v1/embeddings", "body": {"input": "i", "model": "phi"}},
        },
        "x",
        "embeddings",
        {"input": "i", "model": "phi"},
    ),
    (
        "a line of errors.jsonl that was no request",
        {
            "id": "job-4",
            "custom_id": None,
            "line": 4,
            "error": {"code": "unknown_row", "message": "line 4: ..."},
            "request": None,
            "raw": '{"prompt": "How many eggs?", "id": "y"}',
        },
        "y",
        "chat",
        CHAT,
    ),
]


@pytest.mark.parametrize(
    ("row", "custom_id", "task", "body"),
    [case[1:] for case in DIALECTS],
    ids=[c[0] for c in DIALECTS],
)
def test_every_dialect_becomes_its_request(
    row: object, custom_id: str, task: str, body: dict[str, Any]
) -> None:
    request = asked(row)
    assert request[:5] == (7, custom_id, task, body["model"], body)


@pytest.mark.parametrize(
    "written", ["7", "7.0", "1e3", "-0", "0.10", "12345678901234567890123", "1E-7"]
)
@pytest.mark.parametrize("name", ["custom_id", "id", "prompt_id"])
def test_an_id_that_is_a_number_is_taken_as_written(name: str, written: str) -> None:
    assert asked(f'{{"prompt": "p", "{name}": {written}}}'.encode()).custom_id == written
    line = f'{{"q": "p", "{name}": {written}}}'.encode()
    assert asked(line, rules(template={"prompt": "{q}"})).custom_id == written


@pytest.mark.parametrize("url", TASK_OF_URL)
def test_every_url_is_a_task_and_every_task_has_a_url(url: str) -> None:
    bodies = {
        "chat": {"messages": [USER]},
        "completions": {"prompt": "p"},
        "embeddings": {"input": "i"},
        "image-embeddings": {"input": [{"image": "data:"}]},
    }
    task = TASK_OF_URL[url]
    assert asked({"url": url, "body": bodies[task]}).task == task
    assert TASK_OF_URL[URL_OF_TASK[task]] == task


def test_defaults_fill_what_a_row_leaves_out() -> None:
    options = rules(
        max_tokens=64,
        temperature=0.5,
        stop=["\n"],
        response_format={"type": "json_object"},
        dimensions=256,
        parameters={"top_k": 4},
        model="chosen",
    )
    chat = asked({"prompt": "p", "temperature": 0}, options).body
    assert chat == {
        "messages": [{"role": "user", "content": "p"}],
        "model": "chosen",
        "max_tokens": 64,
        "temperature": 0,
        "stop": ["\n"],
        "response_format": {"type": "json_object"},
        "top_k": 4,
    }
    assert asked({"input": "i"}, options).body == {
        "input": "i",
        "model": "chosen",
        "dimensions": 256,
        "top_k": 4,
    }
    named = {"url": "/v1/completions", "body": {"prompt": "p", "model": "own"}}
    assert asked(named, options).model == "own"


def test_a_system_prompt_is_set_where_a_conversation_has_none() -> None:
    options = rules(system_prompt="Be brief.")
    system = {"role": "system", "content": "Be brief."}
    assert asked({"prompt": "p"}, options).body["messages"][0] == system
    for role in ("system", "developer"):
        own = {"role": role, "content": "Mine."}
        assert asked({"messages": [own, USER]}, options).body["messages"] == [own, USER]
    assert "messages" not in asked({"input": "i"}, options).body


def test_a_row_that_names_no_model_where_several_could_be_meant_has_none() -> None:
    assert asked({"prompt": "p"}, rules(default_model=None)).model is None


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (b"{", "invalid_json"),
        (b"nonsense", "invalid_json"),
        (b'{"prompt": NaN}', "invalid_json"),
        (b'{"prompt": "p", "temperature": Infinity}', "invalid_json"),
        (b'{"prompt": "p", "temperature": 1e999}', "invalid_json"),
        (b'{"prompt": "\xff"}', "invalid_json"),
        (b'{"prompt": "\\ud800"}', "invalid_json"),
        (b"\xff\xfe{\x00", "invalid_json"),
        (b"[" * 5000, "invalid_json"),
        (b'{"messages": ' + b"[" * 500 + b"]" * 500 + b"}", "invalid_json"),
        (b'{"question": ' + b'{"a":' * 300 + b"1" + b"}" * 301, "invalid_json"),
        (b'{"error": {}, "request": ' + b'{"a":' * 300 + b"1" + b"}" * 301, "invalid_json"),
        (b"[]", "invalid_row"),
        (b"3", "invalid_row"),
        (b'"prompt"', "invalid_row"),
        (b"null", "invalid_row"),
        ({}, "unknown_row"),
        ({"question": "q"}, "unknown_row"),
        ({"custom_id": "", "prompt": "p"}, "invalid_row"),
        ({"custom_id": "x" * 513, "prompt": "p"}, "invalid_row"),
        ({"custom_id": True, "prompt": "p"}, "invalid_row"),
        ({"custom_id": ["x"], "prompt": "p"}, "invalid_row"),
        ({"url": "/v1/chat/completions"}, "invalid_row"),
        ({"body": {}}, "invalid_row"),
        ({"url": 3, "body": {}}, "invalid_row"),
        ({"url": "/v1/chat/completions", "body": []}, "invalid_row"),
        (
            {"url": "/v1/chat/completions", "body": {"messages": [USER]}, "method": "GET"},
            "invalid_row",
        ),
        ({"url": "/v1/audio/speech", "body": {}}, "unknown_url"),
        ({"url": "https://evil.example/v1/chat/completions", "body": {}}, "unknown_url"),
        ({"prompt": ""}, "invalid_row"),
        ({"prompt": ["p"]}, "invalid_row"),
        ({"prompt": None}, "invalid_row"),
        ({"prompt": "p", "model": 3}, "invalid_row"),
        ({"prompt": "p", "model": ""}, "invalid_row"),
        ({"prompt": "p", "max_tokens": 0}, "invalid_row"),
        ({"prompt": "p", "max_tokens": "9"}, "invalid_row"),
        ({"prompt": "p", "max_tokens": True}, "invalid_row"),
        ({"prompt": "p", "temperature": -1}, "invalid_row"),
        ({"prompt": "p", "n": 129}, "invalid_row"),
        ({"messages": []}, "invalid_row"),
        ({"messages": "hello"}, "invalid_row"),
        ({"messages": [{"role": "king", "content": "c"}]}, "invalid_row"),
        ({"messages": [{"role": "user", "content": 3}]}, "invalid_row"),
        ({"messages": [{"content": "c"}]}, "invalid_row"),
        ({"input": ""}, "invalid_row"),
        ({"input": []}, "invalid_row"),
        ({"input": {"text": "t"}}, "invalid_row"),
        ({"input": [{"text": "no image"}]}, "invalid_row"),
        ({"input": ["a", {"image": "data:"}]}, "invalid_row"),
        ({"prompt": " \n"}, "invalid_row"),
        ({"messages": [USER, {"role": "user", "content": "  "}]}, "invalid_row"),
        ({"messages": [{"role": "system", "content": ""}, USER]}, "invalid_row"),
        ({"messages": [{"role": "user", "content": None}]}, "invalid_row"),
        ({"messages": [{"role": "user", "content": []}]}, "invalid_row"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "\t"}]}]},
            "invalid_row",
        ),
        ({"url": "/v1/completions", "body": {"prompt": ""}}, "invalid_row"),
        ({"url": "/v1/completions", "body": {"prompt": ["", " "]}}, "invalid_row"),
        ({"input": "\u2003"}, "invalid_row"),
        ({"input": ["", " "]}, "invalid_row"),
        ({"input_data": {"input_string": "text"}}, "invalid_row"),
        ({"input_data": 3}, "invalid_row"),
        ({"error": {"code": "x"}, "request": None, "raw": None}, "invalid_row"),
        ({"error": {"code": "x"}, "request": None, "raw": "{"}, "invalid_json"),
        ({"error": {"code": "x"}, "raw": '{"prompt": "\ufffd"}'}, "raw_incomplete"),
        ({"error": {"code": "x"}, "request": {"prompt": ""}}, "invalid_row"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_reason(row: object, code: str) -> None:
    assert refused(row).code == code


@pytest.mark.parametrize("blank", [None, "", " \n", [], [{"type": "text", "text": " "}]])
@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant"},
        {"role": "assistant", "tool_calls": []},
        {"role": "assistant", "function_call": None},
        {"role": "tool", "tool_call_id": "1"},
        {"role": "tool", "tool_calls": [{"id": "1"}]},
        {"role": "function", "name": "f"},
        {"role": "user"},
        {"role": "system"},
    ],
)
def test_a_turn_that_is_blank_as_a_whole_is_refused_whoever_said_it(turn: Any, blank: Any) -> None:
    refusal = refused({"messages": [USER, {**turn, "content": blank}, USER]})
    assert refusal.message.startswith("line 7: messages.1.content: blank as a whole")


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
        {"messages": [USER, {"role": "assistant", "function_call": {"name": "f"}}, USER]},
        {"messages": [USER, {"role": "assistant", "content": None, "refusal": "No."}, USER]},
        {"messages": [USER, {"role": "tool", "content": "3", "tool_call_id": "1"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"input": ["a", ""]},
        {"input": [0]},
        {"url": "/v1/completions", "body": {"prompt": ["a", ""]}},
    ],
)
def test_what_says_something_is_asked(row: object) -> None:
    asked(row)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": " "}, "prompt: blank as a whole: it has to say something"),
        ({"prompt": ""}, "prompt: blank as a whole: it has to say something"),
        ({"input": ""}, "input: must not be empty"),
        ({"input": []}, "input: must not be empty"),
        ({"input": ["a", 3]}, "input.1: has to be a text"),
        (
            {"messages": [{"role": "user", "content": 4}]},
            "messages.0.content: has to be a text",
        ),
    ],
)
def test_a_mistake_is_told_by_the_field_and_the_form_it_comes_nearest_to(
    row: object, said: str
) -> None:
    assert refused(row).message == f"line 7: {said}"


def test_a_line_over_the_limit_is_told_by_its_place() -> None:
    long = b'{"prompt": "' + b"x" * MAX_LINE + b'"}'
    refusal = read_row(7, long, rules(), 4321, len(long))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.raw) == ("line_too_long", None)
    assert (refusal.offset, refusal.length) == (4321, len(long))
    assert refusal.message.startswith("line 7: 262,158 bytes at offset 4,321 of the file: ")
    assert "MAX_LINE_BYTES" in refusal.message
    exact = b'{"prompt": "' + b"x" * (MAX_LINE - 14) + b'"}'
    assert len(exact) == MAX_LINE
    assert isinstance(read(exact), Request)


BAD = [
    b"{",
    b'{"prompt": ""}',
    b'{"question": 1}',
    b'{"prompt": "\xff"}',
    b'{"question": "' + b'\\"' * (MAX_LINE // 2 - 20) + b'"}',
    b"\x01" * MAX_LINE,
]


@pytest.mark.parametrize("row", BAD, ids=lambda row: repr(row[:20]))
def test_a_refused_line_is_kept_whole_and_stays_what_it_was(row: bytes) -> None:
    refusal = refused(row)
    assert refusal.raw == row.decode("utf-8", "replace")
    first = writing.refused("job", 0, refusal)
    assert len(first.text) <= kept_bytes(MAX_LINE)
    for _ in range(3):
        refusal = refused(first.text)
        again = writing.refused("job", 0, refusal)
        told, before = json.loads(again.text), json.loads(first.text)
        assert told["raw"] == before["raw"]
        first = again


@pytest.mark.parametrize("row", [b'{"prompt": "\xff"}', b'{"prompt": "' + b"x" * MAX_LINE + b'"}'])
def test_what_was_not_kept_whole_is_never_asked(row: bytes) -> None:
    text = writing.refused("job", 0, refused(row)).text
    for _ in range(3):
        again = refused(text)
        assert again.code in ("raw_incomplete", "invalid_row")
        assert "take " in again.message
        text, before = writing.refused("job", 0, again).text, text
    assert text == before


def test_a_line_of_errors_is_judged_by_what_it_carries() -> None:
    """Escaped, a row that was within the limit may be far beyond it."""
    row = {"prompt": '"' * (MAX_LINE // 2 - 20)}
    raw = json.dumps(row)
    assert len(raw) <= MAX_LINE
    line = json.dumps({"custom_id": "a", "error": {"code": "x"}, "raw": raw}).encode()
    assert len(line) > 1.9 * MAX_LINE
    assert asked(line).custom_id == "a"
    # So is a request that template and defaults made larger than any line.
    first = asked({"prompt": "x" * (MAX_LINE - 20)}, rules(system_prompt="y" * 1000))
    failed = {"error": {"code": "timeout"}, "request": first.as_batch_row(), "attempts": []}
    line = json.dumps(failed).encode()
    assert len(line) > MAX_LINE
    assert asked(line).body == first.body


@pytest.mark.parametrize(
    "carried",
    [
        {"raw": json.dumps({"prompt": "x" * MAX_LINE})},
        {"request": {"url": "/v1/embeddings", "body": {"input": "x" * (MAX_LINE + (4 << 20))}}},
    ],
    ids=["raw", "request"],
)
def test_a_line_of_errors_that_carries_too_much_is_refused(carried: dict[str, Any]) -> None:
    refusal = refused({"error": {"code": "x"}, **carried})
    assert refusal.code == "line_too_long"
    assert refusal.length is not None
    assert "it carries" in refusal.message


def test_a_long_line_that_is_no_error_costs_no_more_than_itself() -> None:
    """A parser would make fifty bytes of each."""
    line = b'{"prompt": [' + b"[]," * MAX_LINE + b"[]]}"
    tracemalloc.start()
    assert refused(line).code == "line_too_long"
    assert tracemalloc.get_traced_memory()[1] < 2 * len(line)
    tracemalloc.stop()


def test_a_failed_request_that_is_refused_when_asked_again_keeps_the_request() -> None:
    request = {"custom_id": "a", "url": "/v1/chat/completions", "body": {"messages": []}}
    refusal = refused({"error": {"code": "x"}, "custom_id": "a", "request": request})
    assert refusal.custom_id == "a"
    assert (refusal.request, refusal.raw) == (request, None)


class TestTemplates:
    QUESTION: ClassVar = {"messages": [{"role": "user", "content": "{question}"}]}

    def test_fields_fill_a_template(self) -> None:
        template = {
            "messages": [{"role": "user", "content": "Q: {question} ({n} of {{all}})"}],
            "max_tokens": "{n}",
            "stop": ["#"],
        }
        request = asked({"question": "Why?", "n": 3, "id": "t"}, rules(template=template))
        assert request.custom_id == "t"
        assert request.body == {
            "messages": [{"role": "user", "content": "Q: Why? (3 of {all})"}],
            "max_tokens": 3,
            "stop": ["#"],
            "model": "phi",
        }

    def test_numbers_and_booleans_stand_in_a_text_as_json_writes_them(self) -> None:
        request = asked({"n": 1.5, "on": True}, rules(template={"prompt": "{n}, {on}"}))
        assert request.body["messages"][0]["content"] == "1.5, true"

    def test_fields_of_fields(self) -> None:
        template = {
            "messages": [{"role": "user", "content": "{meta.lang}: {turns.0} ({turns.1.text})"}],
            "stop": "{meta.stops}",
            "seed": "{meta.seeds.1}",
        }
        row = {
            "turns": ["Why?", {"text": "Because."}],
            "meta": {"lang": "en", "stops": ["#"], "seeds": [3, 5]},
        }
        body = asked(row, rules(template=template)).body
        assert body["messages"][0]["content"] == "en: Why? (Because.)"
        assert (body["stop"], body["seed"]) == (["#"], 5)

    def test_a_field_whose_own_name_has_a_dot_goes_first(self) -> None:
        row = {"meta.lang": "column", "meta": {"lang": "nested"}}
        request = asked(row, rules(template={"prompt": "{meta.lang}"}))
        assert request.body["messages"][0]["content"] == "column"

    @pytest.mark.parametrize("value", [[1, 2], {"a": "b"}, [], {}])
    def test_a_list_or_object_is_never_written_into_a_text(self, value: Any) -> None:
        refusal = refused({"field": value}, rules(template={"prompt": "Of {field}: "}))
        assert refusal.code == "template_field"
        assert "'field'" in refusal.message

    @pytest.mark.parametrize(
        "name", ["question", "q.x", "turns.9", "turns.-1", "turns.x", "none", "meta.lang.x"]
    )
    def test_an_empty_cell_is_refused_with_the_fields_name(self, name: str) -> None:
        row = {"q": "text", "turns": ["a"], "none": None, "meta": {"lang": "en"}}
        for text in (f"Q: {{{name}}}", f"{{{name}}}"):
            refusal = refused(row, rules(template={"prompt": text}))
            assert refusal.code == "template_field"
            assert repr(name) in refusal.message

    def test_an_empty_cell_can_be_an_empty_text(self) -> None:
        empty = rules(template={"prompt": "Q: {q}, {none}!"}, on_missing="empty")
        request = asked({"none": None}, empty)
        assert request.body["messages"][0]["content"] == "Q: , !"

    @pytest.mark.parametrize("row", [{"q": ""}, {"q": " "}, {"q": None}, {}])
    def test_a_blank_field_is_text_but_a_prompt_of_nothing_else_is_refused(self, row: Any) -> None:
        asked({**row, "q": row.get("q") or ""}, rules(template={"prompt": "Q: {q}"}))
        for template in (
            {"prompt": "{q}"},
            {"prompt": " {q}\n"},
            {"input": "{q}"},
            {"messages": [USER, {"role": "user", "content": "{q}"}]},
        ):
            refusal = refused(row, rules(template=template, on_missing="empty"))
            assert (refusal.code, refusal.raw) == ("invalid_row", json.dumps(row))

    def test_a_row_that_would_become_too_large_is_refused_before_it_is_made(self) -> None:
        """60 KB of template over a line of 200 KB would be 4 GB."""
        row = {"q": "x" * 200_000}
        for template in ({"prompt": "{q}" * 20_000}, {"messages": ["{q}"] * 20_000}):
            made = pinned(template=template)
            tracemalloc.start()
            refusal = refused(row, made)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert refusal.code == "request_too_large"
            assert peak < 20 * MAX_LINE

    def test_many_names_of_one_value_are_not_all_written_to_be_measured(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        value: Any = "x" * 200_000
        for _ in range(90):
            value = [value]
        names = [".".join(["a", *["0"] * depth]) for depth in range(91)]
        made, written = rules(template={"prompt": "p", "x": [f"{{{n}}}" for n in names]}), [0]

        def counted(value: Any) -> bytes:
            data = orjson.dumps(value)
            written[0] += len(data)
            return data

        monkeypatch.setattr(templating, "orjson", SimpleNamespace(dumps=counted))
        assert refused({"a": value}, made).code == "request_too_large"
        assert written[0] <= MAX_LINE + MAX_ADDED_BYTES + 200_100

    @pytest.mark.parametrize("name", ["a.00", "a.01", "a.0.00"])
    def test_an_item_has_one_name(self, name: str) -> None:
        refusal = refused({"a": [["b"], "c"]}, rules(template={"prompt": "p", "x": f"{{{name}}}"}))
        assert (refusal.code, repr(name) in refusal.message) == ("template_field", True)

    def test_a_template_has_at_most_so_many_places(self) -> None:
        within = {"prompt": "{q}{r}" * 400, "stop": ["{s}"] * 200}
        assert asked({"q": "a", "r": "b", "s": "c"}, rules(template=within)).custom_id == "7"
        beyond = {**within, "seed": "{n}"}
        with pytest.raises(ValueError, match=r"^template: .* 1,001 places .* 1,000 are the most"):
            rules(template=beyond)
        assert pinned(template=beyond).template is not None

    def test_a_request_has_at_most_a_line_and_what_may_be_added(self) -> None:
        most = MAX_LINE + MAX_ADDED_BYTES
        template = rules(template={"prompt": "{q}" * 100})
        within, beyond = most // 100 - 10, most // 100
        request = asked({"q": '"' * (within // 2)}, template)
        assert len(orjson.dumps(request.body)) <= request.size <= most
        assert refused({"q": '"' * (beyond // 2 + 1)}, template).code == "request_too_large"

    def test_a_template_can_name_the_row(self) -> None:
        template = {"custom_id": "q-{nr}", "prompt": "{q}"}
        assert asked({"q": "Why?", "nr": 3}, rules(template=template)).custom_id == "q-3"

    @pytest.mark.parametrize(
        "column",
        [
            {"prompt": "a column"},
            {"input": "a column"},
            {"messages": "a column"},
            {"url": "https://example.org", "body": "a column"},
            {"input_data": 3},
            {"error": "a column", "request": "a column"},
            {"url": "/v1/chat/completions", "body": CHAT},
        ],
        ids="+".join,
    )
    def test_the_template_decides_whatever_the_columns_are_called(
        self, column: dict[str, Any]
    ) -> None:
        row = {"question": "Why?", **column}
        said = [{"role": "user", "content": "Why?"}]
        assert asked(row, rules(template=self.QUESTION)).body["messages"] == said

    def test_a_template_for_other_rows_leaves_requests_alone(self) -> None:
        others = rules(template=self.QUESTION, template_for="other_rows")
        for row, content in (({"prompt": "p", "question": "q"}, "p"), ({"question": "q"}, "q")):
            assert asked(row, others).body["messages"] == [{"role": "user", "content": content}]

    @pytest.mark.parametrize(
        "column",
        [
            {"url": "https://example.org"},
            {"url": "https://example.org", "prompt": "a column"},
            {"url": None, "body": {"a": 1}},
            {"body": "a column"},
            {"prompt": None},
            {"input": {"a": 1}},
            {"messages": "a column"},
            {"messages": [{"from": "human", "value": "a column"}]},
            {"input_data": 3},
        ],
        ids=repr,
    )
    def test_a_column_of_a_requests_name_makes_no_request_of_its_row(self, column: Any) -> None:
        others = rules(template=self.QUESTION, template_for="other_rows")
        said = [{"role": "user", "content": "Why?"}]
        assert asked({"question": "Why?", **column}, others).body["messages"] == said

    @pytest.mark.parametrize(
        "request_",
        [
            {"url": "/v1/chat/completions"},
            {"url": "/v1/unknown", "body": {}},
            {"url": "/v1/chat/completions", "body": 3},
            {"messages": [{"role": "king"}]},
            {"prompt": ""},
            {"input": []},
            {"input_data": {}},
        ],
        ids=repr,
    )
    def test_a_request_with_a_mistake_is_told_of_it(self, request_: Any) -> None:
        others = rules(template=self.QUESTION, template_for="other_rows")
        assert refused({"question": "Why?", **request_}, others).code in (
            "invalid_row",
            "unknown_url",
        )

    def test_the_templates_id_goes_before_a_column_of_that_name(self) -> None:
        template = {"custom_id": "q-{nr}", "prompt": "{q}"}
        for column in ("7", "", [1], None):
            row = {"q": "Why?", "nr": 3, "id": column}
            assert asked(row, rules(template=template)).custom_id == "q-3"

    def test_a_line_of_errors_passes_as_it_is(self) -> None:
        with_template = rules(template=self.QUESTION)
        first = asked({"question": "Why?", "id": "a"}, with_template)
        failed = {"custom_id": "a", "error": {"code": "timeout"}, "request": first.as_batch_row()}
        assert asked(failed, with_template)[:5] == first[:5]
        # The row itself, where that was none: the template makes a request of it as it did.
        mended = {"custom_id": "a", "error": {"code": "x"}, "raw": '{"question": "Why?"}'}
        assert asked(mended, with_template)[:5] == first[:5]

    def test_a_request_that_is_refused_again_is_never_taken_for_a_row_of_the_data_set(self) -> None:
        with_template = rules(template={"prompt": "{body}"})
        request = {"custom_id": "a", "url": "/v1/chat/completions", "body": {"messages": []}}
        line = json.dumps({"error": {"code": "x"}, "request": request}).encode()
        for _ in range(3):
            refusal = refused(line, with_template)
            assert (refusal.code, refusal.request) == ("invalid_row", request)
            line = writing.refused("job", 0, refusal).text

    def test_braces_in_a_row_are_left_alone(self) -> None:
        request = asked({"question": "{answer} {{x}}"}, rules(template=self.QUESTION))
        assert request.body["messages"][0]["content"] == "{answer} {{x}}"

    @pytest.mark.parametrize(
        ("template", "row", "code"),
        [
            (QUESTION, {"answer": "no question"}, "template_field"),
            (QUESTION, {"question": 3}, "invalid_row"),
            ({"role": "user"}, {"question": "q"}, "unknown_row"),
            ({"error": {}, "raw": "{question}"}, {"question": "{}"}, "unknown_row"),
        ],
    )
    def test_what_a_template_cannot_make_is_refused(
        self, template: dict[str, Any], row: object, code: str
    ) -> None:
        assert refused(row, rules(template=template)).code == code

    @pytest.mark.parametrize("text", ["{", "}", "{}", "a { b", "{a}}"])
    def test_a_lone_brace_is_told_by_its_place_alone(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"template\.messages\.0\.content, character") as told:
            rules(template={"messages": [{"role": "user", "content": f"SECRET {text}"}]})
        assert "SECRET" not in str(told.value)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = """
custom_id id prompt_id method url body messages prompt input input_data error request raw
model max_tokens temperature stream n role content question
"""
FIELDS = st.sampled_from(NAMES.split())
TURNS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "system", "assistant", "king", ""]) | JSON_VALUES,
        "content": st.text(max_size=4) | JSON_VALUES,
        "name": JSON_VALUES,
    },
)
BODIES = st.dictionaries(FIELDS, JSON_VALUES, max_size=4) | st.fixed_dictionaries(
    {"messages": st.lists(TURNS, max_size=3) | JSON_VALUES},
    optional={
        "model": st.sampled_from(["phi", ""]) | JSON_VALUES,
        "max_tokens": st.sampled_from([1, 0, True, 2**63, None]) | JSON_VALUES,
        "temperature": st.sampled_from([0, 0.5, -0.1, 1, True, None]) | JSON_VALUES,
        "stream": JSON_VALUES,
    },
)


@pytest.mark.slow
@given(BODIES)
@settings(max_examples=300, deadline=None)
def test_the_short_way_accepts_only_what_the_model_accepts(body: dict[str, Any]) -> None:
    if plain_chat(body):
        ChatBody.model_validate(body)


def test_the_short_way_is_taken() -> None:
    assert plain_chat({"messages": [USER], "model": "phi", "max_tokens": 5, "temperature": 0.7})
    with pytest.raises(ValidationError):
        ChatBody.model_validate({"messages": [USER], "model": ""})
    assert not plain_chat({"messages": [USER], "model": ""})


@pytest.mark.slow
@given(
    st.dictionaries(FIELDS, BODIES | JSON_VALUES, max_size=5),
    st.sampled_from(
        [None, {"prompt": "{question}"}, {"messages": [{"role": "{role}", "content": "{content}"}]}]
    ),
    st.sampled_from([None, "Be brief."]),
    st.sampled_from([None, 16]),
)
@settings(max_examples=300, deadline=None)
def test_any_row_is_a_request_that_stands_or_a_refusal_that_can_be_written(
    row: dict[str, Any], template: Any, system_prompt: str | None, max_tokens: int | None
) -> None:
    given_rules = rules(template=template, system_prompt=system_prompt, max_tokens=max_tokens)
    data = orjson.dumps(row)
    result = read_row(9, data, given_rules)
    if isinstance(result, Refusal):
        assert result.message.startswith("line 9: ")
        assert orjson.loads(writing.refused("job", 0, result).text)["line"] == 9
        return
    BODY_OF_TASK[result.task].model_validate(result.body)
    assert 1 <= len(result.custom_id) <= 512
    assert result.model == result.body.get("model")
    # What is written is asked again as it is, whatever the job's options are by then.
    again = read_row(9, orjson.dumps(result.as_batch_row()), rules())
    assert isinstance(again, Request)
    assert again[:5] == result[:5] or system_prompt is None


@given(st.binary(max_size=80) | st.text(alphabet='{}[]",:0ae.-\\u\n', max_size=60).map(str.encode))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read(data: bytes) -> None:
    for line, *_, content in lines_of(data, MAX_LINE):
        result = read_row(line, content, rules())
        assert result.line == line
        assert isinstance(result, Request) or orjson.dumps(result.raw)


def test_only_newlines_part_lines() -> None:
    data = "\ufeff\na\u2028b\r\n  \t\r\n\nc\x0bd\x85e\n".encode()
    assert list(lines_of(data, 100)) == [
        (2, 4, 6, "a\u2028b".encode()),
        (5, 17, 6, "c\x0bd\x85e".encode()),
    ]
    assert list(lines_of(b"\xef\xbb\xbfx", 100)) == [(1, 0, 4, b"x")]
    second = lines_of(b"\xef\xbb\xbfx", 100, number=2, offset=9)
    assert list(second) == [(2, 9, 4, b"\xef\xbb\xbfx")]


def test_a_line_over_the_limit_is_never_blank() -> None:
    assert list(lines_of(b" " * 5 + b"\n" + b" " * 6, 5)) == [(2, 6, 6, b" " * 6)]


def test_a_line_whose_end_is_missing_is_as_long_as_it_is_in_the_file() -> None:
    assert list(lines_of(b"a\nbc", 5, number=3, offset=7, length=90)) == [
        (3, 7, 1, b"a"),
        (4, 9, 88, b"bc"),
    ]
