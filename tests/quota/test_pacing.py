"""The promise of the buckets: in any window at most rate * t + burst, and not much less."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.quota.pacing import LATENESS, TOKEN_BURST, Bucket, Headroom, Pacer, Quota

costs = st.lists(st.floats(0.1, 20.0), min_size=1, max_size=60)
pauses = st.lists(st.floats(0.0, 5.0), min_size=60, max_size=60)


def send(bucket: Bucket, costs: list[float], pauses: list[float]) -> list[tuple[float, float]]:
    """Send everything as early as the bucket allows, after a pause before each."""
    now, sent = 0.0, []
    for cost, pause in zip(costs, pauses, strict=False):
        now = max(now + pause, bucket.ready(cost, now + pause))
        bucket.spend(cost, now)
        sent.append((now, cost))
    return sent


@given(rate=st.floats(0.1, 50.0), burst=st.floats(1.0, 10.0), costs=costs, pauses=pauses)
def test_no_window_sees_more_than_rate_burst_and_one_oversized_call(
    rate: float, burst: float, costs: list[float], pauses: list[float]
) -> None:
    sent = send(Bucket(rate, burst), costs, pauses)
    for begin in range(len(sent)):
        for end in range(begin, len(sent)):
            seconds = sent[end][0] - sent[begin][0]
            total = sum(cost for _, cost in sent[begin : end + 1])
            # Where one is larger than the burst it goes at level 0 and stands for the burst.
            largest = max(cost for _, cost in sent[begin : end + 1])
            assert total <= rate * seconds + max(burst, largest) + 1e-5 * len(sent)


@given(rate=st.floats(0.1, 50.0), burst=st.floats(1.0, 10.0), costs=costs)
def test_with_work_at_all_times_the_rate_is_used_to_the_full(
    rate: float, burst: float, costs: list[float]
) -> None:
    sent = send(Bucket(rate, burst), costs, [0.0] * 60)
    seconds = sent[-1][0]
    assert seconds * rate <= sum(cost for _, cost in sent[:-1]) + 1e-5 * len(sent)


@given(
    rates=st.lists(st.floats(0.0, 20.0), min_size=2, max_size=12),
    pauses=st.lists(st.floats(0.0, 2.0), min_size=12, max_size=12),
)
def test_a_rate_that_changes_counts_from_then_on(rates: list[float], pauses: list[float]) -> None:
    bucket = Bucket(rates[0], 1.0)
    now, allowed, sent = 0.0, 1.0, 0
    for rate, pause in zip(rates, pauses, strict=False):
        bucket.set(rate, 1.0, now)
        end = now + pause
        while (at := bucket.ready(1.0, now)) <= end:
            bucket.spend(1.0, at)
            sent, now = sent + 1, at
        allowed, now = allowed + rate * pause, end
    assert sent <= allowed + 1e-6


def test_without_a_share_nothing_goes_not_even_the_first_call() -> None:
    fresh = Pacer(Quota(600.0, 60_000.0), 0.0)
    fresh.grant(0.0, 1.0, 1.0, 0.0)
    assert fresh.ready(100.0, 1000.0) == inf
    pacer = Pacer(Quota(600.0, 60_000.0), 0.0)
    pacer.grant(1.0, 1.0, 1.0, 0.0)
    pacer.spend(100.0, 0.0)
    pacer.grant(0.0, 1.0, 1.0, 0.0)
    assert pacer.ready(100.0, 1000.0) == inf


def test_both_limits_hold() -> None:
    pacer = Pacer(Quota(requests_per_minute=600.0, tokens_per_minute=6_000.0), 0.0)
    pacer.grant(0.5, 1.0, 1.0, 0.0)
    pacer.spend(50.0, 0.0)  # a whole second of tokens at half the quota
    assert pacer.ready(1.0, 0.0) == pytest.approx(0.15)  # 1.25 requests may go, at 5 a second
    assert pacer.ready(50.0, 0.0) == pytest.approx(1.0, abs=1e-6)
    pacer.correct(-50.0, 0.0)  # it turns out to have cost nothing
    assert pacer.ready(50.0, 0.0) == pytest.approx(0.0, abs=0.2)


def test_bursts_are_what_the_constants_say() -> None:
    pacer = Pacer(Quota(requests_per_minute=6_000.0, tokens_per_minute=60_000.0), 0.0)
    pacer.grant(1.0, 1.0, 1.0, 0.0)
    sent = 0
    while pacer.ready(1.0, 0.0) <= 0.0:
        pacer.spend(1.0, 0.0)
        sent += 1
    assert sent == int(1 + 100 * LATENESS)
    assert pacer.ready(1000 * TOKEN_BURST, 0.0) > 0.0


@given(st.integers(0, 3), st.lists(st.booleans(), min_size=1, max_size=400))
def test_headroom_stays_within_bounds(start: int, passed: list[bool]) -> None:
    room = Headroom(0.3 * (start + 1) / 4)
    for now, ok in enumerate(passed):
        if ok:
            room.passed()
        else:
            room.refused(now, now)
        assert Headroom.FLOOR <= room.value <= Headroom.CEILING


def test_headroom_settles_at_one_refusal_in_a_hundred() -> None:
    """A service that lets 94% through: the refusals come to GAIN / LOSS."""
    room, refused, sent = Headroom(0.005), 0, 20_000
    debt = 0.0
    for now in range(sent):
        debt = max(0.0, debt + room.value - 0.94)
        if debt >= 1.0:
            debt -= 1.0
            refused += 1
            room.refused(now, now)
        else:
            room.passed()
    assert 0.002 < refused / sent < 0.015
    assert room.value == pytest.approx(0.95, abs=0.03)


def test_headroom_comes_back_within_minutes_after_a_storm() -> None:
    room = Headroom(0.005)
    for now in range(2_000):
        room.refused(now, now)
    assert room.value == pytest.approx(Headroom.FLOOR, rel=0.05)
    for _ in range(6_000):  # six minutes at 1,000 a minute
        room.passed()
    assert room.value > 0.9


def test_refusals_of_one_flight_count_once() -> None:
    room = Headroom(0.5)
    for _ in range(10):
        room.refused(sent=1.0, now=2.0)
    assert room.value == pytest.approx(Headroom.START / 2)


def test_what_the_ledger_was_told_is_not_counted_twice() -> None:
    room = Headroom(0.1)
    room.refused(0.0, 1.0)
    told = room.factor
    room.refused(2.0, 3.0)  # while the ledger was being written
    room.learned(Headroom.START * told, told)
    assert room.value == pytest.approx(Headroom.START * 0.9 * 0.9)
