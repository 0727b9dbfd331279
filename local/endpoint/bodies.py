"""What does a good answer look like on the wire? 200 bodies and stream chunks. Pure."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from . import schemas
from .answers import Completion, completion, embedding
from .contracts import Ask
from .faults import Fault

CREATED = 1_700_000_000
"""`created` of every answer: a constant, for answers must not depend on time."""

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Voice:
    """What decides an answer beside the request."""

    seed: int
    dimensions: int
    mean_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A 200 body and the tokens it bills."""

    body: Body
    prompt_tokens: int
    completion_tokens: int


def answer(ask: Ask, voice: Voice) -> Answer:
    """The answer to a request."""
    if ask.task in ("embeddings", "image-embeddings"):
        return _embeddings(ask, voice)
    choices = tuple(_choices(ask, voice))
    used = sum(choice.tokens for choice in choices)
    if ask.contract == "aml-score":
        return Answer({"output": choices[0].text}, ask.prompt_tokens, used)
    body = _envelope(ask, "chat.completion" if ask.task == "chat" else "text_completion")
    body["choices"] = [_choice(ask, index, choice) for index, choice in enumerate(choices)]
    body["usage"] = _usage(ask.prompt_tokens, used)
    return Answer(body, ask.prompt_tokens, used)


def stream_chunks(ask: Ask, body: Body) -> Iterator[Body]:
    """A body in the pieces of a server-sent stream: one a token, then the reason it ended."""
    chat = ask.task == "chat"
    head = _envelope(ask, "chat.completion.chunk" if chat else "text_completion")
    for choice in body["choices"]:
        text = choice["message"].get("content", "") if chat else choice["text"]
        for at, word in enumerate(text.split(" ") if text else ()):
            said: Body = {"role": "assistant"} if chat and at == 0 else {}
            said |= {"content" if chat else "text": f" {word}" if at else word}
            piece = {"delta": said} if chat else said
            yield head | {"choices": [{"index": choice["index"], **piece, "finish_reason": None}]}
        end: Body = {"delta": {}} if chat else {"text": ""}
        reason = choice["finish_reason"]
        yield head | {"choices": [{"index": choice["index"], **end, "finish_reason": reason}]}
    if ask.include_usage and "usage" in body:
        yield head | {"choices": [], "usage": body["usage"]}


def spoiled(ask: Ask, given: Body, fault: Fault) -> Body:
    """The body of a 200 that is not what was asked for; unchanged by any other fault."""
    if fault == "content_filter_200":
        return _filtered(ask, given)
    if fault == "wrong_schema" and ask.schema is not None:
        return given | {"choices": [_mistaken(ask.schema, choice) for choice in given["choices"]]}
    if fault == "empty_choices":
        return {k: [] if k in ("choices", "data") else v for k, v in given.items() if k != "output"}
    if fault == "missing_usage":
        return {k: v for k, v in given.items() if k != "usage"}
    if fault == "short_embeddings" and "data" in given:
        return given | {"data": given["data"][:-1]}
    if fault == "shuffled_embeddings" and "data" in given:
        return given | {"data": given["data"][::-1]}
    return given


def _mistaken(schema: schemas.Schema, choice: Body) -> Body:
    """The same choice with JSON that its schema is not content with; one cut short stays so."""
    if choice["finish_reason"] != "stop":
        return choice
    content = schemas.wrong(schema, choice["message"]["content"])
    return choice | {"message": choice["message"] | {"content": content}}


def _filtered(ask: Ask, given: Body) -> Body:
    """The same answer, its content taken away by the content filter."""
    if "choices" not in given:
        return given | ({"output": ""} if "output" in given else {})
    gone = {"finish_reason": "content_filter"}
    verdict = {"content_filter_results": {"violence": {"filtered": True, "severity": "medium"}}}
    said: Body = {"message": {"role": "assistant"}} if ask.task == "chat" else {"text": ""}
    return given | {
        "choices": [{"index": i, **said, **gone, **verdict} for i in range(len(given["choices"]))]
    }


def info(model: str, tasks: frozenset[str]) -> Body:
    """What GET /info of the Model Inference API says of a model."""
    kinds = {
        "chat": "chat_completion",
        "completions": "text_generation",
        "embeddings": "embeddings",
        "image-embeddings": "image_embeddings",
    }
    kind = next(kinds[task] for task in kinds if task in tasks)
    return {"model_name": model, "model_type": kind, "model_provider_name": "simulated"}


def models(names: list[str]) -> Body:
    """What GET /v1/models says."""
    listed = [
        {"id": name, "object": "model", "created": CREATED, "owned_by": "simulated"}
        for name in names
    ]
    return {"object": "list", "data": listed}


def _choices(ask: Ask, voice: Voice) -> Iterator[Completion]:
    prompts: list[Any] = [ask.prompt] if ask.task == "chat" else list(ask.inputs)
    for prompt in prompts:
        for index in range(ask.choices):
            yield completion(
                voice.seed,
                ask.model,
                prompt,
                sampling=ask.sampling,
                max_tokens=ask.max_tokens,
                stop=ask.stop,
                index=index,
                mean_tokens=voice.mean_tokens,
                as_json=ask.as_json,
                schema=ask.schema,
            )


def _choice(ask: Ask, index: int, choice: Completion) -> Body:
    said: Body = (
        {"message": {"role": "assistant", "content": choice.text}}
        if ask.task == "chat"
        else {"text": choice.text}
    )
    return {"index": index, **said, "finish_reason": choice.finish_reason, "logprobs": None}


def _embeddings(ask: Ask, voice: Voice) -> Answer:
    dimensions = ask.dimensions or voice.dimensions
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(ask, vector)}
        for index, vector in enumerate(
            embedding(voice.seed, ask.model, content, dimensions) for content in ask.inputs
        )
    ]
    body = {
        "id": _identity(ask),
        "object": "list",
        "data": data,
        "model": ask.model,
        "usage": {"prompt_tokens": ask.prompt_tokens, "total_tokens": ask.prompt_tokens},
    }
    return Answer(body, ask.prompt_tokens, 0)


def _encoded(ask: Ask, vector: list[float]) -> list[float] | str:
    if not ask.base64:
        return vector
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def _envelope(ask: Ask, kind: str) -> Body:
    return {
        "id": _identity(ask),
        "object": kind,
        "created": CREATED,
        "model": ask.model,
        "system_fingerprint": "simulated",
    }


def _identity(ask: Ask) -> str:
    digest = hashlib.blake2b(orjson.dumps([ask.model, ask.body]), digest_size=12).hexdigest()
    return f"simulated-{digest}"


def _usage(prompt_tokens: int, completion_tokens: int) -> Body:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
