"""How many tokens will a call be counted for, before anybody has counted them?

No tokenizer is downloaded: tokens per byte is learned from `usage`, for each deployment and job,
because a job's rows resemble each other. Azure judges tokens at admission, prompt estimate +
max_tokens, and gives nothing back (Azure OpenAI "Understanding rate limits"), so that is what is
reserved; only the prompt's part, and an output without max_tokens, are corrected afterwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.deployments import Task
from schemas.outcomes import Usage

FIRST_RATIO = 0.36
"""Tokens per UTF-8 byte before anything has been learned."""
SURE_RATIO = 1 / 16
"""Tokens per UTF-8 byte that text surely has. SentencePiece makes no piece longer than 16
characters unless told to, so ASCII under Phi-3's tokenizer cannot have fewer; usual prose and code
have twice as many under any. To refuse a row that fits is worse than a call in vain."""
FIRST_OUTPUT = 256.0
"""Tokens of an answer without max_tokens before anything has been learned."""
IMAGE = 800
"""Tokens of one image; its bytes say nothing."""
PER_MESSAGE = 4
"""Tokens of the chat template around each message."""


@dataclass(frozen=True, slots=True)
class Size:
    """What can be seen of a call: bytes of text, tokens that are certain, the output's limit.

    `longest` is the bytes of text that the model has to read at a time: a call may hold several
    prompts or inputs.
    """

    text: int
    fixed: int = 0
    output: int | None = None
    longest: int = 0


def measure(task: Task, body: Mapping[str, Any]) -> Size:
    """The size of an OpenAI-shaped body."""
    if task in {"image-embeddings", "embeddings"}:
        text, images = _content(body.get("input"))
        return Size(text, images * IMAGE, 0, _longest(body.get("input")))
    output = body.get("max_completion_tokens") or body.get("max_tokens")
    choices = max(_whole(body.get("n")) or 1, _whole(body.get("best_of")) or 1)
    limit = _whole(output)
    allowed = None if limit is None else limit * choices
    if task == "completions":
        text, _ = _content(body.get("prompt"))
        return Size(text, 0, allowed, _longest(body.get("prompt")))
    text = fixed = 0
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        fixed += PER_MESSAGE
        if isinstance(message, Mapping):
            more, images = _content(message.get("content"))
            text += more
            fixed += images * IMAGE
    return Size(text, fixed, allowed, text)


class Estimator:
    """What one deployment's rows of one job cost, learned as they are answered."""

    __slots__ = ("_output", "_ratio", "_seen", "_sure")

    def __init__(self) -> None:
        self._ratio = FIRST_RATIO
        self._sure = SURE_RATIO
        self._output = FIRST_OUTPUT
        self._seen = 0

    def prompt(self, size: Size) -> float:
        """Tokens of the prompt."""
        return size.text * self._ratio + size.fixed

    def total(self, size: Size) -> float:
        """Tokens to reserve for the call."""
        return self.prompt(size) + (self._output if size.output is None else size.output)

    def least(self, size: Size) -> float:
        """Tokens that the call surely has.

        Means of other rows do not count here, nor does what templates and images may add.
        """
        return size.text * self._sure + (size.output or 0)

    def least_read(self, size: Size) -> float:
        """Tokens that the model surely has to read at a time.

        Without those of the answer: some servers cut `max_tokens` to what is left of the context.
        """
        return size.longest * self._sure

    def learn(self, size: Size, usage: Usage, reserved: float) -> float:
        """Learn from what was counted; gives by how many tokens the reservation was too small."""
        self._seen += 1
        pace = max(0.05, 1.0 / self._seen)
        output = usage.completion_tokens if size.output is None else size.output
        surplus = usage.prompt_tokens + output - reserved
        if size.text and usage.prompt_tokens > size.fixed:
            seen = (usage.prompt_tokens - size.fixed) / size.text
            self._ratio += pace * (min(seen, 2.0) - self._ratio)
        if size.text and usage.prompt_tokens:
            self._sure = min(self._sure, usage.prompt_tokens / size.text)
        if size.output is None:
            self._output += pace * (usage.completion_tokens - self._output)
        return surplus


def _content(content: Any) -> tuple[int, int]:
    """UTF-8 bytes of text, and images, in a content, prompt or input of any allowed shape."""
    if isinstance(content, str):
        return (len(content) if content.isascii() else len(content.encode(errors="replace"))), 0
    if isinstance(content, Mapping):
        text, _ = _content(content.get("text"))
        return text, int("image" in content or "image_url" in content)
    if isinstance(content, Sequence) and not isinstance(content, bytes):
        parts = [_content(part) for part in content]
        return sum(text for text, _ in parts), sum(images for _, images in parts)
    return 0, 0


def _longest(content: Any) -> int:
    """UTF-8 bytes of the longest of several prompts or inputs."""
    several = isinstance(content, Sequence) and not isinstance(content, str | bytes)
    return (
        max((_content(each)[0] for each in content), default=0) if several else _content(content)[0]
    )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
