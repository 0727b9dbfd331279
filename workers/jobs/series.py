"""How a job went over time, summed of what its receipts say of each ten seconds.

Adding is exact, and the same in any order: an interval is as long as the whole of the job's time
needs it to be, so that there are at most MOST of them.
"""

from collections.abc import Mapping
from typing import Final

from schemas.history import Sample
from schemas.money import MILLION, amount
from schemas.results import INTERVAL_SECONDS, Interval
from schemas.sketches import Sketch, quantiles
from workers.jobs.pace import SAMPLED_SHARES
from workers.rows.writing import IntervalSums

MOST: Final = 512
"""Intervals of a job: those of an hour and a half are ten seconds long, of a month an hour and a
half. Where nothing happens between any two of them, there are twice as many samples."""

_SLIVER: Final = 0.25
"""The part of an interval that the job's first and last have to last at least."""


class Series:
    """Intervals by number: `n` begins `n * width` tens of seconds after the epoch."""

    def __init__(self) -> None:
        self.width = 1
        self.intervals: dict[int, IntervalSums] = {}
        self._ends: set[int] = set()

    def add(self, told: Mapping[int, Interval]) -> None:
        """Count the intervals of one more receipt."""
        if not told:
            return
        numbers = {at // self.width for at in told}
        first, last = min(numbers | self._ends), max(numbers | self._ends)
        while last - first >= MOST:
            first, last = first // 2, last // 2
            self._widen()
        for at, each in told.items():
            _count(self.intervals.setdefault(at // self.width, IntervalSums()), each)
        self._ends = {first, last}

    def _widen(self) -> None:
        self.width *= 2
        before, self.intervals = self.intervals, {}
        for at, each in before.items():
            _count(self.intervals.setdefault(at // 2, IntervalSums()), each)


def samples_of(
    series: Series, *, priced: bool, started: float | None, done: float | None
) -> tuple[Sample, ...]:
    """The series as samples: how the job stood at the end of each interval, from its start on.

    The first interval begins when the job `started`, and the last ends when all its rows were
    `done`: no rate is reckoned of time in which there was no job. Where nothing happened for a
    while, that is one sample at its end. A job of no length has its sums alone.
    """
    if not series.intervals:
        return ()
    seconds = INTERVAL_SECONDS * series.width
    begin = min(series.intervals) * seconds if started is None else _whole(started)
    end = (max(series.intervals) + 1) * seconds if done is None else _whole(done)
    first, last = _ends(begin, end, seconds)
    intervals = _within(series, first, last)
    found: list[Sample] = []
    so_far = IntervalSums()
    if begin < end:
        found.append(_sample(so_far, begin, priced, {}))
    for number in sorted(intervals):
        if number > first and found and found[-1].at < number * seconds:
            found.append(_sample(so_far, number * seconds, priced, {}))
        own = intervals[number]
        _count(so_far, own)
        until = (number + 1) * seconds
        # Until the last receipt is counted is no time of its own, unless it is long.
        at_end = number == max(intervals) and end - until < seconds
        found.append(_sample(so_far, end if at_end else until, priced, own.latency))
    if found[-1].at < end:
        found.append(_sample(so_far, end, priced, {}))
    return tuple(found)


def _ends(begin: float, end: float, seconds: int) -> tuple[int, int]:
    """The first and the last interval of a job.

    What lies in a sliver of one counts with its neighbour: a row that ends a hundredth of a second
    after the clock's ten would be a hundred a second.
    """
    first = int(begin // seconds)
    last = max(first, -int(-end // seconds) - 1)
    if last > first and end - last * seconds < _SLIVER * seconds:
        last -= 1
    if last > first and (first + 1) * seconds - begin < _SLIVER * seconds:
        first += 1
    return first, last


def _whole(at: float) -> float:
    """A time in whole milliseconds, as manifest and status tell it."""
    return round(at * 1_000_000) // 1000 / 1000


def _within(series: Series, first: int, last: int) -> Mapping[int, IntervalSums]:
    """The intervals from one to another.

    When a call ended is reckoned back, and clocks of workers differ: what seems to lie outside
    counts with what is next to it.
    """
    found: dict[int, IntervalSums] = {}
    for number, each in series.intervals.items():
        _count(found.setdefault(min(max(number, first), last), IntervalSums()), each)
    return found


def _count(sums: IntervalSums, told: Interval | IntervalSums) -> None:
    sums.succeeded += told.succeeded
    sums.failed += told.failed
    sums.prompt_tokens += told.prompt_tokens
    sums.completion_tokens += told.completion_tokens
    sums.calls += told.calls
    sums.refusals += told.refusals
    sums.cost += told.cost
    sums.latency.update(told.latency)


def _sample(sums: IntervalSums, at: float, priced: bool, latency: Sketch) -> Sample:
    return Sample(
        at=float(at),
        succeeded=sums.succeeded,
        errors=sums.failed,
        prompt_tokens=sums.prompt_tokens,
        completion_tokens=sums.completion_tokens,
        calls=sums.calls,
        refusals=sums.refusals,
        cost=amount(-(-sums.cost // MILLION)) if priced else None,
        latency=tuple(round(each, 3) for each in quantiles(latency, SAMPLED_SHARES)),
    )
