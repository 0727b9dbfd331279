"""A rate is that of the last minute, or what the quotas allow; time left says which of the two."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.jobs import Job, JobOptions, JobState, Waiting
from schemas.results import Counts
from workers.jobs import pace
from workers.jobs.pace import MARKS, Pace


def running(*marks: tuple[float, int], **fields: Any) -> JobState:
    return JobState(
        revision=1, state="in_progress", counts=Counts(total=1000, succeeded=40), marks=marks
    ).model_copy(update=fields)


def time_left(state: JobState, now: float) -> float | None:
    return pace.seconds_left(job(), state, pace.pace(state), now)


def test_nothing_is_said_before_anything_is_known() -> None:
    assert pace.pace(running((0.0, 0))) is None
    assert time_left(running((0.0, 0)), 10.0) is None


def test_before_there_is_enough_the_quota_speaks() -> None:
    state = running((0.0, 0), (2.0, 3), least_seconds=100.0)
    assert pace.pace(state) == Pace(10.0, "quota")
    assert time_left(state, 2.0) == 96.0
    state = running((0.0, 0), (14.0, 7), least_seconds=100.0)
    assert pace.pace(state) == Pace(10.0, "quota")
    state = running((0.0, 0), (16.0, 8), least_seconds=100.0)
    assert pace.pace(state) == Pace(0.5, "measured")
    assert pace.pace(running((0.0, 0), (6.0, 3))) == Pace(0.5, "measured"), "no quota bounds it"


def test_the_rate_is_that_of_the_last_minute() -> None:
    """For an hour a row a second, then ten."""
    state = running()
    for second in range(3600 + 61):
        done = second if second <= 3600 else 3600 + 10 * (second - 3600)
        state = state.model_copy(update={"marks": pace.marked(state, 0, done, float(second))})
    told = pace.pace(state)
    assert told is not None
    assert told.basis == "measured"
    assert told.rate == pytest.approx(10.0, rel=0.15)


def test_time_left_after_an_outage_knows_nothing_of_it() -> None:
    """Ten rows a second, nothing for five minutes, and ten rows a second again."""
    state = running(least_seconds=50.0)
    for second in range(60):
        state = state.model_copy(update={"marks": pace.marked(state, 0, 10 * second, second)})
    outage = Waiting(reason="outage", since=62.0, until=400.0)
    state = state.model_copy(update={"waiting": outage})
    back = state.model_copy(update={"marks": pace.marked(state, 0, 600, 360.0)})
    assert pace.pace(back) == Pace(10.0, "measured")
    state = back.model_copy(update={"waiting": None})
    for second in range(361, 367):
        done = 600 + 10 * (second - 360)
        state = state.model_copy(update={"marks": pace.marked(state, 0, done, float(second))})
    assert pace.pace(state) == Pace(10.0, "measured")


def through(state: JobState, *done: tuple[float, int]) -> JobState:
    """The state after one mark after the other."""
    for at, rows in done:
        state = state.model_copy(update={"marks": pace.marked(state, 0, rows, at)})
    return state


@pytest.mark.parametrize(
    "strays",
    [(), ((33.0, 304),), ((33.0, 304), (53.0, 305)), ((33.0, 304), (53.0, 305), (59.0, 306))],
)
def test_answers_that_came_in_an_outage_change_no_time_left(
    strays: tuple[tuple[float, int], ...],
) -> None:
    """Ten rows a second, 503 from second 30 to 75 but for a few answers, then ten again."""
    state = through(running((0.0, 0), least_seconds=50.0), *((3.0 * n, 30 * n) for n in range(11)))
    assert pace.pace(state) == Pace(10.0, "measured")
    outage = Waiting(reason="outage", since=31.0, until=75.0)
    state = through(state.model_copy(update={"waiting": outage}), *strays)
    for now in (34.0, 50.0, 70.0):
        left = time_left(state, now)
        assert left == pytest.approx(75.0 - now + 96.0, rel=0.3), "the outage, and 960 rows"
    state = state.model_copy(update={"waiting": None})
    for at in range(78, 120, 3):
        state = through(state, (float(at), 310 + 10 * (at - 75)))
        told = pace.pace(state)
        assert told is not None
        assert told.rate == pytest.approx(10.0, rel=0.25)


# (seconds, rows done) as `run` told them: 2,500 rows at 1,000 a minute on three hosts, 503 from
# second 60 to 105. One host's breaker closes at 113, the others' at 141 and 152; it ends at 248.
REPLAYED = """
10 0, 17 82, 22 112, 26 175, 32 283, 39 374, 45 475, 52 530, 56 576, 59 651, 63 696, 65 750,
113 751, 116 760, 120 777, 122 794, 126 811, 129 823, 133 827, 135 829, 139 853, 144 859, 146 865,
148 928, 150 966, 153 1000, 157 1054, 159 1084, 162 1117, 164 1149, 166 1216, 170 1250, 172 1283,
178 1331, 180 1345, 183 1361, 185 1392, 188 1408, 190 1455, 192 1503, 195 1559, 199 1599, 206 1726
"""


def test_hosts_that_come_back_one_by_one_are_no_new_pace() -> None:
    done = [each.split() for each in REPLAYED.replace("\n", " ").split(",")]
    state = running((10.0, 0), counts=Counts(total=2500), least_seconds=150.0)
    for at, rows in ((float(at), int(rows)) for at, rows in done):
        state = through(state, (at, rows)).model_copy(
            update={"counts": Counts(total=2500, succeeded=rows)}
        )
        if at > 105.0:
            left = time_left(state, at)
            assert left == pytest.approx(248.0 - at, rel=0.5), at


def test_a_job_that_stays_slow_after_an_outage_is_told_so() -> None:
    state = through(running((0.0, 0)), *((3.0 * n, 30 * n) for n in range(1, 11)))
    state = through(state, *((75.0 + 3 * n, 300 + 6 * n) for n in range(40)))
    told = pace.pace(state)
    assert told is not None
    assert told.rate == pytest.approx(2.0, rel=0.1)


def test_time_left_does_not_grow_while_nothing_is_told() -> None:
    """A killed host tells nothing until its lease has run out."""
    state = through(running((0.0, 0), least_seconds=50.0), *((3.0 * n, 30 * n) for n in range(11)))
    assert time_left(state, 78.0) == time_left(state, 30.0)


@pytest.mark.parametrize("distances", [(30.0,), (5.0, 55.0), (5.0, 5.0, 5.0, 45.0), (20.0, 44.0)])
def test_a_job_that_goes_by_fits_and_starts_has_that_pace(distances: tuple[float, ...]) -> None:
    """A row each time, however far apart: that is no outage."""
    state, at = running((0.0, 0)), 0.0
    for n in range(1, 41):
        at += distances[n % len(distances)]
        state = through(state, (at, n))
        told = pace.pace(state)
        if n > 12:
            assert told is not None
            assert told.basis == "measured"
            assert told.rate == pytest.approx(len(distances) / sum(distances), rel=0.5)


def test_a_job_that_becomes_slow_is_told_so() -> None:
    """Ten rows a second, then one each half minute."""
    state = through(running((0.0, 0)), *((float(n), 10 * n) for n in range(61)))
    state = through(state, *((60.0 + 30 * n, 600 + n) for n in range(1, 5)))
    told = pace.pace(state)
    assert told is not None
    assert told.rate == pytest.approx(1 / 30)


def test_a_wait_is_added_and_a_pause_says_nothing() -> None:
    state = running((0.0, 0), (10.0, 40))
    assert time_left(state, 10.0) == 240.0
    waiting = Waiting(reason="day", since=10.0, until=110.0)
    assert time_left(state.model_copy(update={"waiting": waiting}), 10.0) == 340.0
    paused = state.model_copy(update={"paused": True})
    assert (pace.pace(paused), time_left(paused, 10.0)) == (None, None)


def test_rows_in_shards_that_are_out_are_not_left() -> None:
    state = running((0.0, 0), (10.0, 100), running=((3, 40), (7, 20)))
    assert time_left(state, 10.0) == 90.0


def test_an_ended_job_keeps_the_rate_of_its_last_minute() -> None:
    state = running((0.0, 0), (5.0, 20), (10.0, 40), state="completed", ended=30.0)
    assert pace.pace(state) == Pace(4.0, "measured")
    assert time_left(state, 1e6) == 0.0


@given(
    st.lists(st.tuples(st.floats(0.01, 40.0), st.integers(0, 50)), min_size=1, max_size=80),
    st.floats(0.0, 100.0),
)
def test_the_rate_lies_between_those_from_mark_to_mark_and_marks_stay_few(
    steps: list[tuple[float, int]], later: float
) -> None:
    state, now, done = running(), 0.0, 0
    for pause, rows in steps:
        now, done = now + pause, done + rows
        state = through(state, (now, done))
        assert len(state.marks) <= MARKS
    told = pace.pace(state)
    if told is not None:
        rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(state.marks)]
        assert min(rates) * (1 - 1e-6) <= told.rate <= max(rates) * (1 + 1e-6)
        assert told.rate * pace.LEAST <= state.marks[-1][1] - state.marks[0][1] + 1e-6


def job() -> Job:
    return Job(
        id="j",
        door="queue",
        container="inputs",
        name="a.jsonl",
        etag="0x1",
        size=9,
        options=JobOptions(),
        priority="normal",
        created=0.0,
        expires=9.0,
        window=16,
        max_line_bytes=4096,
        results="a/j",
    )
