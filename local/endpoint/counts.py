"""What has been served, and to whom twice? Counters of a run; digests of rows, never their text."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import TypedDict

import orjson

from .contracts import Ask


class RowCounts(TypedDict):
    """Rows by what was billed for them: the model worked, whether or not its answer arrived."""

    distinct: int
    billed: int
    answered: int
    billed_more_than_once: int
    most_billed: int


class Stats(TypedDict):
    """The report of a run, as GET /simulator/stats sends it. Tokens are estimates."""

    simulator: bool
    received: int
    admitted: int
    answered: int
    abandoned: int
    in_flight: int
    peak_in_flight: int
    rejected: dict[str, int]
    faults: dict[str, int]
    calls: dict[str, int]
    callers: dict[str, list[int]]
    tokens_admitted: int
    tokens_billed: int
    seconds: list[list[int]]
    first: float | None
    last: float | None
    rows: RowCounts


def row_key(content: str | list[int]) -> str:
    """The key under which a row without an id is counted: a digest of what it asks.

    `content` is the last user turn of a chat, the prompt of a completion, or one embeddings
    input (for an image: `answers.image_content`).
    """
    if isinstance(content, str):
        data = content.encode("utf-8", "surrogatepass")
    else:
        data = orjson.dumps(content)
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def row_keys(ask: Ask, headers: Mapping[str, str]) -> list[str]:
    """A key for each row of a request: its `x-row-id` header or `user` field, else its digest.

    Several inputs in one call are several rows, each counted by its digest.
    """
    if len(ask.inputs) == 1:
        name = headers.get("x-row-id") or ask.user
        if name:
            return [name]
    return [row_key(content) for content in ask.inputs]


class Counts:
    """Counters that only grow until they are reset."""

    def __init__(self) -> None:
        self.received = 0
        self._admitted = 0
        self._answered = 0
        self._abandoned = 0
        self._in_flight = 0
        self._peak = 0
        self._tokens_admitted = 0
        self._tokens_billed = 0
        self._rejected: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._callers: dict[str, list[int]] = {}
        self._seconds: dict[int, list[int]] = {}
        self._first: float | None = None
        self._last: float | None = None
        self._billed: dict[str, int] = {}
        self._unanswered: dict[str, int] = {}  # kept small: a row leaves it with its answer

    def arrive(self) -> int:
        """Count a request in; returns its ordinal, from 1."""
        self.received += 1
        return self.received

    def reject(self, elapsed: float, cause: str) -> None:
        """A request was turned away and cost nothing."""
        self._rejected[cause] += 1
        self._second(elapsed)[2] += 1

    def fault(self, name: str) -> None:
        """A rule made something go wrong."""
        self._faults[name] += 1

    def admit(self, elapsed: float, ask: Ask, caller: str) -> None:
        """A request passed its quota; `caller` is its User-Agent."""
        self._admitted += 1
        self._first, self._last = elapsed if self._first is None else self._first, elapsed
        self._calls[ask.task] += 1
        self._tokens_admitted += ask.tokens
        for counted in (self._second(elapsed), self._callers.setdefault(caller, [0, 0])):
            counted[0] += 1
            counted[1] += ask.tokens
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)

    def bill(self, rows: list[str], tokens: int) -> None:
        """The model worked for these rows, whether or not its answer will arrive."""
        self._tokens_billed += tokens
        for row in rows:
            self._billed[row] = self._billed.get(row, 0) + 1
            self._unanswered[row] = self._unanswered.get(row, 0) + 1

    def answer(self, rows: list[str]) -> None:
        """A whole 200 was handed to the connection."""
        self._answered += 1
        for row in rows:
            left = self._unanswered.pop(row) - 1
            if left:
                self._unanswered[row] = left

    def abandon(self) -> None:
        """The client went away before its answer."""
        self._abandoned += 1

    def leave(self) -> None:
        """An admitted request has ended."""
        self._in_flight -= 1

    def stats(self) -> Stats:
        """The report; `seconds` rows are [second, admitted, tokens admitted, rejected], each of
        `callers` is [admitted, tokens admitted], and `first` and `last` are when calls were
        admitted, in seconds; None where none was."""
        return Stats(
            simulator=True,
            received=self.received,
            admitted=self._admitted,
            answered=self._answered,
            abandoned=self._abandoned,
            in_flight=self._in_flight,
            peak_in_flight=self._peak,
            rejected=dict(self._rejected),
            faults=dict(self._faults),
            calls=dict(self._calls),
            callers={caller: list(counted) for caller, counted in self._callers.items()},
            tokens_admitted=self._tokens_admitted,
            tokens_billed=self._tokens_billed,
            seconds=[[second, *counted] for second, counted in self._seconds.items()],
            first=self._first,
            last=self._last,
            rows=RowCounts(
                distinct=len(self._billed),
                billed=sum(self._billed.values()),
                answered=sum(self._billed.values()) - sum(self._unanswered.values()),
                billed_more_than_once=sum(times > 1 for times in self._billed.values()),
                most_billed=max(self._billed.values(), default=0),
            ),
        )

    def billed(self) -> dict[str, int]:
        """How often each row was billed."""
        return dict(self._billed)

    def unanswered(self) -> dict[str, int]:
        """How often each row was billed without a whole 200, for rows of which that is true."""
        return dict(self._unanswered)

    def _second(self, elapsed: float) -> list[int]:
        return self._seconds.setdefault(int(elapsed), [0, 0, 0])
