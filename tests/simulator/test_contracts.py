"""Each contract over the wire: what is asked right is answered right, by value."""

import asyncio
import base64
import math
import random
import statistics
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson
import pytest

from local.endpoint import Model, Settings, completion, embedding, image_content
from local.endpoint.answers import count_message_tokens
from local.endpoint.simulator import draw_latency

from .asking import MODEL, Asker, asking

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How many eggs?"},
]
EMBED = "simulated-embed"
SEED = 11


@pytest.fixture
async def asker() -> AsyncIterator[Asker]:
    async with asking(Settings(profile="openai", seed=SEED, dimensions=16)) as running:
        yield running


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions?api-version=2024-05-01-preview",
        "/v1/chat/completions",
        f"/openai/deployments/{MODEL}/chat/completions?api-version=2024-10-21",
        f"/endpoints/{MODEL}/chat/completions",
    ],
)
async def test_a_chat_on_each_contract(asker: Asker, path: str) -> None:
    body = {"messages": MESSAGES, "max_tokens": 9, "temperature": 0.3}
    reply = await asker.post(path, body)
    expected = completion(SEED, MODEL, MESSAGES, sampling={"temperature": 0.3}, max_tokens=9)
    assert (reply.status, reply.text) == (200, expected.text)
    assert reply.body["model"] == MODEL
    assert reply.body["choices"][0]["finish_reason"] == expected.finish_reason
    prompt = count_message_tokens(["Be brief.", "How many eggs?"])
    assert reply.body["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": expected.tokens,
        "total_tokens": prompt + expected.tokens,
    }
    assert reply.headers["x-simulated"] == "true"
    assert reply.headers["x-request-id"].startswith("simulated-")
    assert reply.raw == (await asker.post(path, body)).raw


async def test_the_scoring_contract(asker: Asker) -> None:
    parameters = {"max_new_tokens": 5, "temperature": 0.3}
    body = {"input_data": {"input_string": MESSAGES, "parameters": parameters}}
    reply = await asker.post("/score", body)
    expected = completion(SEED, MODEL, MESSAGES, sampling={"temperature": 0.3}, max_tokens=5)
    assert reply.body == {"output": expected.text}
    other = "Phi-3-small-8k-instruct"
    chosen = await asker.post("/score", body, {"azureml-model-deployment": other})
    assert chosen.body["output"] != expected.text
    lost = await asker.post("/score", body, {"azureml-model-deployment": "lost"})
    assert lost.status == 404


async def test_completions_answer_each_prompt_n_times(asker: Asker) -> None:
    body = {"prompt": ["one", "two"], "n": 2, "max_tokens": 6}
    reply = await asker.post("/v1/completions", body)
    expected = [
        completion(SEED, MODEL, prompt, max_tokens=6, index=index).text
        for prompt in ("one", "two")
        for index in (0, 1)
    ]
    assert [choice["text"] for choice in reply.body["choices"]] == expected
    assert [choice["index"] for choice in reply.body["choices"]] == [0, 1, 2, 3]


async def test_packed_embeddings_are_in_order_and_by_value(asker: Asker) -> None:
    texts = [f"text {i}" for i in range(50)]
    reply = await asker.post("/v1/embeddings", {"model": EMBED, "input": texts})
    got = [(item["index"], item["embedding"]) for item in reply.body["data"]]
    assert got == [(i, embedding(SEED, EMBED, text, 16)) for i, text in enumerate(texts)]


async def test_embeddings_of_tokens_of_other_lengths_and_in_base64(asker: Asker) -> None:
    body = {"model": EMBED, "input": [[1, 2, 3]], "dimensions": 8, "encoding_format": "base64"}
    reply = await asker.post("/embeddings", body)
    raw = base64.b64decode(reply.body["data"][0]["embedding"])
    expected = np.asarray(embedding(SEED, EMBED, [1, 2, 3], 8), dtype="<f4")
    assert np.frombuffer(raw, dtype="<f4").tolist() == expected.tolist()
    assert reply.body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


async def test_image_embeddings(asker: Asker) -> None:
    image = "data:image/png;base64,iVBORw0KGgo="
    body = {"model": EMBED, "input": [{"image": image, "text": "a cat"}, {"image": image}]}
    reply = await asker.post("/images/embeddings", body)
    assert [item["embedding"] for item in reply.body["data"]] == [
        embedding(SEED, EMBED, image_content(image, "a cat"), 16),
        embedding(SEED, EMBED, image_content(image, None), 16),
    ]


@pytest.mark.parametrize("usage", [True, False])
async def test_a_stream_is_the_same_answer_in_pieces(asker: Asker, usage: bool) -> None:
    body: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 9}
    whole = await asker.post("/v1/chat/completions", body)
    options = {"stream": True, "stream_options": {"include_usage": usage}}
    reply = await asker.post("/v1/chat/completions", body | options)
    *chunks, done = reply.events
    assert done == "[DONE]"
    assert reply.headers["content-type"].startswith("text/event-stream")
    if usage:
        assert chunks.pop()["usage"] == whole.body["usage"]
    assert not any("usage" in chunk for chunk in chunks)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == whole.text
    assert deltas[0]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == [None, "length"]


async def test_a_json_answer_is_json_and_still_says_what_it_is(asker: Asker) -> None:
    reply = await asker.chat(response_format={"type": "json_object"}, max_tokens=500)
    told = orjson.loads(reply.text)
    assert told["simulated"].startswith("[simulated] ")


async def test_a_stop_sequence_and_n_in_a_chat(asker: Asker) -> None:
    whole = (await asker.chat("q", max_tokens=20)).text
    third = whole.split()[2]
    reply = await asker.chat("q", max_tokens=20, stop=third, n=2)
    assert reply.text == whole[: whole.index(third)]
    assert len(reply.body["choices"]) == 2


async def test_info_and_models_tell_what_is_served(asker: Asker) -> None:
    info = await asker.get("/info?api-version=2024-05-01-preview")
    assert info.body == {
        "model_name": MODEL,
        "model_type": "chat_completion",
        "model_provider_name": "simulated",
    }
    own = await asker.get(f"/endpoints/{EMBED}/info")
    assert own.body["model_type"] == "embeddings"
    assert (await asker.get("/endpoints/nope/info")).status == 400
    listed = await asker.get("/v1/models")
    assert {MODEL, EMBED} <= {item["id"] for item in listed.body["data"]}


async def test_a_request_without_a_model_goes_to_the_first_that_can(asker: Asker) -> None:
    assert (await asker.chat()).body["model"] == MODEL
    reply = await asker.post("/v1/embeddings", {"input": "a"})
    assert reply.body["model"] == EMBED


async def test_models_are_told_on_the_command_line() -> None:
    assert Model.parse("x").tasks == {"chat", "completions"}
    assert Model.parse("my-Embedder").tasks == {"embeddings", "image-embeddings"}
    assert Model.parse("x:chat,embeddings").tasks == {"chat", "embeddings"}
    with pytest.raises(ValueError, match="tasks are"):
        Model.parse("x:sing")


async def test_a_model_with_a_slash_in_its_name_has_an_address() -> None:
    name = "microsoft/Phi-3-mini-4k-instruct"
    async with asking(Settings(models=(Model.parse(name),))) as running:
        info = await running.get(f"/endpoints/{quote(name, safe='')}/info")
        assert info.body["model_name"] == name


def test_latencies_are_lognormal_around_their_mean() -> None:
    rng = random.Random(1)
    drawn = [draw_latency(2.0, 0.5, rng) for _ in range(20_000)]
    assert statistics.fmean(drawn) == pytest.approx(2.0, rel=0.03)
    assert statistics.stdev(map(math.log, drawn)) == pytest.approx(0.5, rel=0.03)
    assert draw_latency(2.0, 0, rng) == 2.0
    assert draw_latency(0, 0.5, rng) == 0


async def test_latency_is_waited_for_and_grows_with_the_tokens() -> None:
    settings = Settings(profile="openai", latency=0.05, latency_per_token=0.01)
    async with asking(settings) as running:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(running.chat(str(i), max_tokens=10) for i in range(20)))
        took = loop.time() - began
        assert 0.15 <= took < 1.5  # side by side, not one after another
        began = loop.time()
        await running.chat(max_tokens=10, stream=True)
        assert loop.time() - began >= 0.15
        assert running.endpoint.stats()["peak_in_flight"] == 20
