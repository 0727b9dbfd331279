"""Streams of chunks, cut anywhere: folded into one answer, or known to be broken."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.adapters.endpoints.streaming import EventLines, Fold, Malformed

DONE = b"data: [DONE]\n\n"


NAMES = st.sampled_from(
    ["content", "role", "tool_calls", "function", "name", "arguments", "index", "id", "text"]
)


def chunk(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "model": "m",
        "created": 1,
        "choices": [choice],
    }


def wire(*chunks: Any, end: bytes = DONE) -> bytes:
    return b"".join(b"data: " + orjson.dumps(each) + b"\n\n" for each in chunks) + end


def fold(raw: bytes, cuts: Iterable[int] = ()) -> Fold:
    folding = Fold()
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    for start, end in pairwise(edges):
        folding.feed(raw[start:end])
    folding.close()
    return folding


HELLO = (
    chunk(role="assistant", content=""),
    chunk(content="Grüß "),
    chunk(content="dich"),
    chunk(finish="stop"),
)


@given(st.lists(st.integers(0, 2000)))
def test_where_the_pieces_are_cut_makes_no_difference(cuts: list[int]) -> None:
    folded = fold(wire(*HELLO), cuts)
    assert folded.whole
    message = {"role": "assistant", "content": "Grüß dich"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    assert folded.body() == {
        "id": "c",
        "model": "m",
        "created": 1,
        "object": "chat.completion",
        "choices": [choice],
    }


@given(st.integers(0, len(wire(*HELLO, end=b"")) - 1))
def test_a_stream_cut_before_its_last_event_is_never_whole(cut: int) -> None:
    raw = wire(*HELLO, end=b"")
    last = raw.rindex(b"data: ")
    folding = Fold()
    try:
        folding.feed(raw[: min(cut, last)])
        folding.close()
    except Malformed:
        return
    assert not folding.whole


def test_a_server_that_sends_no_done_is_whole_when_all_its_choices_ended() -> None:
    assert fold(wire(*HELLO, end=b"")).whole
    assert not fold(wire(*HELLO, chunk(index=1, content="x"), end=b"")).whole


def test_without_done_a_choice_that_never_began_is_missed() -> None:
    folding = Fold(expected=2)
    folding.feed(wire(*HELLO, end=b""))
    assert not folding.whole
    folding.feed(wire(chunk(index=1, content="x"), chunk(index=1, finish="stop"), end=b""))
    assert folding.whole


def test_done_alone_is_no_answer() -> None:
    assert not fold(DONE).whole


def test_comments_event_names_crlf_and_split_data_lines_are_understood() -> None:
    raw = (
        b': ping\r\nevent: message\r\ndata: {"choices": [{"index": 0,\r\n'
        b'data: "delta": {"content": "a"}, "finish_reason": "stop"}]}\r\n\r\ndata:[DONE]\r\n\r\n'
    )
    folded = fold(raw)
    assert folded.whole
    assert folded.body()["choices"][0]["message"]["content"] == "a"


def test_usage_filter_results_and_empty_choices_are_kept_in_the_head() -> None:
    first = {"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    body = fold(wire(first, *HELLO, {"choices": [], "usage": usage})).body()
    assert (body["id"], body["usage"]) == ("c", usage)
    assert body["prompt_filter_results"] == [{"prompt_index": 0}]


def test_tool_calls_are_put_together() -> None:
    calls = (
        {"index": 0, "id": "t1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 1, "id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": " 1}"}},
    )
    folded = fold(wire(*(chunk(tool_calls=[call]) for call in calls), chunk(finish="tool_calls")))
    message = folded.body()["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_names_that_are_empty_in_later_chunks_are_kept() -> None:
    call = {"index": 0, "id": "t1", "type": "function", "function": {"name": "f"}}
    later = {"index": 0, "id": "", "function": {"name": None, "arguments": "{}"}}
    pieces = (chunk(role="assistant", tool_calls=[call]), chunk(role="", tool_calls=[later]))
    message = fold(wire(*pieces, chunk(finish="tool_calls"))).body()["choices"][0]["message"]
    assert message["role"] == "assistant"
    whole = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert message["tool_calls"] == [whole]


def test_content_that_comes_as_lists_of_parts_stays_a_list() -> None:
    parts = [{"type": "thinking", "thinking": "hm"}], [{"type": "text", "text": "hi"}]
    pieces = (chunk(content=""), chunk(content=parts[0]), chunk(content=parts[1]))
    folded = fold(wire(*pieces, chunk(finish="stop")))
    assert folded.body()["choices"][0]["message"]["content"] == [*parts[0], *parts[1]]


def test_log_probabilities_grow() -> None:
    pieces = [chunk(content=token) for token in "ab"]
    for piece, token in zip(pieces, "ab", strict=True):
        piece["choices"][0]["logprobs"] = {"content": [{"token": token}], "refusal": None}
    folded = fold(wire(*pieces, chunk(finish="stop")))
    logprobs = folded.body()["choices"][0]["logprobs"]
    assert logprobs["content"] == [{"token": "a"}, {"token": "b"}]


def test_an_error_event_is_kept_apart() -> None:
    folded = fold(wire(*HELLO[:2], {"error": {"message": "out of memory"}}))
    assert folded.error == {"error": {"message": "out of memory"}}


@pytest.mark.parametrize(
    "data",
    ["{", "[]", '{"choices": 3}', '{"choices": [3]}', '{"choices": [{"index": "x"}]}'],
)
def test_what_are_no_chunks_is_malformed(data: str) -> None:
    with pytest.raises(Malformed):
        Fold().feed(f"data: {data}\n\n".encode())


def test_an_endless_line_is_given_up() -> None:
    lines = EventLines()
    megabyte = b"x" * 1024 * 1024
    for _ in range(4):
        assert not list(lines.feed(megabyte))
    with pytest.raises(Malformed):
        list(lines.feed(megabyte))


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
tool_calls = st.fixed_dictionaries({}, optional={"index": anything, "function": anything})
deltas = anything | st.fixed_dictionaries(
    {}, optional={"content": anything, "role": anything, "tool_calls": st.lists(tool_calls)}
)
choices = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("index", "text", "logprobs", "message"), anything)
)


@pytest.mark.slow
@given(st.lists(st.tuples(choices, deltas), max_size=4))
def test_chunks_of_any_types_are_folded_or_malformed(pieces: list[tuple[Any, Any]]) -> None:
    try:
        folded = fold(wire(*({"choices": [choice | {"delta": delta}]} for choice, delta in pieces)))
    except Malformed:
        return
    orjson.dumps(folded.body())
    assert folded.whole == bool(pieces)


@given(st.binary())
def test_any_bytes_at_all_are_folded_or_malformed(raw: bytes) -> None:
    try:
        folded = fold(b"data: " + raw)
    except Malformed:
        return
    assert folded.whole in (True, False)
