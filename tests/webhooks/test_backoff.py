"""When a receiver is tried again, and when it is given up."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.webhooks import Reception
from workers.webhooks.backoff import (
    DAY_SECONDS,
    LONGEST_SECONDS,
    Delivered,
    GivenUp,
    Later,
    judge,
)

SINCE = 1_800_000_000.0
FAILURES = st.builds(
    Reception,
    st.one_of(st.none(), st.sampled_from([301, 302, 400, 404, 429, 500, 503])),
    st.one_of(st.none(), st.floats(0.0, DAY_SECONDS)),
)


def story(*receptions: Reception, seed: int = 0) -> list[float]:
    """When each try is made, from the first until it is given up; the last reception stays."""
    now, tries, rng = SINCE, 1, Random(seed)
    times = [now]
    while True:
        reception = receptions[min(tries, len(receptions)) - 1]
        sequel = judge(reception, tries=tries, since=SINCE, now=now, rng=rng)
        if not isinstance(sequel, Later):
            return times
        assert sequel.at > now
        now, tries = sequel.at, tries + 1
        times.append(now)


@given(st.lists(FAILURES, min_size=1, max_size=40), st.integers(0, 99))
def test_a_receiver_that_refuses_is_tried_for_a_day_and_not_for_ever(
    refusals: list[Reception], seed: int
) -> None:
    times = story(*refusals, seed=seed)
    assert times[-1] == SINCE + DAY_SECONDS
    assert 2 <= len(times) < 40


def test_tries_come_soon_at_first_and_then_every_two_hours() -> None:
    times = story(Reception(500))
    gaps = [after - before for before, after in pairwise(times)]
    assert 4.0 <= gaps[0] <= 6.0
    assert 16.0 <= gaps[1] <= 24.0
    assert max(gaps) <= 1.2 * LONGEST_SECONDS
    assert 15 <= len(times) <= 22


def test_receivers_that_fail_together_do_not_come_back_together() -> None:
    assert len({story(Reception(500), seed=seed)[1] for seed in range(20)}) == 20


@given(st.floats(0.0, DAY_SECONDS))
def test_a_receiver_is_not_asked_before_it_wants_to_be(wait: float) -> None:
    asked = Reception(503, retry_after=wait)
    sequel = judge(asked, tries=1, since=SINCE, now=SINCE, rng=Random(1))
    assert isinstance(sequel, Later)
    assert sequel.at >= SINCE + min(wait, DAY_SECONDS)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_success_is_one(status: int) -> None:
    reception = Reception(status)
    assert judge(reception, tries=1, since=SINCE, now=SINCE, rng=Random()) == Delivered()


def test_one_that_wants_no_more_is_given_up_at_once() -> None:
    gone = judge(Reception(410), tries=1, since=SINCE, now=SINCE, rng=Random())
    assert isinstance(gone, GivenUp)
    assert "410" in gone.why


def test_the_log_is_told_what_the_receiver_did() -> None:
    late = SINCE + DAY_SECONDS
    for reception, said in (
        (Reception(302), "it answers 302, for a day"),
        (
            Reception(None, why="it does not answer in time"),
            "it does not answer in time, for a day",
        ),
    ):
        assert judge(reception, tries=9, since=SINCE, now=late, rng=Random()) == GivenUp(said)
