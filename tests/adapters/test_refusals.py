"""Error bodies in all their shapes: what is read from them, and what never is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.deployments import Task
from schemas.outcomes import Limit, OutcomeKind
from workers.adapters.endpoints.answers import answer
from workers.adapters.endpoints.refusals import refusal, reported

NOW = 1_700_000_000.0
WORDS = [
    "error",
    "code",
    "message",
    "param",
    "type",
    "detail",
    "loc",
    "innererror",
    "content_filter_result",
    "error_type",
    "hate",
    "violence",
    "filtered",
    "choices",
    "data",
    "embedding",
    "index",
    "content",
    "finish_reason",
    "usage",
    "content_filter",
    "content_filter_results",
    "prompt_tokens",
    "completion_tokens",
    "body",
    "text",
]

keys = st.sampled_from(WORDS) | st.text(max_size=5)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(WORDS)
)
bodies = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=30,
)
headers = st.dictionaries(
    st.sampled_from(
        [
            "x-request-id",
            "x-ms-error-code",
            "ms-azureml-model-error-statuscode",
            "retry-after",
            "x-ratelimit-type",
            "x-ratelimit-remaining-tokens",
        ]
    ),
    st.text(max_size=20),
)


@given(st.integers(300, 599), headers, bodies)
def test_any_refusal_becomes_an_outcome_in_our_own_words(
    status: int, heads: dict[str, str], body: Any
) -> None:
    got = refusal(status, heads, body, NOW)
    assert got.kind != "ok"
    assert got.body is None
    assert got.code
    assert got.message is not None
    assert got.message.isascii()
    assert len(got.message) < 500
    assert (got.kind == "throttled") <= (not got.billed)


@given(bodies, st.sampled_from(["chat", "completions", "embeddings", "image-embeddings"]))
def test_any_body_with_a_success_status_becomes_an_outcome(body: Any, task: Task) -> None:
    got = answer(task, 200, {}, body, 2)
    assert got.billed
    assert (got.kind == "ok") == (got.message is None)
    assert reported(200, {}, body).kind in ("transient", "content_filter")


SHAPES: list[tuple[int, Any, OutcomeKind, str, str]] = [
    # OpenAI and Azure OpenAI
    (
        400,
        {
            "error": {
                "code": "context_length_exceeded",
                "param": "messages",
                "message": "This model's maximum context length is 4096 tokens.",
            }
        },
        "bad_request",
        "context_length_exceeded",
        "at most 4096 tokens",
    ),
    (
        400,
        {"error": {"code": None, "type": "invalid_request_error", "param": "temperature"}},
        "bad_request",
        "invalid_request_error",
        "parameter temperature",
    ),
    (404, {"error": {"code": "DeploymentNotFound"}}, "gone", "DeploymentNotFound", "url and model"),
    (429, {"error": {"code": "insufficient_quota"}}, "throttled", "insufficient_quota", "quota"),
    # Model Inference API, flat and wrapped
    (
        400,
        {"status": 400, "code": "content_filter", "param": "messages"},
        "content_filter",
        "content_filter",
        "content filter refused",
    ),
    (
        400,
        {
            "error": {
                "code": "x",
                "innererror": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {
                        "hate": {"filtered": True},
                        "jailbreak": {"filtered": True, "detected": True},
                    },
                },
            }
        },
        "content_filter",
        "x",
        "filtered: hate, jailbreak",
    ),
    (400, {"error": {"code": "unknown_model"}}, "gone", "unknown_model", "url and model"),
    (
        422,
        {"status": 422, "code": "parameter_not_supported", "detail": {"loc": ["body", "logit"]}},
        "bad_request",
        "parameter_not_supported",
        "parameter logit",
    ),
    (
        404,
        {"error": {"code": "not_found", "message": "Modality not supported by the model."}},
        "bad_request",
        "task_unsupported",
        "name its tasks",
    ),
    # FastAPI: vLLM, transformers serve
    (
        422,
        {"detail": [{"type": "missing", "loc": ["body", "messages", 0, "content"], "msg": "x"}]},
        "bad_request",
        "missing",
        "parameter messages[0].content",
    ),
    (400, {"detail": "Model nope not found"}, "bad_request", "http_400", "HTTP 400"),
    (404, {"detail": "Not Found"}, "gone", "no_such_path", "url and model"),
    (
        404,
        {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404},
        "gone",
        "NotFoundError",
        "url and model",
    ),
    # Ollama
    (404, {"error": {"message": "model 'x' not found"}}, "gone", "http_404", "url and model"),
    # text-generation-inference
    (422, {"error": "too long", "error_type": "validation"}, "bad_request", "validation", "422"),
    (424, {"error": "cuda", "error_type": "generation"}, "transient", "generation", "may pass"),
    # Gateways
    (502, None, "transient", "http_502", "HTTP 502"),
    (418, ["?"], "bad_request", "http_418", "HTTP 418"),
    (302, None, "gone", "http_302", "HTTP 302"),
    (529, {}, "transient", "http_529", "HTTP 529"),
]


@pytest.mark.parametrize(("status", "body", "kind", "code", "said"), SHAPES)
def test_shapes_that_servers_send(
    status: int, body: Any, kind: OutcomeKind, code: str, said: str
) -> None:
    got = refusal(status, {}, body, NOW)
    assert (got.kind, got.code) == (kind, code)
    assert got.message is not None
    assert said in got.message


@pytest.mark.parametrize(
    ("status", "body", "billed"),
    [
        (400, {"error": {"code": "context_length_exceeded"}}, True),
        (400, {"error": {"code": "content_filter"}}, True),
        (400, {"error": {"code": "invalid_request_error"}}, False),
        (401, None, False),
        (404, None, False),
        (408, None, True),
        (413, None, False),
        (422, None, False),
        (429, None, False),
        (500, None, True),
        (503, None, True),
    ],
)
def test_what_may_have_been_billed(status: int, body: Any, billed: bool) -> None:
    assert refusal(status, {}, body, NOW).billed is billed


@pytest.mark.parametrize("wait", ["60", "11000", "86400", "99999999"])
@pytest.mark.parametrize(
    ("headers", "text", "limit"),
    [
        ({"x-ratelimit-type": "UserByModelByMinute"}, "", "requests"),
        ({"x-ratelimit-type": "UserByModelByMinuteTokens"}, "", "tokens"),
        ({"x-ratelimit-type": "UserConcurrentRequests"}, "", "concurrency"),
        ({"x-ratelimit-type": "UserByModelByDay"}, "", "day"),
        ({}, "Rate limit of requests is exceeded.", "requests"),
        ({}, "Rate limit of tokens is exceeded.", "tokens"),
        ({}, "Rate limit of 150 per 86400s exceeded.", "day"),
        ({}, "Too many requests", None),
    ],
)
def test_what_a_limit_is_called_counts_and_not_how_long_the_wait_is(
    headers: dict[str, str], text: str, limit: Limit | None, wait: str
) -> None:
    body = {"error": {"message": text, "code": "429"}}
    got = refusal(429, headers | {"retry-after": wait}, body, NOW)
    assert (got.kind, got.limit) == ("throttled", limit)
    assert got.retry_after == (None if wait == "99999999" else float(wait))
