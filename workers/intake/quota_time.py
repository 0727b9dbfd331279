"""How long do quotas take to let a load through, by the minute and the day, in their hours?

A load runs through all that is open as water does: what it is cut into does not matter here.
Times are seconds since the epoch.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import inf
from typing import Final, NamedTuple

from schemas.hours import Hours

DAY: Final = 86_400.0
FARTHEST: Final = 14 * DAY
"""Seconds that are gone through hour by hour: days are alike, and beyond it goes on as it did."""

# What a job needs besides its quotas: the part of them that is used, and seconds for its first
# calls, for its last answers and for its results.
USED: Final = 0.9
BESIDES_SECONDS: Final = 30.0


class QuotaInHours(NamedTuple):
    """A quota of so much a minute (None: any amount), while all of some hours are open.

    From midnight to midnight in UTC it lets `per_day` through, on the first day `today`.
    """

    per_minute: float | None
    hours: tuple[Hours, ...] = ()
    per_day: float = inf
    today: float = inf


def seconds_for(need: float, quotas: Sequence[QuotaInHours], now: float) -> float | None:
    """Seconds from now until quotas have let through what is needed; None where none bounds it.

    Through hours that never meet nothing gets, and the time is infinite.
    """
    at, left = now, need
    for until, at_once, through, rate in _pieces(quotas, now):
        left -= at_once
        if left <= 0:
            return at - now or None
        if left <= through:
            return at - now + 60.0 * left / rate
        left -= through
        at = until
    return (at - now) * (need / (need - left)) if left < need else inf


class _Piece(NamedTuple):
    """Quotas let `at_once` through, and then up to `until` `through`, at `rate` a minute."""

    until: float
    at_once: float
    through: float
    rate: float


def _pieces(quotas: Sequence[QuotaInHours], now: float) -> Iterator[_Piece]:
    """What quotas let through from now on; each piece ends with hours, a day or a day's lot."""
    at, lots = now, [quota.today for quota in quotas]
    daily = any(quota.per_day < inf for quota in quotas)
    for until, opened in _spans(tuple(quota.hours for quota in quotas), now, daily):
        if at > now and at % DAY == 0:
            lots = [quota.per_day for quota in quotas]
        while at < until:
            flowing = {place: quotas[place].per_minute for place in opened if lots[place]}
            rates = {place: rate for place, rate in flowing.items() if rate is not None}
            used_up = {place: at + 60.0 * lots[place] / rate for place, rate in rates.items()}
            end = min([until, *used_up.values()])
            # A lot that is used up is taken as a whole: rate by time would be a little less.
            taken = {
                place: lots[place] if used_up[place] <= end else rate * (end - at) / 60.0
                for place, rate in rates.items()
            }
            at_once = sum(lots[place] for place in flowing.keys() - rates.keys())
            yield _Piece(end, at_once, sum(taken.values()), sum(rates.values()))
            for place in flowing:
                lots[place] -= taken.get(place, lots[place])
            at = end


# Requests and tokens, and the most with and without what is not used, ask for the same spans.
@lru_cache(maxsize=32)
def _spans(
    hours: tuple[tuple[Hours, ...], ...], now: float, daily: bool
) -> Sequence[tuple[float, Sequence[int]]]:
    """The times at which something opens or closes, and the places of what is open until each.

    With `daily`, each midnight (UTC) is such a time.
    """
    distinct = list(dict.fromkeys(each for several in hours for each in several))
    behind = [[distinct.index(each) for each in several] for several in hours]
    standings, found, at = [(False, now)] * len(distinct), [], now
    while at - now < FARTHEST:
        for place, (_, until) in enumerate(standings):
            if until <= at:
                standings[place] = distinct[place].standing(at)
        midnight = (at // DAY + 1.0) * DAY if daily else inf
        at = min(midnight, *(until for _, until in standings), inf)
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
