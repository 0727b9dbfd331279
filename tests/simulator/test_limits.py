"""The quotas of the simulator: tumbling windows, judged at admission."""

from collections import Counter
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.endpoint.limits import Limits, Quota

transitions = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 90)), max_size=120)


def test_a_thousand_a_minute_is_sixteen_a_second() -> None:
    quota = Quota(Limits(requests_per_minute=1_000, window=1))
    causes = [quota.admit(0.5, 1) for _ in range(17)]
    assert [cause is None for cause in causes] == [True] * 16 + [False]
    refused = causes[-1]
    assert refused is not None
    assert (refused.cause, refused.limit, refused.wait) == ("requests", 16, 0.5)
    assert quota.admit(1.0, 1) is None


@pytest.mark.parametrize(("window", "passing"), [(1, 16), (10, 166), (60, 1_000)])
def test_the_window_decides_where_it_floors(window: int, passing: int) -> None:
    assert Limits(requests_per_minute=1_000, window=window).requests_per_window == passing


def test_a_quota_too_small_for_its_window_is_judged_by_the_minute() -> None:
    limits = Limits(requests_per_minute=15, window=1)
    assert (limits.request_window, limits.requests_per_window) == (60, 15)


@given(transitions, st.integers(1, 400), st.integers(50, 300), st.sampled_from([1, 10, 60]))
def test_no_window_ever_holds_more_than_its_limit(
    arrivals: list[tuple[float, int]], per_minute: int, tokens_per_minute: int, window: int
) -> None:
    limits = Limits(
        requests_per_minute=per_minute, tokens_per_minute=tokens_per_minute, window=window
    )
    quota = Quota(limits)
    requests: Counter[int] = Counter()
    tokens: Counter[int] = Counter()
    times = accumulate(gap for gap, _ in arrivals)
    for now, (_, size) in zip(times, arrivals, strict=True):
        turn, minute = int(now // limits.request_window), int(now // 60)
        fits = (
            requests[turn] < limits.requests_per_window
            and tokens[minute] + size <= tokens_per_minute
        )
        assert (quota.admit(now, size) is None) == fits
        if fits:
            requests[turn] += 1
            tokens[minute] += size
    assert all(count <= limits.requests_per_window for count in requests.values())


def test_a_refused_request_costs_nothing() -> None:
    quota = Quota(Limits(tokens_per_minute=100))
    assert quota.admit(0, 60) is None
    refused = quota.admit(1, 60)
    assert refused is not None
    assert (refused.cause, refused.used, refused.asked, refused.wait) == ("tokens", 60, 60, 59)
    assert quota.admit(2, 40) is None


def test_a_day_begins_again_after_a_day() -> None:
    quota = Quota(Limits(requests_per_day=1))
    assert quota.admit(100, 1) is None
    refused = quota.admit(86_399, 1)
    assert refused is not None
    assert (refused.cause, refused.wait) == ("day", 1)
    assert quota.admit(86_400, 1) is None


def test_only_what_is_in_flight_counts_against_concurrency() -> None:
    quota = Quota(Limits(max_concurrency=2))
    assert quota.admit(0, 1) is None
    assert quota.admit(0, 1) is None
    refused = quota.admit(0, 1)
    assert refused is not None
    assert refused.cause == "concurrency"
    quota.release()
    assert quota.admit(0, 1) is None


def test_a_request_larger_than_one_may_be_never_passes() -> None:
    refused = Quota(Limits(max_tokens_per_request=10)).admit(0, 11)
    assert refused is not None
    assert refused.cause == "size"


def test_changed_limits_keep_what_was_counted() -> None:
    quota = Quota(Limits(requests_per_minute=600, tokens_per_minute=100))
    assert quota.admit(0, 80) is None
    quota.change(Limits(requests_per_minute=600, tokens_per_minute=120))
    assert quota.admit(0, 50) is not None
    assert quota.admit(0, 40) is None


def test_remaining_is_what_still_passes_in_this_window() -> None:
    quota = Quota(Limits(requests_per_minute=120, tokens_per_minute=100))
    quota.admit(0.25, 30)
    left = quota.remaining(0.25)
    assert (left.requests, left.tokens) == (1, 70)
    assert (left.requests_reset, left.tokens_reset) == (0.75, 59.75)
    assert quota.remaining(61).tokens == 100


@pytest.mark.parametrize(("name", "value"), [("window", 7), ("tokens_per_minute", -1)])
def test_limits_that_no_service_has_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})
