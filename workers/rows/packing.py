"""Which embedding requests share one call, and whose vector is which?

Servers take a list of inputs in one embeddings call and answer with one vector for each, so that
thousands of short rows need a fraction of the calls. Only requests of one model with equal
parameters share a call. A call that fails is halved until the row that is wrong stands alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Self

import msgspec
import orjson

from schemas.deployments import Task
from schemas.outcomes import Outcome, Usage

PACKED: tuple[Task, ...] = ("embeddings", "image-embeddings")
_OF_A_ROW = frozenset({"bad_request", "content_filter", "transient", "timeout"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one packed call may hold: inputs, and UTF-8 bytes of all inputs together.

    OpenAI and Azure OpenAI take 2,048 inputs and 300,000 tokens; smaller servers take less.
    """

    inputs: int = 96
    size: int = 128 * 1024


@dataclass(frozen=True, slots=True)
class Packable:
    """One row's embeddings request. `row` is the caller's own mark; `body` is OpenAI-shaped."""

    row: int
    model: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Share:
    """One row's part of a packed answer."""

    row: int
    body: dict[str, Any]
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Pack:
    """Requests that go out as one call, in the order in which their inputs stand in it."""

    requests: tuple[Packable, ...]

    @property
    def model(self) -> str:
        """The model that all of them ask for."""
        return self.requests[0].model

    @property
    def body(self) -> dict[str, Any]:
        """The call's body; a request alone goes out exactly as it came."""
        first = dict(self.requests[0].body)
        if len(self.requests) == 1:
            return first
        flat = [each for request in self.requests for each in _inputs(request.body.get("input"))]
        return first | {"input": flat}

    def halve(self) -> tuple[Self, Self]:
        """Two packs of half the rows each, for a call that was refused.

        Raises ValueError for a pack of one row: that row is the one that is wrong.
        """
        if len(self.requests) < 2:
            raise ValueError("a pack of one row cannot be halved")
        middle = len(self.requests) // 2
        return type(self)(self.requests[:middle]), type(self)(self.requests[middle:])


def blames_a_row(pack: Pack, outcome: Outcome) -> bool:
    """Whether the call failed for something that only one of its rows may be guilty of.

    `outcome` is final: a failure that may pass has come again while others were answered, and one
    row that a server chokes on must not take its whole call with it.
    """
    return len(pack.requests) > 1 and outcome.kind in _OF_A_ROW


def pack(requests: Iterable[Packable], limits: Limits) -> list[Pack]:
    """Group requests into as few calls as the limits allow, keeping their order in each group.

    A row's inputs are never split over calls; a row beyond the limits stands alone, and so does
    one whose input is of no known form (the endpoint's answer will say what is wrong with it).
    """
    packs: list[Pack] = []
    open_groups: dict[tuple[str, str, bytes], _OpenPack] = {}
    for request in requests:
        inputs = _inputs(request.body.get("input"))
        form = _form(inputs)
        if form is None:
            packs.append(Pack((request,)))
            continue
        group = open_groups.setdefault(_likeness(request, form), _OpenPack())
        size = sum(map(_size, inputs))
        if group.requests and not group.takes(len(inputs), size, limits):
            packs.append(group.close())
        group.add(request, len(inputs), size)
    packs += [group.close() for group in open_groups.values() if group.requests]
    return packs


def count_inputs(value: Any) -> int | None:
    """How many vectors an `input` asks for; None if it has no form that the API knows."""
    inputs = _inputs(value)
    return None if _form(inputs) is None else len(inputs)


def unpack(packed: Pack, body: Mapping[str, Any], usage: Usage | None) -> list[Share]:
    """Give each row its own vectors and its share of the usage, which sums to the whole.

    `body` is an OpenAI list of embeddings with exactly one entry for each input, in any order
    (`index` tells). Raises ValueError otherwise: no row may get another row's vector.
    """
    if len(packed.requests) == 1:
        return [Share(packed.requests[0].row, dict(body), usage)]
    groups = [_inputs(request.body.get("input")) for request in packed.requests]
    counts = [len(group) for group in groups]
    data = by_index(body.get("data"), sum(counts))
    if data is None:
        raise ValueError("the answer does not hold one embedding for each input")
    sizes = [sum(map(_size, group)) for group in groups]
    prompt = _shared(usage.prompt_tokens if usage else 0, sizes)
    completion = _shared(usage.completion_tokens if usage else 0, sizes)
    shares = []
    for at, (start, end) in enumerate(pairwise(accumulate(counts, initial=0))):
        own = {**body, "data": [{**each, "index": n} for n, each in enumerate(data[start:end])]}
        part = Usage(prompt[at], completion[at]) if usage else None
        own.pop("usage", None)
        if part:
            own["usage"] = {"prompt_tokens": part.prompt_tokens, "total_tokens": part.total_tokens}
        shares.append(Share(packed.requests[at].row, own, part))
    return shares


def by_index(data: Any, count: int) -> list[dict[str, Any]] | None:
    """The entries of a list of embeddings in the order of their inputs.

    The result is None unless there is exactly one vector for each of `count` inputs. Entries
    without `index` stand in the order of the inputs; a list where only some have one is refused.
    """
    if not isinstance(data, list) or len(data) != count:
        return None
    ordered: list[dict[str, Any] | None] = [None] * count
    indexed = sum(isinstance(each, dict) and "index" in each for each in data)
    if indexed not in (0, count):
        return None
    for at, each in enumerate(data):
        if not isinstance(each, dict) or not isinstance(each.get("embedding"), _VECTORS):
            return None
        index = each.get("index", at)
        if type(index) is not int or not 0 <= index < count or ordered[index] is not None:
            return None
        ordered[index] = each
    return [each for each in ordered if each is not None]


# Of an endpoint's answer they are the bytes that came.
_VECTORS = (msgspec.Raw, list, str, dict)


class _OpenPack:
    """A pack that is being filled."""

    def __init__(self) -> None:
        self.requests: list[Packable] = []
        self._inputs = self._size = 0

    def takes(self, inputs: int, size: int, limits: Limits) -> bool:
        return self._inputs + inputs <= limits.inputs and self._size + size <= limits.size

    def add(self, request: Packable, inputs: int, size: int) -> None:
        self.requests.append(request)
        self._inputs += inputs
        self._size += size

    def close(self) -> Pack:
        filled = Pack(tuple(self.requests))
        self.requests, self._inputs, self._size = [], 0, 0
        return filled


def _inputs(value: Any) -> list[Any]:
    """The inputs of one request; a bare text, and a bare list of token ids, is one input."""
    if not isinstance(value, list):
        return [value]
    if value and all(type(each) is int for each in value):
        return [value]
    return value


def _form(inputs: Sequence[Any]) -> str | None:
    """What the inputs are, all alike: servers refuse lists that mix texts, token ids, images."""
    if inputs and all(isinstance(each, str) for each in inputs):
        return "text"
    if inputs and all(isinstance(each, dict) for each in inputs):
        return "image"
    if inputs and all(
        isinstance(each, list) and each and all(type(token) is int for token in each)
        for each in inputs
    ):
        return "tokens"
    return None


def _likeness(request: Packable, form: str) -> tuple[str, str, bytes]:
    rest = {key: value for key, value in request.body.items() if key not in ("input", "model")}
    return request.model, form, orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return 4 * len(value) if isinstance(value, list) else 4


def _shared(total: int, sizes: Sequence[int]) -> list[int]:
    """Whole parts of `total` in proportion to `sizes` (largest remainder), summing exactly."""
    weight = sum(sizes)
    if weight == 0:
        sizes, weight = [1] * len(sizes), len(sizes)
    parts = [total * size // weight for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda at: -(total * sizes[at] % weight))
    for at in by_remainder[: total - sum(parts)]:
        parts[at] += 1
    return parts
