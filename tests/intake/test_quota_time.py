"""How long quotas take to let a load through, in the hours in which they may be used."""

from datetime import UTC, datetime
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.hours import Hours
from workers.intake.quota_time import FARTHEST, QuotaInHours, seconds_for

HOUR, DAY = 3600.0, 86400.0
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
NIGHT = Hours(hours="22:00-06:00", time_zone="UTC")
EVENING = Hours(hours="20:00-23:00", time_zone="UTC")
MORNING = Hours(hours="08:00-09:00", time_zone="UTC")

hours = st.sampled_from([NIGHT, EVENING, Hours(hours="09:30-17:00", time_zone="Europe/Berlin")])
times = st.floats(NOON, NOON + 200 * DAY)
rates = st.floats(0.1, 1e4)


def limited(per_minute: float | None, *open_in: Hours) -> QuotaInHours:
    return QuotaInHours(per_minute, open_in)


def test_at_any_hour_it_is_the_load_by_the_sum_of_the_quotas() -> None:
    assert seconds_for(120, [QuotaInHours(60), QuotaInHours(60)], NOON) == 60.0
    assert seconds_for(120, [QuotaInHours(60), QuotaInHours(None)], NOON) is None


@pytest.mark.parametrize(
    ("minutes", "quotas", "expected"),
    [
        (60, [limited(1, NIGHT)], 11 * HOUR),
        (8 * 60, [limited(1, NIGHT)], 18 * HOUR),
        # What the first night leaves waits for the next.
        (9 * 60, [limited(1, NIGHT)], DAY + 11 * HOUR),
        # In the hours of both, 22:00 to 23:00: those of the deployment and of the priority.
        (90, [limited(1, NIGHT, EVENING)], DAY + 10.5 * HOUR),
        # One goes on from 20:00, the other comes in at 22:00, the first ends at 23:00.
        (180, [limited(1, EVENING), limited(1, NIGHT)], 10.5 * HOUR),
        (300, [limited(1, EVENING), limited(1, NIGHT)], 12 * HOUR),
        (60, [limited(1, NIGHT), QuotaInHours(1)], HOUR),
        # Nobody is asked before 20:00, and then as many rows as there are.
        (60, [limited(None, EVENING)], 8 * HOUR),
        (9 * 60, [QuotaInHours(1), limited(None, EVENING)], 8 * HOUR),
    ],
)
def test_the_load_waits_for_what_is_open(
    minutes: float, quotas: list[QuotaInHours], expected: float
) -> None:
    assert seconds_for(minutes, quotas, NOON) == pytest.approx(expected)


def test_what_is_open_now_and_has_no_quota_bounds_nothing() -> None:
    assert seconds_for(1e9, [limited(None, NIGHT)], NOON + 11 * HOUR) is None


@settings(max_examples=60)
@given(st.floats(0.1, 2e4), rates, hours, times)
def test_of_one_deployment_it_is_the_time_in_which_its_hours_add_up(
    need: float, rate: float, of: Hours, now: float
) -> None:
    work = 60.0 * need / rate
    found = seconds_for(need, [limited(rate, of)], now)
    assert found is not None
    exact = of.after(now, work) - now
    assert found == pytest.approx(exact, abs=0.01 if exact < FARTHEST else 0.1 * exact)


@settings(max_examples=60)
@given(
    st.floats(0.1, 1e9),
    st.lists(st.tuples(rates, st.lists(hours, max_size=2)), min_size=1, max_size=4),
    times,
)
def test_hours_never_make_it_sooner_and_more_quota_never_later(
    need: float, quotas: list[tuple[float, list[Hours]]], now: float
) -> None:
    some = [limited(rate, *open_in) for rate, open_in in quotas]
    found = seconds_for(need, some, now)
    always = seconds_for(need, [QuotaInHours(rate) for rate, _ in quotas], now)
    more = seconds_for(need, [*some, QuotaInHours(1.0)], now)
    assert found is not None
    assert always is not None
    assert more is not None
    if found < FARTHEST:
        assert found >= always - 0.01
        assert more <= found + 0.01


def daily(per_day: float, per_minute: float | None = None, **more: Any) -> QuotaInHours:
    return QuotaInHours(per_minute, per_day=per_day, **({"today": per_day} | more))


@pytest.mark.parametrize(
    ("need", "quotas", "expected"),
    [
        (100, [daily(150)], None),
        # Noon to midnight, and then as many as there are.
        (151, [daily(150)], 12 * HOUR),
        (301, [daily(150)], 12 * HOUR + DAY),
        (101, [daily(150, today=100.0)], 12 * HOUR),
        (165, [daily(150, 15)], 12 * HOUR + 60),
        (150, [daily(150, 15)], 600),
        (15, [daily(150, 15, today=0.0)], 12 * HOUR + 60),
        # One has enough for its hour, the other goes on alone.
        (180, [daily(60, 1), QuotaInHours(1)], 2 * HOUR),
        (75, [daily(60), QuotaInHours(1)], 900),
        (60, [daily(60), QuotaInHours(None)], None),
        (60, [daily(100, 1, hours=(NIGHT,))], 11 * HOUR),
        # The first of the night's days ends at 23:40, the second begins at midnight.
        (161, [daily(100, 1, hours=(NIGHT,))], 12 * HOUR + 61 * 60),
        (240, [daily(60, hours=(NIGHT,))], 12 * HOUR + 2 * DAY),
    ],
)
def test_the_load_waits_for_the_next_day(
    need: float, quotas: list[QuotaInHours], expected: float | None
) -> None:
    assert seconds_for(need, quotas, NOON) == (expected and pytest.approx(expected))


@settings(max_examples=60)
@given(st.integers(1, 3000), st.integers(1, 500), st.floats(0.01, 1e3), times)
def test_of_one_deployment_no_day_has_more_than_its_own(
    need: int, per_day: int, rate: float, now: float
) -> None:
    found = seconds_for(need, [daily(per_day, rate)], now)
    assert found is not None
    assert found >= 60.0 * need / rate - 0.01
    days = int((now + found) // DAY - now // DAY) + 1
    if found < FARTHEST:
        assert days * per_day >= need * (1 - 1e-9)
    if need <= per_day:
        assert found == pytest.approx(60.0 * need / rate, rel=0.1)


def test_what_takes_weeks_is_told_by_the_pace_of_the_first_days() -> None:
    # A third of each day.
    assert seconds_for(100 * 8 * 60, [limited(1, NIGHT)], NOON) == pytest.approx(
        100 * DAY, rel=0.05
    )


def test_hours_that_never_meet_are_not_looked_at_for_ever() -> None:
    assert seconds_for(1, [limited(1, NIGHT, MORNING)], NOON) == inf
    assert seconds_for(1, [limited(None, NIGHT, MORNING)], NOON) == inf
