"""How a job went over time, of its receipts: exact, the same in any order, and bounded."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.history import MOST_BYTES, Sample
from schemas.money import MILLION, PinnedPrice
from schemas.outcomes import Usage
from schemas.results import CallRecord, Interval
from schemas.sketches import coarse, quantiles
from workers.jobs.costs import cost_of
from workers.jobs.pace import SAMPLES_OF_AGE
from workers.jobs.series import MOST, Series, samples_of
from workers.jobs.store import dump
from workers.rows.writing import RowResult, sums_of

BEGIN = 180_000_000  # tens of seconds since the epoch
PRICES = {"phi": PinnedPrice(input=130_000, output=520_000, currency="USD")}

intervals = st.builds(
    Interval,
    succeeded=st.integers(0, 200),
    failed=st.integers(0, 9),
    prompt_tokens=st.integers(0, 10_000),
    completion_tokens=st.integers(0, 10_000),
    calls=st.integers(0, 300),
    refusals=st.integers(0, 100),
    cost=st.integers(0, 10**12),
    latency=st.dictionaries(st.integers(1, 1100).map(coarse), st.integers(1, 200), max_size=5),
)
receipts = st.dictionaries(
    st.one_of(st.integers(0, 50), st.integers(0, 260_000)).map(lambda at: BEGIN + at),
    intervals,
    max_size=6,
)


def whole(told: Sequence[Mapping[int, Interval]]) -> Series:
    series = Series()
    for each in told:
        series.add(each)
    return series


@pytest.mark.slow
@given(st.lists(receipts, max_size=8), st.randoms())
def test_receipts_add_up_to_the_same_in_any_order(
    told: list[dict[int, Interval]], rng: Random
) -> None:
    one = whole(told)
    shuffled = rng.sample(told, len(told))
    other = whole(shuffled)
    assert one.width == other.width
    assert one.intervals == other.intervals
    assert len(one.intervals) <= MOST
    for name in ("succeeded", "failed", "prompt_tokens", "calls", "refusals", "cost"):
        true = sum(getattr(each, name) for part in told for each in part.values())
        assert sum(getattr(each, name) for each in one.intervals.values()) == true
    latency: Counter[int] = Counter()
    for part in told:
        for each in part.values():
            latency.update(each.latency)
    assert sum((each.latency for each in one.intervals.values()), Counter()) == latency


@pytest.mark.slow
@given(st.lists(receipts, min_size=1, max_size=8))
def test_samples_go_up_to_the_sums_of_all(told: list[dict[int, Interval]]) -> None:
    found = samples_of(whole(told), priced=True, started=None, done=None)
    every = [each for part in told for each in part.values()]
    if not every:
        assert found == ()
        return
    last = found[-1]
    assert last.succeeded == sum(each.succeeded for each in every)
    assert last.errors == sum(each.failed for each in every)
    assert last.calls == sum(each.calls for each in every)
    assert found[0].model_copy(update={"at": 0.0}) == Sample(at=0.0, cost="0.000000")
    assert all(to.at > before.at for before, to in pairwise(found))


@pytest.mark.slow
@given(
    st.lists(receipts.filter(bool), min_size=1, max_size=4),
    st.floats(-30.0, 60.0),
    st.floats(0.01, 300.0),
)
def test_no_rate_is_reckoned_of_time_in_which_there_was_no_job(
    told: list[dict[int, Interval]], behind: float, beyond: float
) -> None:
    """The highest rate is the average at least, and all rates in their times are what happened."""
    series = whole(told)
    first, last = min(series.intervals), max(series.intervals)
    started = 10.0 * first * series.width + behind
    done = max(started, 10.0 * last * series.width) + beyond
    found = samples_of(series, priced=True, started=started, done=done)
    assert (found[0].at, found[-1].at) == pytest.approx((started, done), abs=0.0011)
    assert found[0].model_copy(update={"at": 0.0}) == Sample(at=0.0, cost="0.000000")
    every = [each for part in told for each in part.values()]
    for name, told_as in (("succeeded", "succeeded"), ("failed", "errors"), ("refusals",) * 2):
        count = sum(getattr(each, name) for each in every)
        steps = [
            (getattr(to, told_as) - getattr(before, told_as), to.at - before.at)
            for before, to in pairwise(found)
        ]
        assert all(seconds > 0.0 for _, seconds in steps)
        assert sum(rows for rows, _ in steps) == count
        highest = max(rows / seconds for rows, seconds in steps)
        assert highest >= count / (found[-1].at - found[0].at) * (1.0 - 1e-9)


def test_a_short_job_is_as_fast_as_it_was() -> None:
    """Forty rows in 8.5 s, in two intervals of the clock, neither of which it filled."""
    at = 10.0 * BEGIN
    series = whole([{BEGIN: Interval(succeeded=28), BEGIN + 1: Interval(succeeded=12)}])
    found = samples_of(series, priced=False, started=at + 6.0, done=at + 14.5)
    assert [(each.at - at, each.succeeded) for each in found] == [(6.0, 0), (10.0, 28), (14.5, 40)]


def test_what_lies_in_a_sliver_of_an_interval_counts_with_its_neighbour() -> None:
    """One row within 0.01 s is no hundred a second."""
    at = 10.0 * BEGIN
    told = {BEGIN: 3, BEGIN + 1: 90, BEGIN + 2: 80, BEGIN + 3: 1}
    series = whole([{number: Interval(succeeded=rows) for number, rows in told.items()}])
    found = samples_of(series, priced=False, started=at + 9.5, done=at + 30.125)
    told_at = [(each.at - at, each.succeeded) for each in found]
    assert told_at == [(9.5, 0), (20.0, 93), (30.125, 174)]
    short = whole([{BEGIN: Interval(succeeded=3), BEGIN + 1: Interval(succeeded=1)}])
    found = samples_of(short, priced=False, started=at + 9.5, done=at + 10.5)
    assert [(each.at - at, each.succeeded) for each in found] == [(9.5, 0), (10.5, 4)]


def test_what_clocks_put_outside_of_a_job_counts_with_what_is_next_to_it() -> None:
    at = 10.0 * BEGIN
    one = Interval(succeeded=1)
    series = whole([{BEGIN - 3: one, BEGIN: one, BEGIN + 1: one, BEGIN + 2: one}])
    found = samples_of(series, priced=False, started=at + 4.0, done=at + 20.0)
    assert [(each.at - at, each.succeeded) for each in found] == [(4.0, 0), (10.0, 2), (20.0, 4)]


def test_a_job_of_no_length_has_its_sums_and_no_rate() -> None:
    at = 10.0 * BEGIN
    found = samples_of(whole([{BEGIN: Interval(succeeded=3)}]), priced=False, started=at, done=at)
    assert [(each.at, each.succeeded) for each in found] == [(at, 3)]


def test_a_long_time_after_the_last_answer_is_told_as_one_in_which_nothing_happened() -> None:
    at = 10.0 * BEGIN
    series = whole([{BEGIN: Interval(succeeded=50)}])
    long = samples_of(series, priced=False, started=at, done=at + 3600.0)
    assert [(each.at - at, each.succeeded) for each in long] == [(0.0, 0), (10.0, 50), (3600.0, 50)]
    short = samples_of(series, priced=False, started=at, done=at + 10.5)
    assert [(each.at - at, each.succeeded) for each in short] == [(0.0, 0), (10.5, 50)]


@pytest.mark.slow
def test_a_month_of_ten_million_rows_keeps_less_than_a_megabyte() -> None:
    """Forty thousand receipts of two minutes each, with answers of every length."""
    rng = Random(7)
    month, series = 30 * 8640, Series()
    made = [
        Interval(
            succeeded=21,
            prompt_tokens=10**7,
            completion_tokens=10**7,
            calls=10**6,
            refusals=10**6,
            cost=10**17,
            latency={coarse(rng.randint(0, 1100)): 21 for _ in range(3)},
        )
        for _ in range(500)
    ]
    for shard in range(40_000):
        first = BEGIN + month * shard // 40_000
        series.add({first + at: rng.choice(made) for at in range(12)})
    assert MOST / 2 < len(series.intervals) <= MOST
    assert sum(each.succeeded for each in series.intervals.values()) == 40_000 * 12 * 21
    started, done = 10 * BEGIN + 1.234567, 10 * (BEGIN + month) - 1.234567
    went = samples_of(series, priced=True, started=started, done=done)
    assert len(went) <= 2 * MOST
    longest = max(len(dump(each)) + 1 for each in went)
    # With the samples that were taken while it ran, of which an age has so many, and a few more.
    assert (2 * MOST + 9 * SAMPLES_OF_AGE) * longest < MOST_BYTES


def call(kind: str, seconds: float, waited: float = 0.0, tokens: int = 0) -> CallRecord:
    return CallRecord("phi", kind, None, waited, None, seconds, tokens, bool(tokens))  # type: ignore[arg-type]


def test_rows_count_when_they_ended_and_calls_when_they_did() -> None:
    at = 10.0 * BEGIN
    use = (call("throttled", 0.1), call("transient", 1.0, 9.0, 7), call("ok", 2.0, 4.0, 50))
    rows = [
        RowResult(0, "succeeded", Usage(30, 20), b"", use, at=at + 3.0),
        RowResult(1, "failed", Usage(), b"", (call("bad_request", 0.5),), ("x", 2), at=at + 12.0),
        RowResult(2, "cancelled", Usage(), b"", (), ("job_cancelled", 3)),
    ]
    found = sums_of(rows, PRICES)
    assert sorted(found.intervals) == [BEGIN - 2, BEGIN - 1, BEGIN, BEGIN + 1]
    first = found.intervals[BEGIN]
    assert (first.succeeded, first.calls, first.prompt_tokens, first.completion_tokens) == (
        1,
        1,
        30,
        20,
    )
    assert quantiles(first.latency, (1.0,))[0] == pytest.approx(2.0, rel=0.05)
    # The last call began at -3 s: the one before it ended then, and the 429 ten seconds earlier.
    assert found.intervals[BEGIN - 1].calls == 1
    assert found.intervals[BEGIN - 2].refusals == 1
    assert (found.intervals[BEGIN + 1].failed, found.intervals[BEGIN + 1].calls) == (1, 1)
    cost = sum(each.cost for each in found.intervals.values())
    assert cost == (57 - 20) * 130_000 + 20 * 520_000
    counted = cost_of(found.use, PRICES).counted
    assert float(counted) == pytest.approx(cost / MILLION / MILLION, abs=1e-6)


@given(st.integers(0, 1100))
def test_a_coarse_bucket_is_off_by_five_percent_at_most(bucket: int) -> None:
    (fine,), (rough,) = quantiles({bucket: 1}, (1.0,)), quantiles({coarse(bucket): 1}, (1.0,))
    assert rough == pytest.approx(fine, rel=0.05, abs=0.0006)
