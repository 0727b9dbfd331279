"""Without the ledger: a safe start, a climb that takes minutes, a fall at every refusal."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.quota.allowance import GROWTH, HORIZON, Allowance, Grant
from workers.quota.book import Wish
from workers.quota.cubic import BETA, RECOVERY, Cubic
from workers.quota.pacing import Quota
from workers.quota.weights import JobWeights


def test_it_starts_from_the_safe_share_and_climbs_within_minutes() -> None:
    cubic = Cubic(0.1, 0.0)
    assert cubic.share == 0.1
    cubic.passed(RECOVERY / 2)
    assert cubic.share <= 0.11
    cubic.passed(5 * RECOVERY)
    assert cubic.share == 1.0


def test_a_refusal_costs_a_part_that_comes_back_in_a_minute() -> None:
    cubic = Cubic(0.2, 0.0)
    cubic.refused(sent=1.0, now=2.0)
    assert cubic.share == pytest.approx(0.2 * BETA)
    cubic.passed(2.0 + RECOVERY)
    assert cubic.share == pytest.approx(0.2)
    cubic.passed(2.0 + 1.5 * RECOVERY)
    assert 0.2 < cubic.share < 0.22


def test_refusals_of_one_flight_count_once() -> None:
    cubic = Cubic(0.2, 0.0)
    for _ in range(50):
        cubic.refused(sent=1.0, now=2.0)
    assert cubic.share == pytest.approx(0.2 * BETA)


@pytest.mark.parametrize(("holders", "share"), [(1, 0.1), (8, 0.1), (32, 1 / 32)])
def test_many_that_lose_the_ledger_together_start_within_the_quota(
    holders: int, share: float
) -> None:
    mine = Allowance(Quota(1000.0, None, None), safe_share=0.1, midnight=inf, now=0.0)
    mine.fund(Grant(1.0 / holders, until=9.5, holders=holders), Wish(1.0, 1.0), inf, 0.0)
    mine.ledger_lost(9.0)
    assert mine.share == 1.0 / holders
    mine.ledger_lost(10.0)
    assert mine.share == pytest.approx(share)
    # Also those that had given their share back, or were waiting for a seat.
    mine.release()
    mine.ledger_lost(11.0)
    assert mine.share == pytest.approx(share)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 100.0)), max_size=200))
def test_the_share_stays_between_a_trickle_and_all(events: list[tuple[bool, float]]) -> None:
    cubic, now = Cubic(0.1, 0.0), 0.0
    for good, seconds in events:
        now += seconds
        if good:
            cubic.passed(now)
        else:
            cubic.refused(now, now)
        assert 0.01 <= cubic.share <= 1.0


def test_uncoordinated_processes_meet_few_refusals() -> None:
    """Eight of them at one quota, for an hour, each refused when all together exceed it."""
    processes = [Cubic(0.1, 0.0) for _ in range(8)]
    sent = refused = 0.0
    for now in range(3600):
        total = sum(each.share for each in processes)
        for number, each in enumerate(processes):
            sent += each.share
            if total > 1.0 and now % 8 == number:
                refused += total - 1.0
                each.refused(now, now)
            else:
                each.passed(now)
    assert refused / sent < 0.03
    assert sent / 3600 > 0.7


def after(spent: int, waiting: int, *, waited: int) -> float:
    """What is wanted of 1,000 requests a minute two seconds after `waited` calls waited."""
    mine = Allowance(Quota(1000.0, None, None), safe_share=0.1, midnight=inf, now=0.0)
    mine.wish(JobWeights({"job": 1.0}), waited, 0.0)
    for _ in range(spent):
        mine.spend(1.0, 1.0)
    return mine.wish(JobWeights({"job": 1.0}), waiting, 2.0).wants


def test_a_process_whose_calls_have_all_gone_wants_nothing() -> None:
    assert after(30, 0, waited=30) == 0.0


def test_a_process_wants_what_serves_the_calls_that_wait() -> None:
    assert after(20, 25, waited=45) == pytest.approx(25 / HORIZON / (1000 / 60))
    assert after(30, 500, waited=530) == 1.0


def test_a_process_wants_what_it_has_until_its_last_call_has_gone() -> None:
    mine = Allowance(Quota(1000.0, None, None), safe_share=0.1, midnight=inf, now=0.0)
    mine.fund(Grant(0.5, until=9.5), Wish(1.0, 1.0), inf, 0.0)
    asked = JobWeights({"job": 1.0})
    mine.wish(asked, 6, 0.0)
    for now, wants in ((1.0, 0.5), (2.0, 0.0)):
        for _ in range(3):
            mine.spend(1.0, now)
        assert mine.wish(asked, 6 - 3 * int(now), now).wants == wants


def test_a_process_whose_calls_wait_for_one_to_end_wants_little_more_than_went() -> None:
    mine = Allowance(Quota(1000.0, None, None), safe_share=0.1, midnight=inf, now=0.0)
    mine.fund(Grant(0.9, until=9.5), Wish(1.0, 1.0), inf, 0.0)
    asked = JobWeights({"job": 1.0})
    mine.wish(asked, 3000, 0.0)
    for _ in range(4):
        mine.spend(1.0, 1.0)
    assert mine.wish(asked, 3000, 2.0, full=True).wants == pytest.approx(GROWTH * 2 / (1000 / 60))
    # And enough for one, however long its answers take.
    assert mine.wish(asked, 3000, 2.5, full=True).wants == pytest.approx(1 / HORIZON / (1000 / 60))


def test_of_a_days_requests_alone_whoever_has_calls_wants_all() -> None:
    mine = Allowance(Quota(None, None, 1000), safe_share=0.1, midnight=inf, now=0.0)
    assert mine.wish(JobWeights({"job": 1.0}), 400, 1.0).wants == 1.0
    assert mine.wish(JobWeights({"job": 1.0}), 0, 2.0).wants == 0.0


def test_a_process_whose_calls_do_not_go_wants_no_more_for_what_it_has() -> None:
    mine = Allowance(Quota(1000.0, None, None), safe_share=0.1, midnight=inf, now=0.0)
    mine.fund(Grant(0.5, until=9.5), Wish(1.0, 1.0), inf, 0.0)
    mine.wish(JobWeights({"job": 1.0}), 3, 0.0)
    assert mine.wish(JobWeights({"job": 1.0}), 3, 1.0).wants == pytest.approx(0.06)


def test_a_process_whose_calls_come_one_by_one_wants_a_little_more_than_came() -> None:
    assert after(10, 0, waited=0) == pytest.approx(GROWTH * 5 / (1000 / 60))


def test_a_queue_that_is_filled_as_fast_as_it_is_served_wants_more_than_it_has() -> None:
    assert after(10, 15, waited=15) == pytest.approx((GROWTH * 5 + 15 / HORIZON) / (1000 / 60))
