"""The Azure SDK, a client that the simulator does not own, understands what it is sent."""

from collections.abc import AsyncIterator

import pytest
from azure.ai.inference.aio import (
    ChatCompletionsClient,
    EmbeddingsClient,
    ImageEmbeddingsClient,
)
from azure.ai.inference.models import (
    ImageEmbeddingInput,
    StreamingChatCompletionsUpdate,
    SystemMessage,
    UserMessage,
)
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

from local.endpoint import Endpoint, Rule, Settings, completion, embedding, image_content, simulate

from .asking import MODEL, UNLIMITED

KEY = AzureKeyCredential("simulated-key")
TURNS = [SystemMessage("Be brief."), UserMessage("How many eggs?")]
SENT = [
    {"content": "Be brief.", "role": "system"},
    {"content": "How many eggs?", "role": "user"},
]


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with simulate(Settings(key=KEY.key, seed=2, **UNLIMITED)) as running:
        yield running


async def test_chat_and_info(endpoint: Endpoint) -> None:
    async with ChatCompletionsClient(endpoint.url, KEY) as client:
        told = await client.complete(messages=list(TURNS), max_tokens=12, temperature=0.5)
        expected = completion(2, MODEL, SENT, sampling={"temperature": 0.5}, max_tokens=12)
        assert told.choices[0].message.content == expected.text
        assert told.usage.completion_tokens == expected.tokens
        info = await client.get_model_info()
        assert (info.model_name, info.model_type) == (MODEL, "chat_completion")


async def test_a_streamed_chat(endpoint: Endpoint) -> None:
    async with ChatCompletionsClient(endpoint.url, KEY) as client:
        updates = await client.complete(messages=list(TURNS), max_tokens=12, stream=True)
        text = ""
        async for update in updates:
            assert isinstance(update, StreamingChatCompletionsUpdate)
            text += update.choices[0].delta.content or ""
        assert text == completion(2, MODEL, SENT, max_tokens=12).text


async def test_embeddings_of_texts_and_of_images(endpoint: Endpoint) -> None:
    model = "simulated-embed"
    async with EmbeddingsClient(endpoint.url, KEY) as client:
        texts = await client.embed(input=["one", "two"], dimensions=6)
        assert [item.embedding for item in texts.data] == [
            embedding(2, model, "one", 6),
            embedding(2, model, "two", 6),
        ]
    async with ImageEmbeddingsClient(endpoint.url, KEY) as client:
        image = "data:image/png;base64,AA=="
        told = await client.embed(input=[ImageEmbeddingInput(image=image, text="x")], dimensions=6)
        assert told.data[0].embedding == embedding(2, model, image_content(image, "x"), 6)


async def test_refusals_are_the_errors_of_the_sdk(endpoint: Endpoint) -> None:
    async with ChatCompletionsClient(endpoint.url, AzureKeyCredential("no")) as client:
        with pytest.raises(ClientAuthenticationError):
            await client.complete(messages=list(TURNS))
    endpoint.set_faults(Rule(fault="content_filter_400"))
    async with ChatCompletionsClient(endpoint.url, KEY) as client:
        with pytest.raises(HttpResponseError) as refused:
            await client.complete(messages=list(TURNS))
        assert refused.value.status_code == 400
        assert refused.value.error is not None
        assert refused.value.error.code == "content_filter"


async def test_extra_parameters_reach_the_model(endpoint: Endpoint) -> None:
    async with ChatCompletionsClient(endpoint.url, KEY) as client:
        told = await client.complete(messages=list(TURNS), max_tokens=5, model_extras={"n": 2})
        assert [choice.message.content for choice in told.choices] == [
            completion(2, MODEL, SENT, max_tokens=5, index=index).text for index in (0, 1)
        ]
