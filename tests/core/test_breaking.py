"""An outage opens the breaker, a probe closes it; the row's faults are told from the service's."""

from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.outcomes import Outcome, OutcomeKind
from workers.core.breaking import FIRST, LONGEST, REFUSED_FIRST, Breaker


def failed(status: int | None = 503, kind: OutcomeKind = "transient") -> Outcome:
    return Outcome(kind=kind, status=status)


def opened(breaker: Breaker, now: float = 0.0) -> Breaker:
    for row in range(20):
        breaker.bad(failed(), row, False, now, Random(1))
    return breaker


def test_a_run_of_failures_opens_it_and_some_do_not() -> None:
    breaker = Breaker()
    for row in range(5):
        breaker.bad(failed(), row, False, 1.0, Random(1))
    assert breaker.state == "closed"
    assert opened(breaker, 2.0).state == "open"
    assert breaker.ready(2.0) >= 2.0 + 0.9 * FIRST


def test_a_third_of_failures_does_not_open_it() -> None:
    breaker = Breaker()
    for call in range(3000):
        if call % 3 == 0:
            breaker.bad(failed(), call, False, float(call), Random(1))
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
        breaker.bad(failed(), 1, True, now, rng)
        waits.append(breaker.open_until - now)
    assert waits[0] == pytest.approx(2 * FIRST, rel=0.11)
    assert waits[-1] == pytest.approx(LONGEST, rel=0.11)


def test_late_failures_of_the_same_flight_do_not_prolong_it() -> None:
    breaker = opened(Breaker())
    until = breaker.open_until
    breaker.bad(failed(), 99, False, 1.0, Random(1))
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
    breaker.bad(failed(401, kind), 1, False, 0.0, Random(1))
    assert breaker.ready(0.0) >= 0.9 * REFUSED_FIRST
    assert breaker.said == kind


@given(st.integers(2, 50), st.sampled_from([None, 500, 502, 503, 504]))
def test_an_outage_burns_nobodys_attempts(rows: int, status: int | None) -> None:
    breaker = Breaker()
    breaker.good(0.0)
    for row in range(rows):
        breaker.bad(failed(status), row, False, 2.0, Random(1))
    for row in range(rows):
        assert not breaker.blames_row(failed(status), row, sent=1.0)


def test_a_row_that_fails_while_others_pass_is_to_blame() -> None:
    breaker = Breaker()
    breaker.bad(failed(503), 1, False, 2.0, Random(1))
    breaker.good(1.5)
    assert breaker.blames_row(failed(503), 1, sent=1.0)


@pytest.mark.parametrize(
    ("status", "blamed"), [(500, True), (424, True), (200, True), (503, False), (None, False)]
)
def test_a_row_alone_is_to_blame_for_what_a_row_can_cause(status: int | None, blamed: bool) -> None:
    breaker = Breaker()
    breaker.bad(failed(status), 1, False, 2.0, Random(1))
    assert breaker.blames_row(failed(status), 1, sent=1.0) is blamed


def test_a_row_alone_that_times_out_is_to_blame() -> None:
    breaker = Breaker()
    late = failed(None, "timeout")
    breaker.bad(late, 1, False, 2.0, Random(1))
    assert breaker.blames_row(late, 1, sent=1.0)
