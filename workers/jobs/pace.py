"""How fast a job goes, and when it will be through: measured over the last minute, or reckoned.
Will that be in time, and how far does it go before others for it?

A job's marks are (time, rows done that were asked), oldest first. Between two marks nothing is
known, nor after the last: only the time from mark to mark is measured, and an interruption between
them (an outage, a host that died) is not. Times are seconds since the epoch, by the clocks of the
workers that made the marks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor, inf
from typing import Final, Literal

from schemas.deployments import Deployment
from schemas.estimates import JobEstimate, QuotaBound
from schemas.history import Sample
from schemas.hours import Hours
from schemas.jobs import Job, JobState
from schemas.results import Receipt, Use
from schemas.sketches import Sketch, merged, quantiles
from schemas.status import AtRisk

Marks = tuple[tuple[float, int], ...]
"""(time, rows done that were asked), oldest first."""
Steps = list[tuple[float, int]]
"""(seconds, rows) from mark to mark."""

LATELY: Final = 60.0
"""Seconds over which a rate is measured, interruptions apart."""
ENOUGH, LEAST = 15.0, 5.0
"""Seconds that have to be measured before a rate tells more than the quotas do, for processes
start one after the other; and before it tells anything, where no quota bounds the job."""
SPACING: Final = 5.0
"""Seconds between marks: a newer one takes the place of the last while that one is closer."""
MARKS: Final = 26
"""Marks that are kept: those of the last minute, as many of a recovery, and some from before."""
LONG, TIMES_LONGER = 3 * SPACING, 3.0
"""Seconds from mark to mark, and how often those of the usual distance, from which on it may be an
interruption."""
RECOVERED: Final = 0.75
"""Of the rate before an interruption: what is slower just after it belongs to it."""
REPORT_SECONDS: Final = 1.0
"""Seconds between reports of rows that are done in shards that are out: each is a swap."""
SAMPLED_SHARES: Final = (0.5, 0.95, 0.99)
SAMPLE_SECONDS, SAMPLES_OF_AGE = 10.0, 200.0
"""Seconds between samples at least, and into how many of them a job's age goes: a month has 1,700,
however many rows."""

CALM: Final = 0.25
"""The part of the quotas up to which a job that needs it weighs what its priority says."""
PRESSED: Final = 0.75
"""The part from which on it weighs as much more as it may."""
MOST_URGENT: Final = 3.0
"""How many times its weight a job may have: below the 4 that are between two priorities."""
STEPS: Final = 4
"""Steps for each whole time: a weight that moves all the time would be written all the time."""
NOISE: Final = 1.05
"""How much longer than the time left a job has to take at its pace to be told to be at risk."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Rows per second, and whether that was measured or is what the quotas allow at most."""

    rate: float
    basis: Literal["measured", "quota"]


def marked(state: JobState, running: int, done: int, now: float, before: int = 0) -> Marks:
    """The marks with one more: of `done` rows that were asked, and `running` in shards out.

    `before` of them were done before the marks, though told only now.
    """
    marks, mark = tuple((at, rows + before) for at, rows in state.marks), (now, done + running)
    if len(marks) >= 2 and marks[-1][0] - marks[-2][0] < SPACING > now - marks[-1][0]:
        marks = marks[:-1]
    return (*marks, mark)[-MARKS:]


def done_before(told: int, found: int, done: int) -> int:
    """Rows of a shard that a mark shall not count as done since the last, though they are news.

    `told` were told of last, an attempt found `found` in the journals of earlier ones, and `done`
    are done now: fewer than were told where a crash lost some, and then the result is below 0.
    """
    return min(found, done) - told if told < found or told > done else 0


def report_due(state: JobState, now: float) -> bool:
    """Whether rows done in shards that are out may be told of again."""
    return not state.marks or not 0.0 <= now - state.marks[-1][0] < REPORT_SECONDS


def sample_due(state: JobState, now: float) -> bool:
    """Whether whoever changes the state is to take a sample, or to note when the next is due."""
    if state.sampled is None or state.started is None:
        return True
    return now - state.sampled >= max(SAMPLE_SECONDS, (now - state.started) / SAMPLES_OF_AGE)


def sample(state: JobState, now: float, receipt: Receipt | None) -> Sample:
    """How a job stands now; `receipt` is that of the shard that has just been counted."""
    used = state.use.values()
    latency: Sketch = {}
    for each in receipt.use.values() if receipt else ():
        latency = merged(latency, each.latency)
    return Sample(
        at=round(now, 3),
        succeeded=state.counts.succeeded,
        errors=state.counts.errors,
        running=state.running_rows,
        prompt_tokens=state.told_tokens.prompt,
        completion_tokens=state.told_tokens.completion,
        calls=sum(each.calls for each in used),
        refusals=sum(each.outcomes.get("throttled", 0) for each in used),
        waiting=None if state.waiting is None else state.waiting.reason,
        latency=tuple(round(each, 3) for each in quantiles(latency, SAMPLED_SHARES)),
    )


def pace(state: JobState) -> Pace | None:
    """How fast the job goes; None while it is paused, or before anything is measured where no
    quota bounds it.
    """
    if state.paused:
        return None
    least = None if state.terminal else state.least_seconds
    bound = state.counts.total / least if least else 0.0
    measured = _measured(state.marks, ENOUGH if bound else LEAST)
    if measured is not None:
        return Pace(measured, "measured")
    return Pace(bound, "quota") if bound else None


def seconds_left(job: Job, state: JobState, going: Pace | None, now: float) -> float | None:
    """Time until the last row at this pace; None where nothing can be said."""
    if state.terminal:
        return 0.0
    if going is None:
        return None
    return _until(job, state, max(0, _left(state)) / going.rate, now)


def opens(job: Job, state: JobState, now: float) -> float:
    """When a job may be asked, now or later; one that is ending has nothing to be asked."""
    return now if job.hours is None or state.ending is not None else job.hours.opens(now)


def needs(job: Job, state: JobState, now: float) -> float:
    """The part of the quotas that a job needs from now on; inf once its time is over.

    The result is 0 where nothing is left, or where no quota bounds it.
    """
    return _part(state, _open_seconds(job, now))


def urgency(job: Job, state: JobState, now: float) -> float:
    """How many times its weight a job has, 1 to MOST_URGENT: the less slack, the more."""
    pressure = (min(needs(job, state, now), 1.0) - CALM) / (PRESSED - CALM)
    more = (MOST_URGENT - 1.0) * min(max(pressure, 0.0), 1.0)
    return 1.0 + floor(STEPS * more) / STEPS


def at_risk(job: Job, state: JobState, left: float | None, now: float) -> AtRisk | None:
    """What a job would need that will be late at the pace it has; None for one that will not.

    `left` is the seconds until its last row at that pace, None where nothing can be said.
    """
    seconds = job.expires - now
    if state.state != "in_progress" or state.ending is not None or seconds <= 0:
        return None
    if left is None:
        # Paused, or nothing is measured yet: what the quotas allow at most.
        least = state.least_seconds
        work = least * max(0, _left(state)) / state.counts.total if least else 0.0
        left = _until(job, state, work, now)
    if left <= NOISE * seconds:
        return None
    usable = _open_seconds(job, _opening(state, now))
    needed = _part(state, usable)
    return AtRisk(
        late_seconds=round(left - seconds, 1),
        needed_rate=round(_left(state) / usable, 3) if usable > 0 else None,
        needed_quota=round(needed, 3) if needed < inf and state.least_seconds is not None else None,
    )


def shared_hours(deployments: Sequence[Deployment]) -> Hours | None:
    """The hours in which all deployments may be asked, where those are the same for each."""
    hours = {each.open_hours for each in deployments}
    return hours.pop() if len(hours) == 1 else None


def quota_seconds(estimate: JobEstimate) -> float | None:
    """Time that the quotas need for all rows at least; None where none bounds it.

    Of its rows' models and days the estimate knows, and of the tokens that are reserved its bounds.
    """
    reckoned = 0.0 if estimate.seconds is None else estimate.seconds[0]
    return max([reckoned, *(each.seconds for each in estimate.bounds)]) or None


def least_seconds(
    state: JobState, estimate: JobEstimate | None, use: Mapping[str, Use]
) -> float | None:
    """Time that the quotas needed at least for the rows that were asked; None where nothing was,
    or none bounds it.

    Where some were not asked, nobody knows which day's requests the others were: the quotas of a
    minute alone count.
    """
    asked = state.counts.asked
    if estimate is None or not asked:
        return None
    if asked >= estimate.rows:
        return state.least_seconds
    bounds = [
        each.seconds * min(1.0, _asked_of(each, estimate, asked, use) / each.requests)
        for each in estimate.bounds
    ]
    return round(max(bounds, default=0.0), 3) or None


def _asked_of(bound: QuotaBound, estimate: JobEstimate, asked: int, use: Mapping[str, Use]) -> int:
    """Requests that were asked of those that a bound is of, or fewer."""
    if bound.requests == estimate.rows:
        return asked
    used = [use[name] for name in bound.deployments if name in use]
    return sum(each.calls - each.outcomes.get("throttled", 0) for each in used)


def _until(job: Job, state: JobState, work: float, now: float) -> float:
    """Seconds until so many of work are done: after what the job waits for, in its hours alone."""
    begin = max(now, state.waiting.until or now) if state.waiting else now
    return (begin + work if job.hours is None else job.hours.after(begin, work)) - now


def _opening(state: JobState, now: float) -> float:
    """When what the job waits for opens; now where it waits for no hours."""
    waiting = state.waiting
    return max(now, waiting.until or now) if waiting and waiting.reason == "hours" else now


def _open_seconds(job: Job, begin: float) -> float:
    """Seconds of a job's window that are left from then on and may be used."""
    return job.expires - begin if job.hours is None else job.hours.open_seconds(begin, job.expires)


def _part(state: JobState, seconds: float) -> float:
    """The part of the quotas that what is left of a job takes in so many seconds."""
    if state.least_seconds is None or (left := _left(state)) <= 0:
        return 0.0
    return left * state.least_seconds / state.counts.total / seconds if seconds > 0 else inf


def _left(state: JobState) -> int:
    return state.counts.total - state.counts.done - state.running_rows


def _measured(marks: Marks, enough: float) -> float | None:
    """The rate of the last minute that was no interruption."""
    seconds, done = 0.0, 0
    for step_seconds, step_rows in reversed(_uninterrupted(marks)):
        if seconds >= LATELY:
            break
        seconds, done = seconds + step_seconds, done + step_rows
    return done / seconds if done > 0 and seconds >= enough else None


def _uninterrupted(marks: Marks) -> Steps:
    """(seconds, rows) from mark to mark, without those of one interruption.

    A few marks may stand in it: answers that were on their way, a single row that came through.
    Where short distances are as many as long ones in between, the job goes by fits and starts, and
    that is its pace; it is too where more than a quarter of the latest distances are long.
    """
    steps = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(marks)]
    if not steps:
        return []
    lately = sorted(seconds for seconds, _ in steps[-MARKS // 2 :])
    usual = lately[(len(lately) - 1) * 3 // 4]
    least = max(LONG, TIMES_LONGER * usual)
    long = [at for at, (seconds, _) in enumerate(steps) if seconds > least]
    if not long or 2 * len(long) <= long[-1] - long[0] + 1:
        return steps
    begin, end = long[0], long[-1] + 1
    lasted = sum(seconds for seconds, _ in steps[begin:end])
    return steps[:begin] + _recovered(steps[:begin], lasted, steps[end:])


def _recovered(before: Steps, lasted: float, after: Steps) -> Steps:
    """What came after an interruption, without the steps in which not all processes were back.

    Each tries again at a time of its own, the later the longer it tried in vain: within about as
    long as the interruption lasted. What is slow for longer than that is the job's pace.
    """
    least, since, kept = RECOVERED * _rate(before), 0.0, []
    for seconds, rows in after:
        since += seconds
        if since > lasted or rows >= least * seconds:
            kept.append((seconds, rows))
    return kept


def _rate(steps: Steps) -> float:
    seconds = sum(seconds for seconds, _ in steps)
    return sum(rows for _, rows in steps) / seconds if seconds else 0.0
