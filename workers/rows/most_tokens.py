"""How many tokens may a call be billed for at the very most?

A token covers at least a byte of text, so that the bytes of the request bound its prompt, whatever
the tokenizer; what a chat template adds has a constant for each message. Tokenizers that write a
text out at greater length before they cut it (NFKC) are not bounded by this.
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
_LIMITS: Final = ("max_tokens", "max_completion_tokens")


def most_tokens(task: Task, body: Mapping[str, Any]) -> tuple[int, int] | None:
    """Of the prompt and of the answer; None where nothing bounds the answer."""
    answer = _answer(task, body)
    if answer is None:
        return None
    parts = body.get("messages") or body.get("input") or body.get("prompt")
    parts = parts if isinstance(parts, list) else [parts]
    images, size = _images(parts)
    text = len(orjson.dumps(body)) - size
    return text + images * IMAGE + len(parts) * _PER_MESSAGE + _PER_CALL, answer


def _answer(task: Task, body: Mapping[str, Any]) -> int | None:
    if task in ("embeddings", "image-embeddings"):
        return 0
    limits = [limit for name in _LIMITS if (limit := whole(body.get(name))) is not None]
    if not limits:
        return None
    prompts = body.get("prompt")
    return max(limits) * choices(body) * (len(prompts) if isinstance(prompts, list) else 1)


def _images(parts: list[Any]) -> tuple[int, int]:
    """Images among turns or inputs, and the bytes of the texts that hold them."""
    found = size = 0
    for part in parts:
        content = part.get("content") if isinstance(part, Mapping) else None
        for each in content if isinstance(content, list) else (part,):
            if isinstance(each, Mapping) and (text := _image(each)) is not None:
                found, size = found + 1, size + len(text)
    return found, size


def _image(part: Mapping[str, Any]) -> str | None:
    held = part.get("image_url", part.get("image"))
    text = held.get("url") if isinstance(held, Mapping) else held
    return text if isinstance(text, str) else None
