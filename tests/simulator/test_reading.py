"""Addresses and bodies of the contracts, read."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.endpoint.contracts import Ask, RequestError, Route, Task, route
from local.endpoint.reading import parse

CHAT = Route("openai", "chat")
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "first"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": [{"type": "text", "text": "last"}]},
    {"role": "assistant", "content": "so"},
]


def read(where: Route, task: Task, body: object, **headers: str) -> Ask:
    return parse(where, task, headers, orjson.dumps(body))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/chat/completions", Route("model-inference", "chat")),
        ("/models/chat/completions", Route("model-inference", "chat")),
        ("/inference/embeddings", Route("model-inference", "embeddings")),
        ("/images/embeddings", Route("model-inference", "image-embeddings")),
        ("/info", Route("model-inference", "info")),
        ("/v1/completions", Route("openai", "completions")),
        ("/openai/v1/embeddings", Route("openai", "embeddings")),
        ("/v1/models", Route("openai", "models")),
        ("/openai/deployments/my%20one/chat/completions", Route("azure-openai", "chat", "my one")),
        ("/score", Route("aml-score", "chat")),
        ("/endpoints/m/score", Route("aml-score", "chat", "m")),
        ("/endpoints/m/chat/completions", Route("model-inference", "chat", "m")),
        ("/endpoints/m/info", Route("model-inference", "info", "m")),
        ("/", None),
        ("/v1/info", None),
        ("/v2/chat/completions", None),
        ("/openai/deployments/m/nothing", None),
    ],
)
def test_a_path_tells_contract_task_and_model(path: str, expected: Route | None) -> None:
    assert route(path) == expected


def test_a_chat_is_its_last_user_turn_with_the_whole_history_before_it() -> None:
    ask = read(CHAT, "chat", {"messages": MESSAGES, "model": "m", "max_tokens": 10, "n": 3})
    assert ask.inputs == ["last"]
    assert ask.prompt == MESSAGES
    assert ask.model == "m"
    assert ask.tokens == ask.prompt_tokens + 30
    assert "Be brief." in ask.text


def test_admission_reckons_with_a_default_where_max_tokens_is_not_said() -> None:
    ask = read(CHAT, "chat", {"messages": MESSAGES})
    assert ask.tokens == ask.prompt_tokens + 256
    newer = read(CHAT, "chat", {"messages": MESSAGES, "max_completion_tokens": 7})
    assert newer.tokens == newer.prompt_tokens + 7


def test_the_scoring_contract_says_max_new_tokens() -> None:
    parameters = {"max_new_tokens": 9, "temperature": 0.5}
    body = {"input_data": {"input_string": MESSAGES[:2], "parameters": parameters}}
    where = Route("aml-score", "chat")
    ask = read(where, "chat", body, **{"azureml-model-deployment": "blue"})
    assert (ask.max_tokens, ask.inputs, ask.model) == (9, ["first"], "blue")
    assert read(where, "chat", body).model == ""


@pytest.mark.parametrize(
    ("given_input", "expected"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_embeddings_take_texts_and_tokens_one_or_many(given_input: Any, expected: Any) -> None:
    ask = read(Route("openai", "embeddings"), "embeddings", {"input": given_input})
    assert ask.inputs == expected
    assert ask.tokens == ask.prompt_tokens


def test_unknown_parameters_need_leave_on_the_model_inference_contract() -> None:
    where = Route("model-inference", "chat")
    body = {"messages": MESSAGES, "safe_mode": True}
    with pytest.raises(RequestError) as refused:
        read(where, "chat", body)
    assert (refused.value.code, refused.value.param) == ("unknown_parameter", "safe_mode")
    with pytest.raises(RequestError):
        read(where, "chat", body, **{"extra-parameters": "error"})
    for leave in ("pass-through", "drop"):
        assert read(where, "chat", body, **{"extra-parameters": leave}).inputs == ["last"]


def test_azure_openai_refuses_and_self_hosted_servers_ignore_unknown_parameters() -> None:
    body = {"messages": MESSAGES, "safe_mode": True}
    with pytest.raises(RequestError):
        read(Route("azure-openai", "chat", "m"), "chat", body)
    assert read(CHAT, "chat", body).inputs == ["last"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"role": "wizard", "content": "hi"}]},
        {"messages": [{"role": ["user"], "content": "hi"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": MESSAGES, "max_tokens": 0},
        {"messages": MESSAGES, "max_tokens": True},
        {"messages": MESSAGES, "temperature": 3},
        {"messages": MESSAGES, "temperature": "hot"},
        {"messages": MESSAGES, "n": 1_000},
        {"messages": MESSAGES, "stop": 5},
        {"messages": MESSAGES, "model": 5},
    ],
)
def test_a_bad_chat_is_refused_and_the_field_named(body: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refused:
        read(CHAT, "chat", body)
    assert refused.value.code == "invalid_parameter"
    assert refused.value.param in {"messages", *body}


_BAD_INPUTS: list[Any] = [None, "", [], [""], ["a", 1], [[]], ["a"] * 2_049]


@pytest.mark.parametrize("bad", _BAD_INPUTS)
def test_bad_inputs_are_refused(bad: Any) -> None:
    with pytest.raises(RequestError):
        read(Route("openai", "embeddings"), "embeddings", {"input": bad})


def test_images_need_an_image() -> None:
    where = Route("model-inference", "image-embeddings")
    good = {"input": [{"image": "data:image/png;base64,AA==", "text": "a cat"}]}
    assert read(where, "image-embeddings", good).inputs == ["data:image/png;base64,AA==\na cat"]
    bodies: list[Any] = [{"input": []}, {"input": [{"text": "a cat"}]}, {"input": ["a"]}]
    for bad in bodies:
        with pytest.raises(RequestError):
            read(where, "image-embeddings", bad)


names = st.sampled_from(
    [
        *("messages", "role", "content", "text", "image", "type", "user", "tool_calls"),
        *("prompt", "input", "model", "max_tokens", "n", "stop", "stream", "temperature"),
        *("dimensions", "response_format", "input_data", "input_string", "parameters"),
    ]
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(-3, 3)
    | st.sampled_from(["", "user", "hello", "json_object", "base64"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(names, json_values, max_size=5),
    st.sampled_from(["chat", "completions", "embeddings", "image-embeddings", "score"]),
)
def test_any_json_is_read_or_refused(body: dict[str, Any], task: Any) -> None:
    score = task == "score"
    where = Route("aml-score" if score else "openai", "chat" if score else task)
    try:
        ask = read(where, where.task, body)  # type: ignore[arg-type]
    except RequestError:
        return
    assert ask.inputs
    assert ask.tokens >= ask.prompt_tokens
    assert isinstance(ask.text, str)
