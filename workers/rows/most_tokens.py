"""How many tokens may a call be billed for at the very most?

A token covers at least a byte of text, so that the bytes of the request bound its prompt, whatever
the tokenizer; what a chat template adds has a constant for each message. Tokenizers that write a
text out at greater length before they cut it (NFKC) are not bounded by this. What may stand in a
request beside what is counted here is judged in `capped`.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from schemas.deployments import Task
from workers.rows.sizes import choices, whole

IMAGE: Final = 50_000
"""Tokens of one image. Phi-3.5-vision takes 2,509 at most; gpt-4o-mini counts 48,169 for one. An
endpoint that took the bytes of an image for text would count more.
"""
_PER_MESSAGE: Final = 16
_PER_CALL: Final = 64
# What bounds an answer, and what does at every endpoint: the last is the scoring contract's alone.
_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_new_tokens")
_LIMITED_BY: Final[Mapping[Task, tuple[str, ...]]] = {
    "chat": ("max_tokens", "max_completion_tokens"),
    "completions": ("max_tokens",),
}
# Templates write these out with indents and escapes, and explain them to the model before.
_WRITTEN_OUT: Final = (
    *("tools", "functions", "documents", "chat_template_kwargs"),
    *("tool_calls", "function_call"),
)
_AS_LONG: Final = 4
_EXPLAINED: Final = 512
_SAID_AGAIN: Final = ("echo", "return_full_text")


def most_tokens(task: Task, body: Mapping[str, Any]) -> tuple[int, int] | None:
    """Of the prompt and of the answer; None where nothing bounds the answer."""
    prompt = _prompt(body)
    if task in ("embeddings", "image-embeddings"):
        return prompt, 0
    limits = {name: limit for name in _LIMITS if (limit := whole(body.get(name))) is not None}
    if not any(name in limits for name in _LIMITED_BY[task]):
        return None
    prompts = body.get("prompt")
    answer = max(limits.values()) * (len(prompts) if isinstance(prompts, list) else 1)
    said_again = prompt if says_again(body) else 0
    return prompt, (answer + said_again) * choices(body)


def says_again(body: Mapping[str, Any]) -> bool:
    """Whether an answer holds its prompt as well."""
    return any(map(body.get, _SAID_AGAIN))


def text_tokens(body: Mapping[str, Any]) -> int:
    """Of the prompt, by the bytes and the number of its messages alone."""
    return len(orjson.dumps(body)) + len(_parts(body)) * _PER_MESSAGE


def _parts(body: Mapping[str, Any]) -> list[Any]:
    parts = body.get("messages") or body.get("input") or body.get("prompt")
    return parts if isinstance(parts, list) else [parts]


def _prompt(body: Mapping[str, Any]) -> int:
    parts = _parts(body)
    images, size = _images(parts)
    return text_tokens(body) - size + _longer(body, parts) + images * IMAGE + _PER_CALL


def _longer(body: Mapping[str, Any], turns: list[Any]) -> int:
    """What templates make of tools and their calls, beyond the bytes that they have here."""
    held = [each for each in (body, *turns) if isinstance(each, Mapping)]
    found = [each[name] for each in held for name in _WRITTEN_OUT if each.get(name)]
    size = sum(len(orjson.dumps(value)) for value in found)
    return size * (_AS_LONG - 1) + (_EXPLAINED if found else 0)


def _images(parts: list[Any]) -> tuple[int, int]:
    """Images among turns or inputs, and the bytes of the texts that hold them."""
    found = size = 0
    for part in parts:
        content = part.get("content") if isinstance(part, Mapping) else None
        for each in content if isinstance(content, list) else (part,):
            if isinstance(each, Mapping) and (text := image_of(each)) is not None:
                found, size = found + 1, size + len(text)
    return found, size


def image_of(part: Mapping[str, Any]) -> str | None:
    """The URL of the image that a part or an input is; None where it is none."""
    held = part.get("image_url", part.get("image"))
    text = held.get("url") if isinstance(held, Mapping) else held
    return text if isinstance(text, str) else None
