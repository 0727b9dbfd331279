"""Each kind does each of its tasks, and its answers are those of the service, by value."""

from typing import Any

import pytest

from local.endpoint import completion, embedding, image_content
from schemas.deployments import TASKS_OF_KIND, EndpointKind, Task
from tests.adapters.clients import (
    EMBED,
    KINDS,
    MODEL,
    SEED,
    asking,
    json_answer,
    recorded,
    simulated,
    written,
)

MESSAGES = [
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of Österreich? 日本?"},
]
IMAGE = {"image": "data:image/png;base64,iVBORw0KGgo=", "text": "a dot"}

PAIRS = [(kind, task) for kind in KINDS for task in TASKS_OF_KIND[kind]]


def expected_chat(**parameters: Any) -> str:
    max_tokens = parameters.pop("max_tokens", None)
    said = completion(SEED, MODEL, MESSAGES, sampling=parameters, max_tokens=max_tokens)
    return said.text


async def ask_chat(kind: EndpointKind, **parameters: Any) -> dict[str, Any]:
    async with simulated(kind) as (endpoint, _):
        outcome = await endpoint.ask("chat", {"messages": MESSAGES, "model": "row's", **parameters})
    assert outcome.kind == "ok"
    assert outcome.body is not None
    return outcome.body


@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_gets_its_answer_with_all_parameters_applied(
    kind: EndpointKind,
) -> None:
    parameters = {"max_tokens": 7, "temperature": 0.3, "top_p": 0.9, "seed": 5}
    body = await ask_chat(kind, **parameters)
    assert body["object"] == "chat.completion"
    assert body["model"] == MODEL
    message = {"role": "assistant", "content": expected_chat(**parameters)}
    assert body["choices"][0]["message"] == message


@pytest.mark.parametrize(("kind", "task"), PAIRS)
async def test_each_task_of_each_kind_is_done_and_counted(kind: EndpointKind, task: Task) -> None:
    embeds = task in ("embeddings", "image-embeddings")
    bodies: dict[Task, dict[str, Any]] = {
        "chat": {"messages": MESSAGES},
        "completions": {"prompt": "Once upon a time", "max_tokens": 9},
        "embeddings": {"input": ["one", "two", "three"]},
        "image-embeddings": {"input": [IMAGE]},
    }
    async with simulated(kind, model=EMBED if embeds else MODEL) as (endpoint, simulator):
        outcome = await endpoint.ask(task, bodies[task])
        stats = simulator.stats(rows=True)
    assert outcome.kind == "ok"
    assert outcome.billed
    assert outcome.body is not None
    if kind == "aml-score":
        assert outcome.usage is None, "the scoring contract tells no usage, and none is made up"
    else:
        assert outcome.usage is not None
        assert outcome.usage.prompt_tokens == outcome.body["usage"]["prompt_tokens"] > 0
    billed = [row for row in stats["billed"].values() if row]
    assert len(billed) == (3 if task == "embeddings" else 1)
    found: dict[Task, Any] = {
        "chat": lambda body: body["choices"][0]["message"]["content"],
        "completions": lambda body: body["choices"][0]["text"],
        "embeddings": lambda body: [each["embedding"] for each in written(body)["data"]],
        "image-embeddings": lambda body: [each["embedding"] for each in written(body)["data"]],
    }
    wanted: dict[Task, Any] = {
        "chat": expected_chat(),
        "completions": completion(SEED, MODEL, "Once upon a time", max_tokens=9).text,
        "embeddings": [embedding(SEED, EMBED, text) for text in ("one", "two", "three")],
        "image-embeddings": [embedding(SEED, EMBED, image_content(IMAGE["image"], IMAGE["text"]))],
    }
    assert found[task](outcome.body) == wanted[task]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stream_is_folded_into_the_same_completion(kind: EndpointKind) -> None:
    whole = await ask_chat(kind, max_tokens=12)
    folded = await ask_chat(kind, max_tokens=12, stream=True)
    for body in (whole, folded):
        assert body["object"] == "chat.completion"
        assert body["choices"][0]["message"]["content"] == expected_chat(max_tokens=12)
    assert folded["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


@pytest.mark.parametrize("kind", ["model-inference", "openai", "azure-openai"])
async def test_a_streamed_completion_is_folded_too(kind: EndpointKind) -> None:
    async with simulated(kind) as (endpoint, _):
        body = {"prompt": "Twice", "max_tokens": 6, "stream": True, "n": 2}
        outcome = await endpoint.ask("completions", body)
    assert outcome.kind == "ok"
    assert outcome.body is not None
    said = [completion(SEED, MODEL, "Twice", max_tokens=6, index=index).text for index in (0, 1)]
    assert [choice["text"] for choice in outcome.body["choices"]] == said
    assert outcome.body["object"] == "text_completion"


async def test_usage_of_a_stream_is_read_where_the_row_asks_for_it() -> None:
    body = {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    async with simulated("openai") as (endpoint, _):
        outcome = await endpoint.ask("chat", body)
    assert outcome.usage is not None
    assert outcome.usage.completion_tokens > 0


async def test_unknown_parameters_reach_a_model_inference_endpoint() -> None:
    async with recorded("model-inference", json_answer({"choices": []})) as (endpoint, seen):
        await endpoint.ask("chat", {"messages": MESSAGES, "safe_prompt": True, "model": "x"})
    request = seen[0]
    assert request.path == "/chat/completions?api-version=2024-05-01-preview"
    assert request.headers["extra-parameters"] == "pass-through"
    assert request.body == {"messages": MESSAGES, "safe_prompt": True, "model": MODEL}


async def test_azure_openai_names_deployment_and_version_in_the_address() -> None:
    fields = {"model": "my deployment", "api_version": "2025-01-01"}
    async with recorded("azure-openai", json_answer({"choices": []}), **fields) as (endpoint, seen):
        await endpoint.ask("embeddings", {"input": "a", "model": "row's"})
    request = seen[0]
    assert request.path == "/openai/deployments/my%20deployment/embeddings?api-version=2025-01-01"
    assert request.body == {"input": "a"}


async def test_the_scoring_contract_maps_parameters_both_ways() -> None:
    headers = {"azureml-model-deployment": "blue"}
    answer = json_answer({"output": "yes"})
    async with recorded("aml-score", answer, headers=headers) as (endpoint, seen):
        body = {"messages": MESSAGES, "max_tokens": 9, "top_p": 0.5, "stream": True, "n": 1}
        outcome = await endpoint.ask("chat", body)
        refused = await endpoint.ask("chat", body | {"n": 2})
    request = seen[0]
    assert request.path == "/score"
    assert request.headers["azureml-model-deployment"] == "blue"
    parameters = {"max_new_tokens": 9, "top_p": 0.5}
    assert request.body == {"input_data": {"input_string": MESSAGES, "parameters": parameters}}
    assert outcome.kind == "ok"
    assert outcome.body is not None
    assert outcome.body["choices"][0]["message"] == {"role": "assistant", "content": "yes"}
    assert "usage" not in outcome.body
    assert (refused.kind, refused.code, refused.billed) == (
        "bad_request",
        "unsupported_parameter",
        False,
    )
    assert len(seen) == 1, "what the contract cannot carry is not sent"


async def test_usage_of_a_scoring_answer_is_kept_where_there_is_one() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    answer = json_answer({"output": "yes", "usage": usage})
    async with recorded("aml-score", answer) as (endpoint, _):
        outcome = await endpoint.ask("chat", {"messages": MESSAGES})
    assert outcome.usage is not None
    assert (outcome.usage.total_tokens, outcome.body and outcome.body["usage"]) == (7, usage)


async def test_a_task_that_the_kind_cannot_do_is_refused_unsent() -> None:
    async with simulated("aml-score") as (endpoint, simulator):
        outcome = await endpoint.ask("embeddings", {"input": "a"})
        assert simulator.stats()["received"] == 0
    assert (outcome.kind, outcome.code, outcome.billed) == (
        "bad_request",
        "task_unsupported",
        False,
    )


async def test_a_task_that_the_model_cannot_do_does_not_stop_its_deployment() -> None:
    for kind in ("model-inference", "openai", "azure-openai"):
        async with simulated(kind) as (endpoint, _):
            outcome = await endpoint.ask("embeddings", {"input": "a"})
        assert (outcome.kind, outcome.code) == ("bad_request", "task_unsupported"), kind


async def test_info_tells_model_and_tasks() -> None:
    async with simulated("model-inference") as (endpoint, _):
        info = await endpoint.info()
    assert info is not None
    assert (info.model, info.provider) == (MODEL, "simulated")
    assert info.tasks == ("chat", "completions")


async def test_info_about_another_model_says_nothing_of_this_ones_tasks() -> None:
    async with simulated("model-inference", model=EMBED) as (endpoint, _):
        info = await endpoint.info()
    assert info is not None
    assert info.tasks is None


@pytest.mark.parametrize(
    ("spelling", "tasks"),
    [
        ("chat-completion", ("chat", "completions")),
        ("Text Embeddings", ("embeddings",)),
        ("image_embeddings", ("image-embeddings", "embeddings")),
        ("audio_generation", None),
    ],
)
async def test_model_types_are_understood_however_they_are_spelled(
    spelling: str, tasks: tuple[Task, ...] | None
) -> None:
    answer = {"model_name": f"microsoft/{MODEL.lower()}", "model_type": spelling}
    async with recorded("model-inference", json_answer(answer)) as (endpoint, seen):
        info = await endpoint.info()
    assert seen[0].path == "/info?api-version=2024-05-01-preview"
    assert info is not None
    assert info.tasks == tasks


async def test_an_openai_server_tells_its_models() -> None:
    models = {"data": [{"id": f"{MODEL}@main"}, {"id": "b"}]}
    async with recorded("openai", json_answer(models)) as (endpoint, seen):
        info = await endpoint.info()
    assert seen[0].path == "/v1/models"
    assert info is not None
    assert (info.model, info.tasks) == (MODEL, None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [200, 401, 404, 500])
async def test_an_endpoint_that_does_not_say_what_it_is_says_none(
    kind: EndpointKind, status: int
) -> None:
    async with recorded(kind, json_answer(["?"], status)) as (endpoint, _):
        assert await endpoint.info() is None


async def test_an_unreachable_endpoint_says_none() -> None:
    async with asking("model-inference", "http://127.0.0.1:9") as endpoint:
        assert await endpoint.info() is None
