"""What follows from an outcome, how long to wait, and how much retrying a service is spared."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.outcomes import Limit, Outcome, OutcomeKind
from workers.dispatch.retries import (
    BASE,
    JITTER,
    LONGEST,
    LONGEST_DAY,
    LONGEST_HINT,
    LONGEST_UNTOLD,
    UNTOLD,
    Budget,
    backoff,
    hint,
    step,
)


def throttled(limit: Limit | None, after: float | None) -> Outcome:
    return Outcome(kind="throttled", status=429, limit=limit, retry_after=after)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ok", "final"),
        ("content_filter", "final"),
        ("bad_request", "final"),
        ("throttled", "postpone"),
        ("auth", "elsewhere"),
        ("gone", "elsewhere"),
        ("transient", "retry"),
        ("timeout", "retry"),
    ],
)
def test_every_kind_has_its_step(kind: OutcomeKind, expected: str) -> None:
    assert step(Outcome(kind=kind)) == expected


@given(st.integers(0, 1000), st.integers())
def test_backoff_is_full_jitter_with_a_ceiling(failures: int, seed: int) -> None:
    wait = backoff(failures, Random(seed))
    assert 0.0 <= wait <= min(LONGEST, BASE * 2.0 ** min(failures, 10))


def test_backoff_spreads_over_the_whole_range() -> None:
    rng = Random(1)
    waits = [backoff(3, rng) for _ in range(2000)]
    assert min(waits) < 0.1 * BASE * 8
    assert max(waits) > 0.9 * BASE * 8


@given(st.sampled_from(["requests", "tokens", None]), st.floats(0.0, LONGEST_HINT))
def test_a_hint_that_makes_sense_is_followed(limit: Limit | None, after: float) -> None:
    assert after <= hint(throttled(limit, after), 1, Random(0)) <= after + JITTER


@given(
    st.one_of(
        st.tuples(
            st.sampled_from(["requests", "tokens", "concurrency"]),
            st.none() | st.floats(LONGEST_HINT + 1, 1e9),
        ),
        st.tuples(st.none(), st.none() | st.floats(LONGEST_DAY + 1, 1e9)),
    ),
    st.integers(1, 100),
)
def test_a_hint_that_is_missing_or_absurd_is_replaced(
    told: tuple[Limit | None, float | None], refusals: int
) -> None:
    limit, after = told
    wait = hint(throttled(limit, after), refusals, Random(0))
    assert 1.0 <= wait <= LONGEST_UNTOLD + JITTER
    assert wait >= hint(throttled(limit, after), refusals - 1, Random(0)) - JITTER


@given(st.floats(LONGEST_HINT + 1, LONGEST_DAY), st.integers(1, 100))
def test_a_long_hint_for_no_limit_by_name_is_tried_and_never_believed_for_long(
    after: float, refusals: int
) -> None:
    """It may be a mistake about a minute's quota, and it may be the truth about a day's."""
    assert hint(throttled(None, after), 1, Random(0)) <= UNTOLD["requests"] + JITTER
    wait = hint(throttled(None, after), refusals, Random(0))
    assert wait <= min(after, UNTOLD["day"]) + JITTER
    assert wait >= hint(throttled(None, after), refusals - 1, Random(0)) - JITTER
    assert hint(throttled(None, after), 20, Random(0)) >= min(after, UNTOLD["day"])


def test_a_day_limit_may_ask_for_hours() -> None:
    assert hint(throttled("day", 11_000.0), 1, Random(0)) >= 11_000.0


@pytest.mark.parametrize("after", [None, LONGEST_DAY + 1, 1e7])
def test_a_day_limit_without_a_hint_that_makes_sense_is_asked_every_quarter_of_an_hour(
    after: float | None,
) -> None:
    for refusals in (1, 100):
        wait = hint(throttled("day", after), refusals, Random(0))
        assert UNTOLD["day"] <= wait <= UNTOLD["day"] + JITTER


@given(st.lists(st.tuples(st.sampled_from(["ok", "fails", "passes"]), st.floats(0.0, 2.0))))
def test_retries_that_fail_are_a_tenth_and_a_trickle(calls: list[tuple[str, float]]) -> None:
    budget, now, in_vain, good = Budget(), 0.0, 0, 0
    for what, pause in calls:
        now += pause
        if what == "ok":
            budget.succeeded()
            good += 1
        elif budget.wait(now) == 0.0:
            budget.spend()
            if what == "passes":
                budget.give_back()
            else:
                in_vain += 1
    assert in_vain <= 10 + Budget.RATIO * good + Budget.TRICKLE * now + 1e-6


def test_a_budget_that_is_spent_comes_back_by_success_or_time() -> None:
    budget = Budget()
    for _ in range(10):
        assert budget.wait(0.0) == 0.0
        budget.spend()
    assert budget.wait(0.0) == pytest.approx(2.0)
    assert budget.wait(1.0) == pytest.approx(1.0)
    for _ in range(6):
        budget.succeeded()
    assert budget.wait(1.0) == 0.0


def test_a_retry_waits_for_what_the_server_asks_if_that_makes_sense() -> None:
    waits = [backoff(1, Random(seed), 30.0) for seed in range(50)]
    assert 30.0 <= min(waits) <= max(waits) <= 30.0 + JITTER
    assert backoff(1, Random(1), 86_400.0) == backoff(1, Random(1))
