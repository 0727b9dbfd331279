"""The line that each row gets in the results, and what it adds to the sums."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec
import orjson

from schemas.jobs import Reason
from schemas.money import PinnedPrice
from schemas.outcomes import Outcome, Usage
from schemas.results import (
    INTERVAL_SECONDS,
    CallRecord,
    CodeCount,
    Counts,
    DeploymentUse,
    Interval,
    Tokens,
    Use,
    unknown_of,
)
from schemas.sketches import bucket_of, coarse, merged, sketch_of
from workers.rows.reading import Refusal, Request
from workers.rows.reasons import ADVICE

Number = TypeVar("Number", int, float)
AnyUse = TypeVar("AnyUse", bound=Use)
# From here on a copy would cost more than thousands of pieces do.
LARGE_BYTES = 8 * 1024 * 1024
# What no JSON holds.
_GAP = b"\0"
MOST_CODES, LONGEST_CODE, MOST_ATTEMPTS = 32, 64, 32
OTHER = "other"
TOLD_LINES = 5
NO_PRICES: Final[Mapping[str, PinnedPrice]] = MappingProxyType({})
ResultKind = Literal["succeeded", "failed", "invalid", "cancelled", "expired"]

_UNWRITABLE = (
    "the answer is no JSON that could be written: change the prompt, or mend the deployment"
)


class RowResult(NamedTuple):
    """A row's line, without newline. `row` counts the shard's rows from 0.

    `use` holds the attempts that count in the sums: a packed call counts with one of its rows.
    `error` is the code and the line in the input, where it is no answer. The text of a large answer
    has gaps, in which `vectors` stand. `at` is when it was asked to its end, in seconds since the
    epoch; 0 where it was not, or where a worker of 0.1.0 did it.
    """

    row: int
    kind: ResultKind
    usage: Usage
    text: bytes
    use: tuple[CallRecord, ...] = ()
    error: tuple[str, int | None] | None = None
    vectors: tuple[memoryview, ...] = ()
    at: float = 0.0


def answered(
    job: str,
    row: int,
    request: Request,
    outcome: Outcome,
    *,
    attempts: Sequence[CallRecord],
    use: Sequence[CallRecord],
) -> RowResult:
    """The line of a row that was to be asked: output if the answer counts, an error row if not.

    One for which no call was made, as a cap left no room for it, could not be asked.
    """
    line = {
        "id": f"{job}-{request.line}",
        "custom_id": request.custom_id,
        "line": request.line,
        **_told(request, outcome),
        "attempts": list(attempts[-MOST_ATTEMPTS:]),
    }
    try:
        text, vectors = _dumped(line)
    except orjson.JSONEncodeError:
        # Nested deeper than can be written, or half a surrogate pair: the row's fault or the
        # server's, but nobody else's.
        unwritable = replace(
            outcome, kind="transient", body=None, code="unwritable_answer", message=_UNWRITABLE
        )
        return answered(job, row, request, unwritable, attempts=attempts, use=use)
    good = outcome.kind == "ok"
    kind: ResultKind = "succeeded" if good else "failed" if attempts else "invalid"
    error = None if good else (outcome.code or outcome.kind, request.line)
    made = RowResult(row, kind, outcome.usage or Usage(), text, tuple(use), error, vectors)
    if not vectors or sum(map(len, pieces(made))) >= LARGE_BYTES:
        return made
    return made._replace(text=b"".join(pieces(made)), vectors=())


def _dumped(line: Mapping[str, Any]) -> tuple[bytes, tuple[memoryview, ...]]:
    """A line with a gap for each vector that is as it came, and those vectors."""
    vectors: list[memoryview] = []

    def leave_out(value: Any) -> orjson.Fragment:
        if not isinstance(value, msgspec.Raw):
            raise TypeError
        vectors.append(memoryview(value))
        return orjson.Fragment(_GAP)

    return orjson.dumps(line, default=leave_out), tuple(vectors)


def pieces(result: RowResult) -> Iterator[bytes | memoryview]:
    """A row's line in pieces, so that no copy of a large answer is made."""
    if not result.vectors:
        yield result.text
        return
    first, *others = result.text.split(_GAP)
    yield first
    for vector, other in zip(result.vectors, others, strict=True):
        yield vector
        yield other


def _told(request: Request, outcome: Outcome) -> dict[str, Any]:
    """What a line says of an outcome; where it is no answer, also what is wrong."""
    status, request_id = outcome.status, outcome.request_id
    response = {"status_code": status, "request_id": request_id, "body": outcome.body}
    if outcome.kind == "ok":
        return {"response": response, "error": None}
    message = outcome.message or ADVICE[outcome.kind]
    return {
        "response": None if status is None else response,
        "error": {
            "code": outcome.code or outcome.kind,
            "message": f"line {request.line}: {message}",
        },
        "request": request.as_batch_row(),
    }


def refused(job: str, row: int, refusal: Refusal) -> RowResult:
    """The line of a row that cannot be asked."""
    line = {
        "id": f"{job}-{refusal.line}",
        "custom_id": refusal.custom_id,
        "line": refusal.line,
        "response": None,
        "error": {"code": refusal.code, "message": refusal.message},
        "request": refusal.request,
    }
    if refusal.raw is not None:
        line["raw"] = refusal.raw
    if refusal.offset is not None:
        line |= {"offset": refusal.offset, "length": refusal.length}
    error = (refusal.code, refusal.line)
    return RowResult(row, "invalid", Usage(), orjson.dumps(line), error=error)


def not_done(
    job: str,
    row: int,
    line: int | None,
    request: Request | None,
    *,
    first_line: int,
    kind: ResultKind,
    reason: Reason,
    attempts: Sequence[CallRecord] = (),
) -> RowResult:
    """The line of a row that was not answered, for a reason that is not its own.

    Where blank lines hide the row's own line number, it is named by its shard's first line.
    """
    text: dict[str, Any] = {
        "id": f"{job}-{f'{first_line}+{row}' if line is None else line}",
        "custom_id": request.custom_id if request else None,
        "line": line,
        "response": None,
        "error": {"code": reason.code, "message": reason.message},
        "request": request.as_batch_row() if request else None,
    }
    text["attempts"] = list(attempts[-MOST_ATTEMPTS:])
    return RowResult(
        row, kind, Usage(), orjson.dumps(text), tuple(attempts), error=(reason.code, line)
    )


@dataclass
class Sums:
    """What a shard's lines come to, as its receipt tells it."""

    counts: Counts
    tokens: Tokens
    use: dict[str, DeploymentUse]
    codes: dict[str, CodeCount]
    intervals: dict[int, Interval]


def sums_of(results: Iterable[RowResult], prices: Mapping[str, PinnedPrice] = NO_PRICES) -> Sums:
    """Counts, tokens, use, error codes and intervals of some results, in the input's order."""
    codes: dict[str, CodeCount] = {}
    kinds: dict[str, int] = {}
    calls: dict[str, list[CallRecord]] = {}
    answers: dict[str, int] = {}
    tokens = [0, 0]
    intervals: dict[int, IntervalSums] = {}
    for result in results:
        kinds[result.kind] = kinds.get(result.kind, 0) + 1
        tokens[0] += result.usage.prompt_tokens
        tokens[1] += result.usage.completion_tokens
        for call in result.use:
            calls.setdefault(call.deployment, []).append(call)
        if result.usage.completion_tokens and (by := _answering(result.use)) is not None:
            answers[by] = answers.get(by, 0) + result.usage.completion_tokens
        if result.at:
            _note(result, intervals, prices)
        if result.error is not None:
            code, line = result.error
            codes = add_codes(codes, {code[:LONGEST_CODE]: CodeCount(rows=1, line=line)})
    use = {name: _use_of(made, answers.get(name, 0)) for name, made in calls.items()}
    return Sums(
        Counts(**kinds),
        Tokens(prompt=tokens[0], completion=tokens[1]),
        use,
        codes,
        {at: Interval(**vars(seen)) for at, seen in sorted(intervals.items())},
    )


@dataclass
class IntervalSums:
    """An `Interval` in the making."""

    succeeded: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    refusals: int = 0
    cost: int = 0
    latency: Counter[int] = field(default_factory=Counter)


def _note(
    result: RowResult, intervals: dict[int, IntervalSums], prices: Mapping[str, PinnedPrice]
) -> None:
    """Count a row in the interval in which it came to its end, and each call in its own.

    When a call ended is reckoned back from there: one came after the other.
    """
    ended = result.at
    own = intervals.setdefault(int(ended // INTERVAL_SECONDS), IntervalSums())
    own.succeeded += result.kind == "succeeded"
    own.failed += result.kind == "failed"
    own.prompt_tokens += result.usage.prompt_tokens
    own.completion_tokens += result.usage.completion_tokens
    own.cost += _surcharge(result, prices)
    for call in reversed(result.use):
        its = intervals.setdefault(int(ended // INTERVAL_SECONDS), IntervalSums())
        its.calls += 1
        its.refusals += call.kind == "throttled"
        its.cost += cost_of_calls((call,), prices)
        if call.kind == "ok":
            its.latency[coarse(bucket_of(call.seconds))] += 1
        ended -= call.seconds + call.waited


def cost_of(result: RowResult, prices: Mapping[str, PinnedPrice]) -> int:
    """What a row has cost, in millionths of a millionth; calls without a price are not counted."""
    return cost_of_calls(result.use, prices) + _surcharge(result, prices)


def cost_of_calls(calls: Iterable[CallRecord], prices: Mapping[str, PinnedPrice]) -> int:
    """The same of calls, as if all tokens were of prompts: calls in vain have no others."""
    priced = ((call.tokens, prices.get(call.deployment)) for call in calls)
    return sum(tokens * price.input for tokens, price in priced if price is not None)


def _surcharge(result: RowResult, prices: Mapping[str, PinnedPrice]) -> int:
    """What an answer's tokens cost more than a prompt's."""
    price = prices.get(_answering(result.use) or "")
    return 0 if price is None else result.usage.completion_tokens * (price.output - price.input)


def _answering(calls: Sequence[CallRecord]) -> str | None:
    """The deployment whose call gave a row its usage: the last that was not made to try it."""
    return next((call.deployment for call in reversed(calls) if call.kind != "probe"), None)


def add_codes(one: Mapping[str, CodeCount], other: Mapping[str, CodeCount]) -> dict[str, CodeCount]:
    """Two counts of rows by error code as one; the rarest of too many codes become `other`."""
    added = {code: _both(one.get(code), other.get(code)) for code in (*one, *other)}
    if len(added) <= MOST_CODES:
        return added
    kept = sorted(added, key=lambda code: (code == OTHER, -added[code].rows))
    rest = kept[MOST_CODES - 1 :]
    folded = functools.reduce(_both, (added[code] for code in rest))
    return {code: added[code] for code in added if code not in rest} | {OTHER: folded}


def _both(one: CodeCount | None, other: CodeCount | None) -> CodeCount:
    if one is None or other is None:
        return one or other or CodeCount()
    told = (one.line, *one.more, other.line, *other.more)
    lines = sorted({line for line in told if line is not None})[:TOLD_LINES]
    return CodeCount(
        rows=one.rows + other.rows,
        line=lines[0] if lines else None,
        more=tuple(lines[1:]),
        **unknown_of(one, other),
    )


def is_unmetered(call: CallRecord) -> bool:
    """Whether a call may have been billed, and told no tokens."""
    return call.billed and not call.tokens


def _use_of(calls: Sequence[CallRecord], completion: int) -> DeploymentUse:
    """What the calls of one deployment come to, which answered with so many tokens."""
    waited: dict[str, float] = {}
    for call in calls:
        if call.waited_for:
            waited[call.waited_for] = waited.get(call.waited_for, 0.0) + call.waited
    tokens = sum(call.tokens for call in calls)
    return DeploymentUse(
        calls=len(calls),
        outcomes=dict(Counter(call.kind for call in calls)),
        tokens=tokens,
        call_seconds=round(sum(call.seconds for call in calls), 6),
        row_seconds_waited={reason: round(seconds, 6) for reason, seconds in waited.items()},
        prompt_tokens=max(0, tokens - completion),
        completion_tokens=min(tokens, completion),
        unmetered_calls=sum(map(is_unmetered, calls)),
        latency=sketch_of([call.seconds for call in calls if call.kind == "ok"]),
        waits=sketch_of([call.waited for call in calls]),
    )


def add_totals(one: Use, other: Use) -> Use:
    """Two sums as one, without how the times are distributed."""
    return Use(**_totals(one, other))


def add_use(one: DeploymentUse, other: DeploymentUse) -> DeploymentUse:
    """Two sums as one."""
    return DeploymentUse(
        **_totals(one, other),
        latency=merged(one.latency, other.latency),
        waits=merged(one.waits, other.waits),
    )


def _totals(one: Use, other: Use) -> dict[str, Any]:
    return {
        "calls": one.calls + other.calls,
        "outcomes": _added(one.outcomes, other.outcomes),
        "tokens": one.tokens + other.tokens,
        "call_seconds": round(one.call_seconds + other.call_seconds, 6),
        "row_seconds_waited": {
            reason: round(seconds, 6)
            for reason, seconds in _added(one.row_seconds_waited, other.row_seconds_waited).items()
        },
        "prompt_tokens": one.prompt_tokens + other.prompt_tokens,
        "completion_tokens": one.completion_tokens + other.completion_tokens,
        "unmetered_calls": one.unmetered_calls + other.unmetered_calls,
        **unknown_of(one, other),
    }


def added_use(
    one: Mapping[str, AnyUse],
    other: Mapping[str, DeploymentUse],
    add: Callable[[AnyUse, DeploymentUse], AnyUse],
    none: AnyUse,
) -> dict[str, AnyUse]:
    """Two sums by deployment as one."""
    return {**one, **{name: add(one.get(name, none), each) for name, each in other.items()}}


def _added(one: Mapping[str, Number], other: Mapping[str, Number]) -> dict[str, Number]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}
