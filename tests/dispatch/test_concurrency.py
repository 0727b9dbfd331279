"""The guard finds the concurrency that a server makes use of, and no more."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.dispatch.concurrency import START, Guard


class Server:
    """Serves `slots` calls at a time, each in `latency` seconds; more of them share the slots."""

    def __init__(self, slots: int, latency: float) -> None:
        self.slots = slots
        self.latency = latency
        self.now = 0.0
        self.ends: list[tuple[float, float]] = []
        self.done = 0

    def drive(self, guard: Guard, until: float) -> None:
        """As many calls in flight as the guard allows, and always one more that waits."""
        while self.now < until:
            while len(self.ends) < guard.limit:
                crowd = max(1.0, (len(self.ends) + 1) / self.slots)
                heapq.heappush(self.ends, (self.now + self.latency * crowd, self.now))
            guard.full()
            self.now, _ = heapq.heappop(self.ends)
            self.done += 1
            guard.answered(self.now)


def test_it_reaches_500_within_a_second_at_50_ms() -> None:
    guard, server = Guard(None, 0.0), Server(100_000, 0.05)
    server.drive(guard, 1.0)
    assert guard.limit >= 500


def test_a_configured_limit_is_where_it_starts_and_ends() -> None:
    guard, server = Guard(5, 0.0), Server(1000, 0.1)
    server.drive(guard, 60.0)
    assert guard.limit == 5


def test_it_does_not_climb_past_what_the_server_makes_use_of() -> None:
    guard, server = Guard(None, 0.0), Server(200, 1.0)
    server.drive(guard, 300.0)
    assert 100 <= guard.limit <= 800
    assert server.done / server.now > 0.9 * 200


def test_latency_that_rises_tenfold_of_itself_is_answered_with_more_calls() -> None:
    guard, server = Guard(None, 0.0), Server(100_000, 0.2)
    server.drive(guard, 2.0)
    before = guard.limit
    server.latency = 2.0
    server.drive(guard, 60.0)
    assert guard.limit >= min(4096, before)
    assert guard.limit > 1000


@given(st.integers(1, 50))
def test_a_limit_on_concurrency_is_found_with_one_flight(bears: int) -> None:
    guard = Guard(None, 0.0)
    in_flight = guard.limit
    while in_flight > bears:
        in_flight -= 1
        guard.refused(in_flight, 0.01)
    assert guard.limit == min(bears, START)


def test_a_limit_that_still_stands_is_tried_ever_more_rarely() -> None:
    guard, tries, now = Guard(None, 0.0), [], 0.0
    guard.refused(5, 0.0)
    while now < 3600.0:
        now += 0.5
        guard.full()
        if guard.limit > 5:
            tries.append(now)
            guard.refused(5, now)
        for _ in range(guard.limit):
            guard.answered(now)
    assert 8 <= len(tries) <= 20
    assert tries[0] >= 60.0
    assert tries[-1] - tries[-2] >= 300.0


def test_a_flight_that_times_out_cuts_once() -> None:
    guard = Guard(100, 0.0)
    for _ in range(50):
        guard.timed_out(sent=1.0, now=10.0)
    assert guard.limit == 70
    guard.timed_out(sent=11.0, now=20.0)
    assert guard.limit == 49


@given(st.lists(st.tuples(st.sampled_from("agt"), st.floats(0.0, 30.0)), max_size=200))
def test_the_limit_stays_between_one_and_the_most(events: list[tuple[str, float]]) -> None:
    guard, now = Guard(40, 0.0), 0.0
    for kind, seconds in events:
        now += seconds
        guard.full()
        if kind == "a":
            guard.answered(now)
        elif kind == "g":
            guard.refused(int(seconds) - 1, now)
        else:
            guard.timed_out(now, now)
        assert 1 <= guard.limit <= 40


def test_a_limit_nobody_waits_for_does_not_move() -> None:
    guard = Guard(None, 0.0)
    for n in range(1000):
        guard.answered(n / 10)
    assert guard.limit == pytest.approx(START)
