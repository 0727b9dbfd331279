"""Sketches: adding them is exact in any order, and quantiles are off by a percent at most."""

import math

from hypothesis import given
from hypothesis import strategies as st

from schemas.sketches import bucket_of, merged, quantiles, sketch_of

TIMES = st.lists(st.floats(0.0, 40 * 86400.0), max_size=60)
Times = list[float]
SHARES = (0.1, 0.5, 0.95, 0.99, 1.0)


@given(TIMES, TIMES, TIMES)
def test_sketches_add_up_in_any_order(
    one: list[float], two: list[float], three: list[float]
) -> None:
    a, b, c = map(sketch_of, (one, two, three))
    whole = sketch_of([*one, *two, *three])
    assert merged(merged(a, b), c) == whole
    assert merged(c, merged(b, a)) == whole
    assert merged(merged(c, a), b) == whole
    assert sum(whole.values()) == len(one) + len(two) + len(three)


@given(st.lists(st.floats(0.001, 30 * 86400.0), min_size=1, max_size=80))
def test_a_quantile_is_off_by_a_percent_at_most(times: list[float]) -> None:
    ordered = sorted(times)
    for share, told in zip(SHARES, quantiles(sketch_of(times), SHARES), strict=True):
        exact = ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]
        assert abs(told - exact) <= max(0.01 * exact, 0.0005) + 1e-9


def test_nothing_has_no_quantiles() -> None:
    assert quantiles({}, SHARES) == ()


def test_what_is_too_short_or_too_long_has_a_bucket() -> None:
    assert [bucket_of(each) for each in (0.0, 0.0005, 0.001, 1e12)] == [0, 0, 0, 1100]
    assert quantiles({5000: 1}, (0.5,)) == quantiles({1100: 1}, (0.5,))
