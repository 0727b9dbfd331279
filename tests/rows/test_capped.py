"""Capped jobs send nothing that could be billed beyond its bound, to any kind of endpoint."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.deployments import Deployment, EndpointKind, Task
from schemas.jobs import parse_options
from workers.adapters.endpoints.connection import CONTRACTS
from workers.adapters.endpoints.contract import Unsupported
from workers.rows.most_tokens import IMAGE, most_tokens
from workers.rows.reading import Refusal, Request, RowRules, read_row

SAID = [{"role": "user", "content": "Hi"}]
CAP = {"max_total_tokens": 9000, "model": "phi"}


def read(row: Mapping[str, Any], **options: Any) -> Request | Refusal:
    rules = RowRules.of(parse_options(options), max_line_bytes=1 << 20)
    data = json.dumps(row).encode()
    return read_row(7, data, rules, 0, len(data))


def sent(kind: EndpointKind, task: Task, body: Mapping[str, Any]) -> Mapping[str, Any]:
    deployment = Deployment(
        name="a", kind=kind, url="http://127.0.0.1:1/score", model="phi", auth="none"
    )
    return CONTRACTS[kind](deployment).encode(task, body)


# -- a row of a capped job is bounded, or refused


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"max_completion_tokens": 4000.0}, "max_completion_tokens"),
        ({"max_completion_tokens": "4000"}, "max_completion_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_completion_tokens": True}, "max_completion_tokens"),
        ({"best_of": "20"}, "best_of"),
        ({"best_of": 20.0}, "best_of"),
        ({"n": 3.0}, "n"),
    ],
)
def test_what_no_endpoint_documents_as_a_number_is_refused_in_every_job(
    fields: Mapping[str, Any], where: str
) -> None:
    for options in ({}, CAP):
        row = read({"messages": SAID, "max_tokens": 1, **fields}, **options)
        assert isinstance(row, Refusal)
        assert row.code == "invalid_row"
        assert row.message.startswith(f"line 7: {where}: has to be ")


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"num_return_sequences": 20}, "num_return_sequences"),
        ({"n_predict": -1}, "n_predict"),
        ({"min_length": 4000}, "min_length"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"options": {"num_predict": 4000}}, "options"),
        ({"data_sources": [{"type": "azure_search"}]}, "data_sources"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"prediction": {"type": "content", "content": "x" * 100}}, "prediction"),
        ({"chat_template": "{% for i in range(10000) %}a{% endfor %}"}, "chat_template"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"tools": "web_search"}, "tools.0"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages.0.audio"),
    ],
)
def test_what_may_cost_more_than_is_seen_of_it_is_refused_where_there_is_a_cap(
    fields: Mapping[str, Any], where: str
) -> None:
    given_row = {"messages": SAID, "max_tokens": 5, **fields}
    assert isinstance(read(given_row), Request), "without a cap it is the endpoint's to judge"
    row = read(given_row, **CAP)
    assert isinstance(row, Refusal)
    assert row.code == "unknown_cost"
    assert row.message.startswith(f"line 7: {where}: what it may add to the cost is not known")
    assert "leave it out" in row.message


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video_url", "video_url": {"url": "https://a/long.mp4"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "image_url", "image_url": None, "uuid": "seen-before"},
        {"type": "image_url", "image_url": {"url": ["https://a/1.png", "https://a/2.png"]}},
        {"type": "video_url", "image_url": {"url": "https://a/long.mp4"}},
        {"type": "text", "text": "a", "image_url": "https://a/1.png"},
        {"video_url": {"url": "https://a/long.mp4"}},
    ],
)
def test_parts_of_unknown_size_are_refused_where_there_is_a_cap(part: Mapping[str, Any]) -> None:
    turn = {"role": "user", "content": [{"type": "text", "text": "what is it?"}, part]}
    given_row = {"messages": [turn], "max_tokens": 5}
    assert isinstance(read(given_row), Request)
    row = read(given_row, **CAP)
    assert isinstance(row, Refusal)
    assert row.message.startswith("line 7: messages.0.content.1: ")


@pytest.mark.parametrize(
    "row",
    [
        {"input": "a", "messages": SAID, "modality": "image"},
        {"input": ["https://a/1.png"], "modality": "image"},
        {"input": [{"image": "AAAA", "content": []}]},
    ],
)
def test_embeddings_ask_for_what_is_seen_of_them(row: Mapping[str, Any]) -> None:
    found = read({"url": "/v1/embeddings", "body": row} if "messages" in row else row, **CAP)
    assert isinstance(found, Refusal)
    assert found.code == "unknown_cost"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": SAID, "top_k": 4, "repetition_penalty": 1.1, "chat_template_kwargs": {"a": 1}},
        {"messages": SAID, "response_format": {"type": "json_object"}, "logit_bias": {"5": 1}},
        {"messages": SAID, "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [*SAID, {"role": "assistant", "tool_calls": [{"id": "a"}]}], "user": "u"},
        {"messages": [{"role": "user", "content": [{"text": "a"}, {"type": "text", "text": "b"}]}]},
        {"messages": SAID, "web_search_options": None, "service_tier": "flex"},
        {"input_data": {"input_string": SAID, "parameters": {"do_sample": True, "top_p": 0.5}}},
        {"url": "/v1/completions", "body": {"prompt": ["a", "b"], "echo": True, "suffix": "."}},
        {"input": [{"image": "data:image/png;base64,AAAA", "text": "a"}]},
        {"input": ["a", "b"], "dimensions": 256, "encoding_format": "base64"},
    ],
)
def test_what_is_documented_and_costs_no_more_is_asked(row: Mapping[str, Any]) -> None:
    found = read(row, max_tokens=5, **CAP)
    assert isinstance(found, Request), found


def test_a_limit_that_only_the_scoring_contract_knows_counts_and_does_not_suffice() -> None:
    own = read({"messages": SAID, "max_new_tokens": 4000}, max_tokens=50, **CAP)
    assert isinstance(own, Request)
    assert (most_tokens("chat", own.body) or (0, 0))[1] == 4000
    alone = read({"messages": SAID, "max_new_tokens": 4000}, **CAP)
    assert isinstance(alone, Refusal)
    assert alone.code == "max_tokens_missing"
    for wrong in ("4000", 4000.0, -1, True):
        row = read({"messages": SAID, "max_new_tokens": wrong}, max_tokens=50, **CAP)
        assert isinstance(row, Refusal)
        assert row.message.startswith("line 7: max_new_tokens: ")


def test_completions_know_no_other_limit_than_max_tokens() -> None:
    row = read({"url": "/v1/completions", "body": {"prompt": "a", "max_completion_tokens": 5}})
    assert isinstance(row, Request)
    capped = read({"url": "/v1/completions", "body": row.body}, **CAP)
    assert isinstance(capped, Refusal)
    assert capped.code == "max_tokens_missing"


def test_a_prompt_that_is_said_again_counts_again() -> None:
    body = {"prompt": "x" * 900, "max_tokens": 5, "n": 2}
    said = most_tokens("completions", {**body, "echo": True})
    assert said is not None
    assert said[1] > 2 * 900


TOOL = {"type": "function", "function": {"name": "f", "description": "x" * 500}}
CALLED = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"arguments": "x" * 500}}]}


@pytest.mark.parametrize(
    "fields",
    [{"tools": [TOOL]}, {"messages": [*SAID, CALLED]}, {"chat_template_kwargs": {"tools": [TOOL]}}],
)
def test_tools_count_as_templates_write_them_out(fields: Mapping[str, Any]) -> None:
    plain = most_tokens("chat", {"messages": SAID, "max_tokens": 1})
    tools = most_tokens("chat", {"messages": SAID, "max_tokens": 1, **fields})
    assert plain is not None
    assert tools is not None
    assert tools[0] - plain[0] > 4 * 500


def test_of_a_name_that_is_a_text_only_the_beginning_is_told() -> None:
    row = read({"messages": SAID, "x" * 10_000: 1}, max_tokens=5, **CAP)
    assert isinstance(row, Refusal)
    assert len(row.message) < 400


# -- what is sent asks for no more than what was bounded

_WILD = (
    st.none() | st.booleans() | st.integers(-2, 5000) | st.sampled_from([7.0, "4000", "20", [], {}])
)
_MULTIPLIES = ("n", "best_of", "num_return_sequences", "num_beams")
_LIMITS = ("max_tokens", "max_completion_tokens", "max_new_tokens", "n_predict", "max_length")
_PART = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["text", "image_url", "video_url", "input_audio"]),
        "text": st.just("a"),
        "image_url": st.sampled_from(["https://a/1.png", {"url": "https://a/2.png"}, None]),
        "video_url": st.just({"url": "https://a/3.mp4"}),
        "uuid": st.just("b"),
    },
)
_CONTENT = st.just("Hi") | st.lists(_PART, min_size=1, max_size=3)
_FIELDS: dict[str, st.SearchStrategy[Any]] = dict.fromkeys(
    (*_LIMITS, *_MULTIPLIES, "echo", "top_k"), _WILD
)
_ROW = st.builds(
    lambda content, fields: {"messages": [{"role": "user", "content": content}], **fields},
    _CONTENT,
    st.fixed_dictionaries({}, optional=_FIELDS),
)


def lax(value: Any) -> int:
    """A number as servers read it that take texts and fractions for some."""
    try:
        return int(float(value))
    except (TypeError, ValueError):
        return 0


def asks_for(wire: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of an answer and images or films of a prompt, as the most generous server reads it."""
    data = wire.get("input_data", wire)
    given = data.get("parameters", data)
    limits = [lax(given[name]) for name in _LIMITS if given.get(name) is not None]
    # Without a limit, and with a negative one, it goes on.
    answer = max(limits) if limits and min(limits) > 0 else 1 << 40
    most = max(lax(given.get(name)) for name in _MULTIPLIES)
    turns = data.get("input_string") or data["messages"]
    parts = [
        part
        for turn in turns
        for part in (turn["content"] if isinstance(turn["content"], list) else [])
    ]
    films = sum(1000 for part in parts if "video_url" in (*part, part.get("type")))
    images = sum("image_url" in part for part in parts)
    return answer * max(1, most), films + images


@pytest.mark.slow
@given(_ROW, st.none() | st.integers(1, 60))
@example({"messages": SAID, "max_new_tokens": 4000}, 50)
@example({"messages": SAID, "max_tokens": 50, "max_completion_tokens": None}, None)
@example({"messages": SAID, "max_tokens": 1, "max_completion_tokens": "4000"}, None)
@settings(max_examples=600, deadline=None)
def test_no_kind_of_endpoint_is_asked_for_more_than_the_bound(
    row: dict[str, Any], default: int | None
) -> None:
    options = CAP if default is None else CAP | {"max_tokens": default}
    found = read(row, **options)
    if isinstance(found, Refusal):
        return
    most = most_tokens(found.task, found.body)
    assert most is not None
    for kind in CONTRACTS:
        try:
            wire = sent(kind, found.task, found.body)
        except Unsupported:
            continue
        answer, images = asks_for(json.loads(json.dumps(wire)))
        assert answer <= most[1], (kind, wire)
        assert images * IMAGE <= most[0], (kind, wire)


def test_the_scoring_contract_is_sent_a_rows_own_limit_and_no_null() -> None:
    body = {"messages": SAID, "max_tokens": 50, "max_new_tokens": 20, "top_p": 0.5}
    parameters = sent("aml-score", "chat", body)["input_data"]["parameters"]
    assert parameters == {"top_p": 0.5, "max_new_tokens": 20}
    body = {"messages": SAID, "max_tokens": 50, "max_completion_tokens": None}
    assert sent("aml-score", "chat", body)["input_data"]["parameters"] == {"max_new_tokens": 50}
