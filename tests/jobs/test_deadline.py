"""A job that may miss its window goes before others as far as is fair, and says so early."""

from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.jobs import Job, JobOptions, JobState, Waiting
from schemas.results import Counts
from schemas.status import AtRisk
from tests.jobs.test_pace import running
from workers.jobs import events, pace
from workers.jobs.endings import end
from workers.shards.calls import WEIGHT_OF_PRIORITY


def job(window: float) -> Job:
    return Job(
        id="j",
        container="prompts",
        name="a.jsonl",
        etag="e",
        size=1,
        created=0.0,
        expires=window,
        results="a/j",
        door="drop",
        options=JobOptions(),
        priority="normal",
        window=16,
        max_line_bytes=1024,
    )


def left(rows: int, **fields: Any) -> JobState:
    """A job of 1,000 rows for which the quotas need 100 s, so many of them left."""
    return running(counts=Counts(total=1000, succeeded=1000 - rows), least_seconds=100.0, **fields)


def told(window: float, state: JobState, now: float) -> AtRisk | None:
    return events.status(job(window), state, "results", now).at_risk


def test_what_a_job_needs_is_a_part_of_the_quotas() -> None:
    assert pace.needs(job(200.0), left(1000), 0.0) == pytest.approx(0.5)
    assert pace.needs(job(200.0), left(500), 100.0) == pytest.approx(0.5)
    assert pace.needs(job(200.0), left(500, running=((0, 250),)), 100.0) == pytest.approx(0.25)
    assert pace.needs(job(200.0), left(0), 500.0) == 0.0
    assert pace.needs(job(200.0), left(1), 200.0) == inf
    assert pace.needs(job(200.0), running(least_seconds=None), 199.0) == 0.0


@given(st.floats(1.0, 1e6), st.floats(0.0, 2e6), st.integers(0, 1000), st.integers(0, 1000))
def test_the_less_slack_the_more_a_job_weighs_and_never_as_much_as_the_next_priority(
    window: float, now: float, rows: int, fewer: int
) -> None:
    more = pace.urgency(job(window), left(rows), now)
    assert 1.0 <= more <= pace.MOST_URGENT
    assert pace.urgency(job(window), left(min(rows, fewer)), now) <= more
    assert pace.urgency(job(window), left(rows), now + 1.0) >= more or rows == 0
    weights = sorted(WEIGHT_OF_PRIORITY.values())
    assert all(light * more < heavy for light, heavy in pairwise(weights))


def test_a_job_with_time_weighs_what_its_priority_says() -> None:
    assert pace.urgency(job(86_400.0), left(1000), 0.0) == 1.0
    assert pace.urgency(job(400.0), left(1000), 0.0) == 1.0
    assert pace.urgency(job(134.0), left(1000), 0.0) == pytest.approx(2.75, abs=0.26)
    assert pace.urgency(job(90.0), left(1000), 0.0) == pace.MOST_URGENT


def test_one_that_the_quotas_cannot_bring_in_time_says_so_from_the_first_moment() -> None:
    assert told(80.0, left(1000), 0.0) == AtRisk(
        late_seconds=20.0, needed_rate=12.5, needed_quota=1.25
    )
    assert told(110.0, left(1000), 0.0) is None
    # Its plan is not there yet: nothing is known.
    assert events.status(job(80.0), None, "results", 0.0).at_risk is None


def test_one_that_is_slower_than_it_has_to_be_says_what_it_would_take() -> None:
    marks = ((0.0, 0), (30.0, 60), (60.0, 120))
    state = left(880, marks=marks)
    assert pace.pace(state) == pace.Pace(2.0, "measured")
    assert told(260.0, state, 60.0) == AtRisk(
        late_seconds=240.0, needed_rate=4.4, needed_quota=0.44
    )
    # Without a quota the rate that is measured speaks alone.
    free = state.model_copy(update={"least_seconds": None})
    assert told(260.0, free, 60.0) == AtRisk(late_seconds=240.0, needed_rate=4.4)
    assert told(600.0, state, 60.0) is None


def test_a_wait_that_outlasts_the_window_is_a_risk() -> None:
    day = Waiting(reason="day", since=0.0, until=3600.0)
    risk = told(1800.0, left(1000, waiting=day), 10.0)
    assert risk is not None
    assert risk.late_seconds == pytest.approx(3590.0 + 100.0 - 1790.0)


def test_what_is_over_or_ending_is_at_no_risk() -> None:
    assert told(80.0, left(0), 0.0) is None
    assert told(80.0, left(1000), 81.0) is None
    ended = end(left(1000), "cancelled", None).state
    assert ended is not None
    assert told(80.0, ended, 0.0) is None
    assert told(80.0, left(1000, paused=True), 0.0) is not None
