"""How long do quotas take to let a load through, in the hours in which they may be used?

A load runs through all that is open as water does: what it is cut into does not matter here.
Times are seconds since the epoch.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import inf
from typing import Final, NamedTuple

from schemas.hours import Hours

FARTHEST: Final = 14 * 86400.0
"""Seconds that are gone through hour by hour: days are alike, and beyond it goes on as it did."""

# What a job needs besides its quotas: the part of them that is used, and seconds for its first
# calls, for its last answers and for its results.
USED: Final = 0.9
BESIDES_SECONDS: Final = 30.0


class QuotaInHours(NamedTuple):
    """So much a minute, None for any amount, while all of some hours are open."""

    per_minute: float | None
    hours: tuple[Hours, ...] = ()


def seconds_for(need: float, quotas: Sequence[QuotaInHours], now: float) -> float | None:
    """Seconds from now until quotas have let through what is needed; None where none bounds it.

    Through hours that never meet nothing gets, and the time is infinite.
    """
    at, left = now, need
    for until, opened in _spans(tuple(quota.hours for quota in quotas), now):
        rates = [quotas[place].per_minute for place in opened]
        limits = [rate for rate in rates if rate is not None]
        if len(limits) < len(rates):
            return at - now or None
        rate = sum(limits)
        if rate and 60.0 * left <= rate * (until - at):
            return at - now + 60.0 * left / rate
        left -= rate * (until - at) / 60.0
        at = until
    return (at - now) * (need / (need - left)) if left < need else inf


# Requests and tokens, and the most with and without what is not used, ask for the same spans.
@lru_cache(maxsize=32)
def _spans(
    hours: tuple[tuple[Hours, ...], ...], now: float
) -> Sequence[tuple[float, Sequence[int]]]:
    """Until when, and the places of what is open until then: from now on, one after the other."""
    distinct = list(dict.fromkeys(each for several in hours for each in several))
    behind = [[distinct.index(each) for each in several] for several in hours]
    standings, found, at = [(False, now)] * len(distinct), [], now
    while at - now < FARTHEST:
        for place, (_, until) in enumerate(standings):
            if until <= at:
                standings[place] = distinct[place].standing(at)
        at = min((until for _, until in standings), default=inf)
        closed = {place for place, (is_open, _) in enumerate(standings) if not is_open}
        found.append((at, [n for n, own in enumerate(behind) if closed.isdisjoint(own)]))
    return found


def job_seconds(least: float | None, late: float | None) -> tuple[float, float] | None:
    """Seconds of a job at least and at most; None where nothing bounds it, or it never ends.

    `least` are those of its quotas alone, `late` those of what is used of them.
    """
    return (
        None if late in (None, inf) else (round(least or 0.0, 1), round(late + BESIDES_SECONDS, 1))
    )
