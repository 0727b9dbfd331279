"""Successes, looked at closely: what is one, what is none, and how much may come."""

import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from aiohttp import web

from schemas.deployments import Task
from schemas.outcomes import OutcomeKind, Usage
from tests.adapters.clients import asking, json_answer, recorded
from workers.adapters.endpoints import calling
from workers.adapters.endpoints.answers import answer, usage_of

MESSAGE = {"role": "assistant", "content": "hi"}
CHOICE = {"index": 0, "message": MESSAGE, "finish_reason": "stop"}
FILTERED = {
    "index": 0,
    "message": {"role": "assistant"},
    "finish_reason": "content_filter",
    "content_filter_results": {
        "violence": {"filtered": True, "severity": "high"},
        "hate": {"filtered": False, "severity": "safe"},
        "what the prompt said": {"filtered": True},
    },
}
GOOD = {"id": "x", "choices": [CHOICE], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}
CHAT = {"messages": [{"role": "user", "content": "hello"}]}


def vector(index: int) -> dict[str, Any]:
    return {"index": index, "embedding": [float(index)]}


@pytest.mark.parametrize(
    ("task", "body", "kind", "code"),
    [
        ("chat", GOOD, "ok", None),
        ("chat", GOOD | {"error": None}, "ok", None),
        (
            "chat",
            {"choices": [CHOICE | {"message": {"content": None, "tool_calls": []}}]},
            "ok",
            None,
        ),
        ("chat", {"choices": [CHOICE, FILTERED]}, "ok", None),
        ("chat", {"choices": [FILTERED, FILTERED]}, "content_filter", "content_filter"),
        ("chat", {"choices": [{"text": "x"}]}, "transient", "unreadable_answer"),
        ("chat", {"choices": ["x"]}, "transient", "unreadable_answer"),
        ("chat", {"choices": {}}, "transient", "empty_answer"),
        ("chat", {"error": {"code": "content_filter"}}, "content_filter", "content_filter"),
        ("chat", {"error": {"message": "out of memory"}}, "transient", "reported_error"),
        ("chat", [GOOD], "transient", "unreadable_answer"),
        ("completions", {"choices": [{"text": "x"}]}, "ok", None),
        ("completions", {"choices": [{"text": None}]}, "transient", "unreadable_answer"),
        ("embeddings", {"data": [vector(1), vector(0)]}, "ok", None),
        ("embeddings", {"data": [vector(0)]}, "transient", "embeddings_mismatch"),
        ("embeddings", {"data": [vector(0), vector(0)]}, "transient", "embeddings_mismatch"),
        ("embeddings", {"data": []}, "transient", "empty_answer"),
        ("image-embeddings", {"data": [vector(0), vector(1)]}, "ok", None),
    ],
)
def test_bodies_with_a_success_status(
    task: Task, body: Any, kind: OutcomeKind, code: str | None
) -> None:
    got = answer(task, 200, {}, body, 2 if "embeddings" in task else None)
    assert (got.kind, got.code, got.billed) == (kind, code, True)
    assert (got.message is None) == (kind == "ok")


def test_embeddings_come_in_the_order_of_their_inputs() -> None:
    got = answer("embeddings", 200, {}, {"data": [vector(2), vector(0), vector(1)]}, 3)
    assert got.body is not None
    assert got.body["data"] == [vector(0), vector(1), vector(2)]


def test_a_filtered_answer_names_documented_categories_only() -> None:
    got = answer("chat", 200, {}, {"choices": [FILTERED]}, None)
    assert got.message is not None
    assert got.message.endswith("(filtered: violence)")


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(3, 4)),
        ({"prompt_tokens": 3, "total_tokens": 3}, Usage(3, 0)),
        ({"total_tokens": 3}, Usage(3, 0)),
        ({"prompt_tokens": 3, "completion_tokens": None}, Usage(3, 0)),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": "3"}, None),
        ({"prompt_tokens": True}, None),
        ({}, None),
        (None, None),
        ([1], None),
    ],
)
def test_usage_is_what_the_endpoint_counted_or_nothing(usage: Any, wanted: Usage | None) -> None:
    assert usage_of({"usage": usage}) == wanted


def test_the_services_name_for_the_call_is_kept() -> None:
    assert answer("chat", 200, {"apim-request-id": "abc-1"}, GOOD, None).request_id == "abc-1"


def packed(chunked: bool) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    async def answer_packed(request: web.BaseRequest) -> web.StreamResponse:
        raw = gzip.compress(orjson.dumps(GOOD))
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        if not chunked:
            return web.Response(body=raw, headers=headers)
        response = web.StreamResponse(headers=headers)
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(raw)
        await response.write_eof()
        return response

    return answer_packed


@pytest.mark.parametrize("chunked", [True, False])
async def test_packed_answers_are_unpacked_once(chunked: bool) -> None:
    async with recorded("openai", packed(chunked)) as (endpoint, _):
        assert (await endpoint.ask("chat", CHAT)).body == GOOD


@pytest.mark.parametrize("chunked", [True, False])
async def test_an_answer_beyond_all_reason_is_not_read(
    chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling, "LARGEST_ANSWER", 20)
    async with recorded("openai", packed(chunked)) as (endpoint, _):
        got = await endpoint.ask("chat", CHAT)
    assert (got.kind, got.code, got.billed) == ("transient", "answer_too_large", True)


async def test_a_request_that_json_cannot_carry_is_not_sent() -> None:
    async with recorded("openai", json_answer(GOOD)) as (endpoint, seen):
        got = await endpoint.ask("chat", {"messages": [{"content": "\ud800"}]})
    assert (got.kind, got.code, got.billed) == ("bad_request", "unencodable", False)
    assert seen == []


async def test_a_name_that_does_not_resolve_was_not_billed() -> None:
    async with asking("openai", "http://no-such-host.invalid", allow_http=True) as endpoint:
        got = await endpoint.ask("chat", CHAT)
    assert (got.kind, got.code, got.billed) == ("transient", "connect_failed", False)
