"""Is a body what its contract asks for? Request bodies read into one `Ask`. Pure.

Sources: the references that `contracts` names. What a service would refuse raises RequestError.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from . import schemas
from .answers import count_message_tokens, image_content
from .contracts import Ask, Contract, RequestError, Route, Task
from .fields import (
    check_ranges,
    count_input,
    read_count,
    read_inputs,
    read_messages,
    read_stop,
    read_text,
    wants_json,
)

_GENERATION = frozenset(
    {
        "frequency_penalty",
        "max_tokens",
        "model",
        "presence_penalty",
        "seed",
        "stop",
        "stream",
        "temperature",
        "top_p",
    }
)
_CHAT = _GENERATION | frozenset({"messages", "response_format", "tool_choice", "tools"})
_OPENAI_EXTRA = frozenset({"logit_bias", "logprobs", "n", "stream_options", "user"})
_EMBEDDINGS = frozenset({"dimensions", "encoding_format", "input", "input_type", "model"})
_KNOWN: dict[tuple[Contract, Task], frozenset[str]] = {
    ("model-inference", "chat"): _CHAT | {"modalities"},
    ("model-inference", "completions"): _GENERATION | {"prompt"},
    ("model-inference", "embeddings"): _EMBEDDINGS,
    ("model-inference", "image-embeddings"): _EMBEDDINGS,
    ("azure-openai", "chat"): _CHAT
    | _OPENAI_EXTRA
    | frozenset({"data_sources", "max_completion_tokens", "parallel_tool_calls", "top_logprobs"}),
    ("azure-openai", "completions"): _GENERATION
    | _OPENAI_EXTRA
    | frozenset({"best_of", "echo", "prompt", "suffix"}),
    ("azure-openai", "embeddings"): _EMBEDDINGS | {"user"},
}


def parse(where: Route, task: Task, headers: Mapping[str, str], raw: bytes) -> Ask:
    """Read a request's body. `model` of the result is empty where the request names none.

    Raises RequestError with one of the codes invalid_json, unknown_parameter, invalid_parameter.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise RequestError("invalid_json", "The request body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise RequestError("invalid_json", "The request body must be a JSON object.")
    if where.contract == "aml-score":
        return _parse_score(body, headers, where)
    _refuse_unknown(where.contract, task, body, headers)
    ask = _PARSERS[task](where.contract, task, body)
    if where.model is not None:
        ask.model = where.model
    return ask


def _refuse_unknown(
    contract: Contract, task: Task, body: Mapping[str, Any], headers: Mapping[str, str]
) -> None:
    known = _KNOWN.get((contract, task))
    if known is None or body.keys() <= known:
        return
    if contract == "model-inference" and headers.get("extra-parameters", "error") in (
        "pass-through",
        "allow",
        "drop",
        "ignore",
    ):
        return
    name = min(body.keys() - known)
    raise RequestError("unknown_parameter", f"Unrecognized request argument: {name}", name)


def _parse_chat(contract: Contract, task: Task, body: Mapping[str, Any]) -> Ask:
    messages = body.get("messages")
    contents = read_messages(messages, "messages")
    last_user = max(
        (i for i, m in enumerate(messages or []) if m["role"] == "user"), default=len(contents) - 1
    )
    return _generation(
        contract,
        task,
        body,
        prompt=messages,
        inputs=[contents[last_user]],
        prompt_tokens=count_message_tokens(contents),
    )


def _parse_completions(contract: Contract, task: Task, body: Mapping[str, Any]) -> Ask:
    inputs = read_inputs(body.get("prompt"), "prompt")
    tokens = sum(map(count_input, inputs))
    return _generation(
        contract,
        task,
        body,
        prompt=body["prompt"],
        inputs=inputs,
        prompt_tokens=tokens,
        longest_prompt=max(map(count_input, inputs)),
    )


def _parse_embeddings(contract: Contract, task: Task, body: Mapping[str, Any]) -> Ask:
    inputs = read_inputs(body.get("input"), "input")
    return _vectors(contract, task, body, inputs, sum(map(count_input, inputs)))


def _parse_image_embeddings(contract: Contract, task: Task, body: Mapping[str, Any]) -> Ask:
    given = body.get("input")
    if not isinstance(given, list) or not given:
        raise RequestError("invalid_parameter", "'input' must be a non-empty list.", "input")
    inputs: list[str | list[int]] = []
    for item in given:
        image = item.get("image") if isinstance(item, dict) else None
        text = item.get("text") if isinstance(item, dict) else None
        if not isinstance(image, str) or not (text is None or isinstance(text, str)):
            raise RequestError(
                "invalid_parameter", "Each input needs 'image', a data URL; 'text' may be.", "input"
            )
        inputs.append(image_content(image, text))
    return _vectors(contract, task, body, inputs, 256 * len(inputs))


_PARSERS = {
    "chat": _parse_chat,
    "completions": _parse_completions,
    "embeddings": _parse_embeddings,
    "image-embeddings": _parse_image_embeddings,
}


def _parse_score(body: Mapping[str, Any], headers: Mapping[str, str], where: Route) -> Ask:
    data = body.get("input_data")
    if not isinstance(data, dict):
        raise RequestError("invalid_parameter", "'input_data' must be an object.", "input_data")
    messages = data.get("input_string")
    contents = read_messages(messages, "input_string")
    parameters = data.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError("invalid_parameter", "'parameters' must be an object.", "parameters")
    mapped = dict(parameters)
    mapped["max_tokens"] = mapped.pop("max_new_tokens", None)
    ask = _generation(
        "aml-score",
        "chat",
        mapped,
        prompt=messages,
        inputs=[contents[-1]],
        prompt_tokens=count_message_tokens(contents),
    )
    ask.model = headers.get("azureml-model-deployment") or where.model or ""
    ask.stream = False
    return ask


def _generation(
    contract: Contract,
    task: Task,
    body: Mapping[str, Any],
    *,
    prompt: object,
    inputs: list[str | list[int]],
    prompt_tokens: int,
    longest_prompt: int | None = None,
) -> Ask:
    check_ranges(body)
    max_tokens = read_count(body, "max_completion_tokens") or read_count(body, "max_tokens")
    options = body.get("stream_options")
    stream = body.get("stream") is True
    return Ask(
        contract=contract,
        task=task,
        model=read_text(body, "model") or "",
        body=body,
        prompt=prompt,
        inputs=inputs,
        prompt_tokens=prompt_tokens,
        longest_prompt=prompt_tokens if longest_prompt is None else longest_prompt,
        sampling=body,
        max_tokens=max_tokens,
        stop=read_stop(body.get("stop")),
        choices=read_count(body, "n", 128) or 1,
        stream=stream,
        include_usage=stream and isinstance(options, dict) and options.get("include_usage") is True,
        as_json=wants_json(body.get("response_format")),
        schema=schemas.read(body.get("response_format")) if task == "chat" else None,
        user=read_text(body, "user"),
    )


def _vectors(
    contract: Contract,
    task: Task,
    body: Mapping[str, Any],
    inputs: list[str | list[int]],
    prompt_tokens: int,
) -> Ask:
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        message = "'encoding_format' must be 'float' or 'base64'."
        raise RequestError("invalid_parameter", message, "encoding_format")
    return Ask(
        contract=contract,
        task=task,
        model=read_text(body, "model") or "",
        body=body,
        prompt=None,
        inputs=inputs,
        prompt_tokens=prompt_tokens,
        dimensions=read_count(body, "dimensions", 4096),
        base64=encoding == "base64",
        user=read_text(body, "user"),
    )
