"""When does a service want to be asked again, and what was the limit? Pure.

Hints are read in this order: millisecond headers, `Retry-After` (seconds or a date), reset and
remaining-time headers, the message's text. Services send any of them, or none.
"""

import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Literal

from schemas.outcomes import Limit

LONGEST = 86_400.0
"""Seconds; no quota of any service resets later than a day from now: what says so says nothing."""

_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms")
_RESETS_OF: dict[Limit | None, tuple[str, ...]] = {
    "requests": ("x-ratelimit-reset-requests",),
    "tokens": ("x-ratelimit-reset-tokens", "x-rate-limit-reset-tokens"),
}
_RESETS = (
    "x-ratelimit-timeremaining",
    "x-ratelimit-reset-tokens",
    "x-rate-limit-reset-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset",
)
_EPOCH = 1_000_000_000.0
"""Above this a reset header is a point in time (seconds since 1970), not a wait."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SPAN = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_TEXT = re.compile(
    r"(?:retry(?:ing)?|again|wait)\s+(?:after|in|for)?\s*(?:about\s+)?"
    r"(\d+(?:\.\d+)?)\s*(milliseconds?|ms|seconds?|sec|s|minutes?|min|m|hours?|h)"
    r"((?:\d+(?:\.\d+)?(?:ms|s|m|h))*)\b",
    re.IGNORECASE,
)
_A_DAY = re.compile(r"per day|by ?day|per 86400 ?s")
_TOKENS = re.compile(r"\btokens?\b")
_REQUESTS = re.compile(r"call rate|requests? (?:is|per|limit|rate)|of requests|per \d+ ?s")


def retry_after(
    headers: Mapping[str, str], message: str, *, now: float, limit: Limit | None = None
) -> float | None:
    """Seconds until the service wants to be asked again, 0 to LONGEST; None if it does not say.

    Negative numbers stand for unknown; a date that is past means now.

    `now` is seconds since the epoch; `limit`, where known, picks the reset header that counts.
    """
    hints = _hints(headers, message, now, limit)
    return next((max(hint, 0.0) for hint in hints if hint is not None and hint <= LONGEST), None)


def remaining(headers: Mapping[str, str], counted: Literal["requests", "tokens"]) -> int | None:
    """What the service says is left of a window, in requests or tokens; None if it does not say."""
    told = headers.get(f"x-ratelimit-remaining-{counted}", "")
    return int(told) if told.isascii() and told.isdigit() else None


def _hints(
    headers: Mapping[str, str], message: str, now: float, limit: Limit | None
) -> Iterator[float | None]:
    for name in _MILLISECONDS:
        value = _number(headers.get(name))
        yield value / 1000 if value is not None and value >= 0 else None
    yield _seconds_or_date(headers.get("retry-after"), now)
    for name in (*_RESETS_OF.get(limit, ()), *_RESETS):
        yield _span_or_time(headers.get(name), now)
    yield _in_text(message)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and isfinite(value) else None


def _seconds_or_date(text: str | None, now: float) -> float | None:
    value = _number(text)
    if value is not None:
        return value if value >= 0 else None
    if not text:
        return None
    try:
        return parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return None


def _span_or_time(text: str | None, now: float) -> float | None:
    """`12`, `12.5`, `6m0s`, `250ms`, or seconds since the epoch. -1 stands for unknown."""
    value = _number(text)
    if value is None:
        return _span(text) if text and _SPAN.fullmatch(text) else None
    if value < 0:
        return None
    return value - now if value > _EPOCH else value


def _span(text: str) -> float:
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def _in_text(message: str) -> float | None:
    match = _TEXT.search(message[:2000])
    if not match:
        return None
    unit = match[2].lower()
    return float(match[1]) * _UNITS["ms" if unit.startswith(("ms", "mil")) else unit[0]] + _span(
        match[3].lower()
    )


def limit_behind(headers: Mapping[str, str], code: str, message: str) -> Limit | None:
    """Which limit a 429 is about, as far as the service says."""
    kind = headers.get("x-ratelimit-type", "").lower()
    text = message[:2000].lower()
    if kind.endswith("byday") or code == "insufficient_quota" or _A_DAY.search(text):
        return "day"
    if "concurren" in kind or "concurren" in text or "pending requests" in text:
        return "concurrency"
    if "token" in kind or _TOKENS.search(text):
        return "tokens"
    if kind or _REQUESTS.search(text):
        return "requests"
    for limit in ("tokens", "requests"):
        if _number(headers.get(f"x-ratelimit-remaining-{limit}")) == 0:
            return limit
    return None
