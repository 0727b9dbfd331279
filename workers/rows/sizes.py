"""How large is a request, and how many bytes may its answer have?"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from schemas.deployments import Task
from workers.rows.packing import count_inputs

IMAGE = 800
"""Tokens of one image; its bytes say nothing."""
PER_MESSAGE = 4
"""Tokens of the chat template around each message."""
# An embedding's number as JSON: -0.012345678901234567, and its comma.
_NUMBER_BYTES = 22
_BASE64_BYTES = 6
# What is usual where the row does not say: text-embedding-ada-002 and 3-small.
_DIMENSIONS = 1536
_TOKEN_BYTES = 6
_MOST_TOKENS = 16 * 1024
# A token beside its log probability, with the bytes that it has, or with its place in the text.
_ENTRY_BYTES: Mapping[Task, int] = {"chat": 100, "completions": 40}
USUAL_TOKENS = 1024
"""Of an answer of which nothing says how long it may be."""
_BYTES_PER_TOKEN = 4
_MEASURED = 500
MOST_KINDS = 256
"""Tasks and models that are told apart in a file, whatever it claims."""
AskedKind = tuple[Task, str | None]
"""What a request asks for: a task, and a model where it names one."""


class Size(NamedTuple):
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
    limit = whole(output)
    allowed = None if limit is None else limit * choices(body)
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


def choices(body: Mapping[str, Any]) -> int:
    """How many answers a prompt is given, those that only the endpoint sees among them."""
    return max(whole(body.get("n")) or 1, whole(body.get("best_of")) or 1)


def whole(value: Any) -> int | None:
    """A number that is whole and not negative; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


class MeanSize(NamedTuple):
    """What requests have on average: bytes of text, tokens that are certain, the output's limit.

    `limited` is the part of them that has such a limit; the others' answers end where they do.
    """

    text: float
    fixed: float
    output: float
    limited: float


class SizeSum:
    """The sizes of requests that ask one model for one task, added up.

    `limited` are those of `count` whose output has a limit.
    """

    __slots__ = ("_fixed", "_output", "_text", "count", "limited")

    def __init__(self) -> None:
        self.count = self.limited = self._text = self._fixed = self._output = 0

    def add(self, size: Size, times: int = 1) -> None:
        """Add a size, as often as there are requests like it."""
        self.count += times
        self._text += times * size.text
        self._fixed += times * size.fixed
        self._output += times * (size.output or 0)
        self.limited += times * (size.output is not None)

    @property
    def mean(self) -> MeanSize:
        """What they have on average, once there is one."""
        return MeanSize(
            text=self._text / self.count,
            fixed=self._fixed / self.count,
            output=self._output / max(self.limited, 1),
            limited=self.limited / self.count,
        )


class SizeSample:
    """The sizes of some of a file's requests: of the first 999, and from then on of ever fewer.

    A file of ten million rows has 5,700 of them measured. Each stands for those up to the next.
    `due` is the line from which on the next is to be measured.
    """

    def __init__(self) -> None:
        self.due = 1
        self._sums: dict[AskedKind, SizeSum] = {}

    def add(self, line: int, task: Task, model: str | None, body: Mapping[str, Any]) -> None:
        """Measure the request of a line."""
        stands_for = max(1, line // _MEASURED)
        self.due = line + stands_for
        kind = (task, model)
        if kind in self._sums or len(self._sums) < MOST_KINDS:
            self._sums.setdefault(kind, SizeSum()).add(measure(task, body), stands_for)

    @property
    def means(self) -> dict[AskedKind, MeanSize]:
        """By task and model."""
        return {kind: each.mean for kind, each in self._sums.items()}


def answer_bytes(task: Task, body: Mapping[str, Any], *, listed: int = _MOST_TOKENS) -> int:
    """About how many; 0 for one answer in words alone, which no request makes large.

    `listed` is of how many tokens an answer tells log probabilities at most.
    """
    if task in ("embeddings", "image-embeddings"):
        inputs = count_inputs(body.get("input")) or 1
        dimensions = body.get("dimensions") or _DIMENSIONS
        each = _BASE64_BYTES if body.get("encoding_format") == "base64" else _NUMBER_BYTES
        return inputs * dimensions * each if isinstance(dimensions, int) else 0
    limit = whole(body.get("max_completion_tokens") or body.get("max_tokens"))
    tokens = _MOST_TOKENS if limit is None else min(limit, _MOST_TOKENS)
    answers = whole(body.get("n")) or 1
    if "prompt" in body:
        answers *= count_inputs(body["prompt"]) or 1
    words = (answers - 1) * tokens * _TOKEN_BYTES
    if "logprobs" not in body and "prompt_logprobs" not in body:
        return words
    usual = min(USUAL_TOKENS if limit is None else tokens, listed)
    return words + _entries(body, answers * usual) * _ENTRY_BYTES[task]


def tells_prompt(body: Mapping[str, Any]) -> bool:
    """Whether the length of an answer goes by that of its prompt as well."""
    return bool(body.get("echo") or _listed(body.get("prompt_logprobs")))


def _entries(body: Mapping[str, Any], tokens: int) -> int:
    """Tokens that are listed with their log probabilities, for so many in all answers."""
    own = _listed(body.get("logprobs"), body.get("top_logprobs"))
    if not tells_prompt(body):
        return own * tokens
    echoed = own * (whole(body.get("n")) or 1) if body.get("echo") else 0
    read = len(orjson.dumps(body.get("messages") or body.get("prompt"))) // _BYTES_PER_TOKEN
    return own * tokens + (echoed + _listed(body.get("prompt_logprobs"))) * read


def _listed(asked: Any, top: Any = None) -> int:
    """Tokens that are listed for each one: itself, and what else was likely in its place."""
    if asked is None or asked is False:
        return 0
    return 1 + max(whole(asked) or 0, whole(top) or 0)


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
