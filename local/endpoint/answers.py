"""What does a simulated model answer? Pure functions of a seed, a model and the content.

Nothing here depends on time, order or the process, so a test can compute the answer it must
find in a result and compare by value. Every text says that it is simulated.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from . import schemas

LABEL = "[simulated]"
"""The first token of every completion."""

DEFAULT_DIMENSIONS = 384
DEFAULT_MEAN_TOKENS = 48

SAMPLING = frozenset(
    {
        "do_sample",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "seed",
        "temperature",
        "top_k",
        "top_p",
    }
)
"""The parameters that choose another answer; max_tokens and stop only cut it short."""

_PER_MESSAGE_TOKENS = 4
"""What a chat template adds around each turn."""

_SYLLABLES = (
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "je",
    "ki",
    "lo",
    "mu",
    "na",
    "pe",
    "ri",
    "so",
    "tu",
    "va",
)
_WORDS = tuple(first + second for first in _SYLLABLES for second in _SYLLABLES)


@dataclass(frozen=True, slots=True)
class Completion:
    """One choice. `tokens` are the words of `text`, each with the space before it."""

    text: str
    tokens: int
    finish_reason: str


def count_tokens(text: str) -> int:
    """Estimate the tokens of a text: one for every three bytes of UTF-8, begun ones included."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return (size + 2) // 3


def count_message_tokens(contents: Sequence[str]) -> int:
    """Estimate the prompt tokens of a chat from the contents of its messages."""
    return sum(count_tokens(content) for content in contents) + _PER_MESSAGE_TOKENS * len(contents)


def completion(
    seed: int,
    model: str,
    prompt: object,
    *,
    sampling: Mapping[str, object] | None = None,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    index: int = 0,
    mean_tokens: int = DEFAULT_MEAN_TOKENS,
    as_json: bool = False,
    schema: schemas.Schema | None = None,
) -> Completion:
    """The completion of `prompt` (a text, or the list of messages as sent).

    `sampling` is read for the names in SAMPLING only; `index` tells the choices of one request
    apart. The natural length is even over 0.5 to 1.5 of `mean_tokens`, or what `schema` takes;
    `max_tokens` cuts it (finish_reason "length"), a stop sequence ends it before its first
    occurrence.
    """
    chosen = sorted((k, v) for k, v in (sampling or {}).items() if k in SAMPLING and v is not None)
    digest = _digest("completion", seed, model, prompt, chosen, index)
    if schema is not None:
        return _cut(schemas.valid(schema, digest, _words).split(" "), max_tokens, stop)
    length = max(2, mean_tokens // 2 + int.from_bytes(digest[:4], "big") % max(1, mean_tokens))
    words = [_WORDS[byte] for byte in hashlib.shake_128(digest).digest(length - 1)]
    tokens = ['{"simulated":', f'"{LABEL}', *words, '."}'] if as_json else [LABEL, *words]
    return _cut(tokens, max_tokens, stop)


def _words(draw: random.Random) -> str:
    return f"{LABEL} {draw.choice(_WORDS)} {draw.choice(_WORDS)}"


def _cut(tokens: list[str], max_tokens: int | None, stop: Sequence[str]) -> Completion:
    reason = "stop"
    if max_tokens is not None and len(tokens) > max_tokens:
        tokens, reason = tokens[: max(1, max_tokens)], "length"
    text = " ".join(tokens)
    ends = [at for at in (text.find(mark) for mark in stop if mark) if at >= 0]
    if not ends:
        return Completion(text, len(tokens), reason)
    text = text[: min(ends)]
    return Completion(text, len(text.split()), "stop")


def embedding(
    seed: int,
    model: str,
    content: str | Sequence[int],
    dimensions: int = DEFAULT_DIMENSIONS,
) -> list[float]:
    """The vector of a text or of token ids: unit length, six decimals, so JSON carries it whole."""
    raw = hashlib.shake_128(_digest("embedding", seed, model, content)).digest(2 * dimensions)
    values = np.frombuffer(raw, dtype="<i2").astype(np.float64)
    norm = float(np.linalg.norm(values)) or 1.0
    rounded: list[float] = np.round(values / norm, 6).tolist()
    return rounded


def image_content(image: str, text: str | None) -> str:
    """The content whose embedding is that of an image and the text beside it."""
    return f"{image}\n{text or ''}"


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(
        orjson.dumps(parts, option=orjson.OPT_SORT_KEYS), digest_size=16
    ).digest()
