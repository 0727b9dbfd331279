"""An outage opens the breaker, a probe closes it; the row's faults are told from the service's."""

from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.outcomes import Outcome, OutcomeKind
from workers.dispatch.breaker import (
    FIRST,
    GRACE,
    LONGEST,
    OWN,
    PROBE_EVERY,
    REFUSED_FIRST,
    VOUCHED,
    Breaker,
    Failure,
)


def failed(status: int | None = 503, kind: OutcomeKind = "transient") -> Outcome:
    return Outcome(kind=kind, status=status)


def opened(breaker: Breaker, now: float = 0.0) -> Breaker:
    for row in range(20):
        breaker.bad(failed(), row, job="job", sent=now, probe=False, now=now, rng=Random(1))
    return breaker


def test_a_run_of_failures_opens_it_and_some_do_not() -> None:
    breaker = Breaker()
    for row in range(5):
        breaker.bad(failed(), row, job="job", sent=1.0, probe=False, now=1.0, rng=Random(1))
    assert breaker.state == "closed"
    assert opened(breaker, 2.0).state == "open"
    assert breaker.ready(2.0) >= 2.0 + 0.9 * FIRST


def test_a_third_of_failures_does_not_open_it() -> None:
    breaker = Breaker()
    for call in range(3000):
        if call % 3 == 0:
            breaker.bad(
                failed(),
                call,
                job="job",
                sent=float(call),
                probe=False,
                now=float(call),
                rng=Random(1),
            )
        else:
            breaker.good(float(call))
        assert breaker.state == "closed"


def test_one_call_probes_and_the_others_wait_for_its_answer() -> None:
    breaker = opened(Breaker())
    now = breaker.open_until
    assert breaker.ready(now) == now
    assert breaker.admitted()
    assert breaker.ready(now) == inf
    breaker.good(now + 1.0)
    assert breaker.ready(now + 1.0) == now + 1.0
    assert not breaker.admitted()


def test_failed_probes_wait_ever_longer_up_to_a_minute() -> None:
    breaker, rng = opened(Breaker()), Random(1)
    waits = []
    for _ in range(8):
        now = breaker.open_until
        assert breaker.admitted()
        breaker.bad(failed(), 1, job="job", sent=now, probe=True, now=now, rng=rng)
        waits.append(breaker.open_until - now)
    assert waits[0] == pytest.approx(2 * FIRST, rel=0.11)
    assert waits[-1] == pytest.approx(LONGEST, rel=0.11)


@pytest.mark.parametrize("kind", ["transient", "auth"])
def test_who_tries_too_early_makes_the_pause_no_longer(kind: OutcomeKind) -> None:
    breaker, rng = opened(Breaker()), Random(1)
    for _ in range(3):
        now = breaker.open_until
        assert breaker.admitted()
        breaker.bad(failed(), 1, job="job", sent=now, probe=True, now=now, rng=rng)
    until, lasts = breaker.open_until, breaker.open_until - now
    for early in (now + 1.0, now + 5.0, now + 9.0):
        breaker.retry(early)
        assert breaker.ready(early) == early
        assert breaker.admitted()
        breaker.bad(
            failed(kind=kind), 1, job="job", sent=early, probe=True, now=early + 0.5, rng=rng
        )
        assert breaker.ready(early + 0.5) == until
    # The probe that was due anyway counts as ever, and so does the next outage.
    assert breaker.admitted()
    breaker.bad(failed(), 1, job="job", sent=until, probe=True, now=until, rng=rng)
    assert breaker.open_until - until == pytest.approx(min(LONGEST, 2 * lasts), rel=0.25)
    breaker.retry(until + 1.0)
    assert breaker.admitted()
    breaker.good(until + 1.0)
    assert opened(breaker, until + 2.0).admitted()
    breaker.bad(failed(), 1, job="job", sent=until + 8.0, probe=True, now=until + 8.0, rng=rng)
    assert breaker.open_until == pytest.approx(until + 8.0 + 2 * FIRST, abs=1.1)


def test_late_failures_of_the_same_flight_do_not_prolong_it() -> None:
    breaker = opened(Breaker())
    until = breaker.open_until
    breaker.bad(failed(), 99, job="job", sent=1.0, probe=False, now=1.0, rng=Random(1))
    assert breaker.open_until == until


def test_a_probe_that_is_given_up_lets_the_next_one_probe() -> None:
    breaker = opened(Breaker())
    assert breaker.admitted()
    breaker.abandoned()
    assert breaker.ready(breaker.open_until) == breaker.open_until
    assert breaker.admitted()


@pytest.mark.parametrize("kind", ["auth", "gone"])
def test_a_refused_key_or_a_missing_deployment_stops_it_at_once(kind: OutcomeKind) -> None:
    breaker = Breaker()
    breaker.bad(failed(401, kind), 1, job="job", sent=0.0, probe=False, now=0.0, rng=Random(1))
    assert breaker.ready(0.0) >= 0.9 * REFUSED_FIRST
    assert breaker.said == kind


def fails(
    breaker: Breaker, row: int, sent: float, at: float, outcome: Outcome | None = None
) -> Failure:
    return breaker.bad(
        outcome or failed(), row, job="job", sent=sent, probe=False, now=at, rng=Random(1)
    )


@given(st.integers(2, 50), st.sampled_from([None, 500, 502, 503, 504]))
def test_an_outage_burns_nobodys_attempts(rows: int, status: int | None) -> None:
    breaker = Breaker()
    breaker.good(0.0)
    first = fails(breaker, 0, 1.0, 2.0)
    failures = [fails(breaker, row, 1.0, 2.0, failed(status)) for row in range(1, rows)]
    for sent in (0.5, 0.9):
        breaker.good(sent)  # sent before the outage, answered within it
    breaker.home(1.5)  # a gateway's 429
    breaker.good(2.0 + GRACE + 0.1)  # it is over
    assert not any(failure.counts for failure in (first, *failures))


def test_answers_of_the_time_before_do_not_close_it() -> None:
    breaker = Breaker()
    for row in range(20):
        fails(breaker, row, 10.0 + row / 100, 10.1 + row / 100)
    for call in range(100):
        breaker.good(call / 10)
    assert breaker.ready(11.0) == breaker.open_until
    assert breaker.admitted()
    breaker.good(breaker.open_until)
    assert not breaker.admitted()


def test_a_row_that_fails_at_once_is_to_blame_when_slower_answers_come() -> None:
    breaker = Breaker()
    failure = fails(breaker, 1, 5.0, 5.1)
    breaker.good(4.9)
    assert not failure.counts
    breaker.good(5.5)
    assert failure.counts


def test_a_row_that_fails_late_is_to_blame_when_others_were_answered_meanwhile() -> None:
    breaker = Breaker()
    breaker.good(50.0)
    assert fails(breaker, 1, 5.0, 125.0).counts


@pytest.mark.parametrize(
    ("status", "counts"), [(500, True), (424, True), (200, True), (503, False), (None, False)]
)
def test_a_row_alone_is_to_blame_for_what_a_row_can_cause(status: int | None, counts: bool) -> None:
    breaker = Breaker()
    for at in (1.0, 2.0, 3.0):
        assert fails(breaker, 1, at, at, failed(status)).counts is counts


def test_a_row_alone_that_times_out_is_to_blame() -> None:
    assert fails(Breaker(), 1, 1.0, 2.0, failed(None, "timeout")).counts


def crash(breaker: Breaker, row: object, at: float, status: int = 500, job: str = "job") -> Failure:
    return breaker.bad(
        failed(status), row, job=job, sent=at, probe=False, now=at + 1.0, rng=Random(1)
    )


def test_an_answer_to_our_own_call_holds_against_rows_what_failed_just_before() -> None:
    breaker = Breaker()
    crash(breaker, "first", 90.0)
    early, late = crash(breaker, "early", 100.0), crash(breaker, "late", 140.0)
    gateway = crash(breaker, "gateway", 141.0, status=502)
    slow = failed(None, "timeout")
    hung = breaker.bad(slow, "hung", job="job", sent=140.0, probe=False, now=143.0, rng=Random(1))
    assert breaker.doubts(late, 144.0)
    assert not breaker.doubts(gateway, 144.0)
    assert not breaker.doubts(hung, 144.0)
    breaker.vouched(145.0)
    assert (late.counts, late.evidence) == (True, VOUCHED)
    assert not early.counts
    assert not gateway.counts
    assert not hung.counts
    assert breaker.state == "closed"


def test_two_answers_in_a_row_hold_against_rows_all_that_failed_between_them_and_after() -> None:
    breaker = Breaker()
    breaker.vouched(100.0)
    between = [crash(breaker, row, 110.0 + row) for row in range(20)]
    assert not any(failure.counts for failure in between[1:])
    breaker.vouched(165.0)
    assert all(failure.counts for failure in between)
    after = [crash(breaker, row, 170.0 + row) for row in range(20)]
    assert all(failure.evidence == VOUCHED for failure in after)
    assert breaker.state == "closed"


def test_what_is_known_of_one_job_s_rows_is_held_against_no_other_s() -> None:
    breaker = Breaker()
    breaker.heard(True, 100.0, 101.0)
    crash(breaker, "row", 110.0)
    breaker.heard(True, 166.0, 167.0)
    assert crash(breaker, "row", 168.0).evidence == VOUCHED
    outage = [crash(breaker, row, 170.0 + row / 10, job="other") for row in range(20)]
    assert not any(failure.counts for failure in outage[1:])
    assert breaker.state == "open"


def test_an_answer_from_before_a_call_of_our_own_that_failed_says_nothing_more() -> None:
    breaker = Breaker()
    breaker.heard(True, 100.0, 101.0)
    crash(breaker, OWN, 166.0)
    breaker.heard(True, 100.0, 168.0)  # read again where storage lags
    crash(breaker, "one", 170.0)
    crash(breaker, "two", 171.0)
    breaker.heard(True, 232.0, 233.0)
    assert crash(breaker, "two", 234.0).evidence == ""


@pytest.mark.parametrize("what", ["a row is answered", "our own call fails", "much time passes"])
def test_what_ends_that(what: str) -> None:
    breaker = Breaker()
    breaker.vouched(100.0)
    breaker.vouched(160.0)
    now = 165.0
    if what == "a row is answered":
        breaker.good(164.0)
    elif what == "our own call fails":
        crash(breaker, OWN, 164.0)
    else:
        now = 160.0 + 4.0 * PROBE_EVERY
    crash(breaker, "other", now)
    assert crash(breaker, "row", now).evidence == ""


def test_rows_that_failed_by_themselves_make_nobody_guilty_of_an_outage() -> None:
    breaker = Breaker()
    breaker.vouched(100.0)
    for row in range(20):
        crash(breaker, ("poisoned", row), 110.0 + row)
    breaker.vouched(165.0)
    outage = 165.0 + 4.0 * PROBE_EVERY
    for row in range(20):
        crash(breaker, ("poisoned", row), outage)
    failures = [crash(breaker, row, outage + row) for row in range(20)]
    # The first is alone among those that were not known to fail by themselves.
    assert [failure.counts for failure in failures] == [True] + [False] * 19


def test_no_call_of_our_own_goes_before_its_time() -> None:
    breaker = Breaker()
    crash(breaker, "other", 0.0)
    failure = crash(breaker, "row", 0.0)
    assert breaker.doubts(failure, 1.0)
    breaker.put_off(500.0)
    assert not breaker.doubts(failure, 499.0)
    assert breaker.doubts(failure, 500.0)


OFF = 9.0
"""Seconds by which what another process was answered may be taken for older than it is."""

told = st.tuples(st.booleans(), st.floats(62.0, 180.0), st.floats(0.0, OFF), st.integers(1, 4))


@given(st.lists(told, max_size=8), st.randoms())
def test_two_answers_in_a_row_to_whomever_show_that_rows_fail_by_themselves(
    verdicts: list[tuple[bool, float, float, int]], rng: Random
) -> None:
    """However often each is heard of, and however wrong its time is."""
    breaker, sent, in_a_row = Breaker(), 1000.0, 0
    for number, (answered, gap, off, times) in enumerate(verdicts):
        sent += gap
        in_a_row = in_a_row + 1 if answered else 0
        for _ in range(times):
            breaker.heard(answered, sent - min(OFF, off + rng.random()), sent + 1.0)
        for row in range(3):
            failure = crash(breaker, (number, row), sent + 2.0)
            assert (failure.evidence == VOUCHED) is (in_a_row >= 2)


@given(st.floats(0.0, OFF), st.floats(0.1, 60.0))
def test_what_fails_between_two_answers_to_others_is_held_against_rows_and_nothing_later(
    off: float, after: float
) -> None:
    breaker = Breaker()
    breaker.heard(True, 100.0 - off, 101.0)
    between = [crash(breaker, row, 110.0 + row) for row in range(20)]
    later = crash(breaker, "later", 166.0 + after)
    assert not any(failure.evidence for failure in (*between, later))
    breaker.heard(True, 166.0 - off, 170.0 + after)
    assert all(failure.evidence == VOUCHED for failure in between)
    assert not later.evidence


@pytest.mark.parametrize("what", ["a row is answered", "another's call fails", "ours fails"])
def test_what_ends_that_of_others(what: str) -> None:
    breaker = Breaker()
    breaker.heard(True, 100.0, 101.0)
    breaker.heard(True, 166.0, 167.0)
    if what == "a row is answered":
        breaker.good(170.0)
        breaker.heard(True, 166.0, 171.0)
    elif what == "another's call fails":
        breaker.heard(False, 170.0, 171.0)
    else:
        crash(breaker, OWN, 170.0)
    crash(breaker, "other", 172.0)
    assert crash(breaker, "row", 172.0).evidence == ""
    breaker.heard(True, 240.0, 241.0)
    assert crash(breaker, "row", 242.0).evidence == ""
    breaker.heard(True, 306.0, 307.0)
    assert crash(breaker, "row", 308.0).evidence == VOUCHED


def test_what_may_go_wrong_on_our_own_way_is_held_against_rows_by_our_own_calls_alone() -> None:
    breaker = Breaker()
    breaker.heard(True, 100.0, 101.0)
    cut = crash(breaker, "cut", 120.0, status=200)
    crashed = crash(breaker, "crashed", 121.0)
    breaker.heard(True, 166.0, 167.0)
    assert (crashed.evidence, cut.evidence) == (VOUCHED, "")
    assert crash(breaker, "cut", 168.0, status=200).evidence == ""
    breaker.vouched(232.0)
    assert crash(breaker, "cut", 233.0, status=200).evidence == VOUCHED
    assert crash(breaker, "gateway", 234.0, status=503).evidence == ""
    breaker.good(240.0)
    breaker.heard(True, 300.0, 301.0)
    breaker.heard(True, 366.0, 367.0)
    assert crash(breaker, "cut", 368.0, status=200).evidence == ""


def test_an_answer_to_others_lets_the_next_call_go_and_closes_no_breaker() -> None:
    breaker = opened(Breaker(), 200.0)
    until = breaker.open_until
    breaker.heard(False, 200.0, 201.0)
    assert breaker.ready(201.0) == until
    breaker.heard(True, 180.0, 201.0)  # from long before it opened
    assert breaker.ready(201.0) == until
    breaker.heard(True, 200.5, 201.0)
    assert (breaker.state, breaker.ready(201.0)) == ("open", 201.0)
    assert breaker.admitted()
    breaker.bad(failed(), 1, job="job", sent=201.0, probe=True, now=201.5, rng=Random(1))
    assert breaker.ready(201.5) == until
