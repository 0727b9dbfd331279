"""Batches give way to others whom the service's own numbers show, and come back by themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.quota.deference import LEAST, MARGIN, RECOVERY, REFUSED, REMEMBERED, Deference

WINDOW = 30


class Service:
    """Windows of a second in which we use what we may and others their part; it answers late."""

    def __init__(self, part: float = 1.0, late: float = 0.0) -> None:
        self.deference = Deference(part, 0.0)
        self.late = late
        self.now = 0.0
        self.on_the_way: list[tuple[float, int]] = []

    def run(self, others: float, until: float) -> float:
        """Go on until a time; gives what we may use then."""
        while self.now < until - 1e-6:
            self.now = round(self.now + 0.1, 1)
            used = (self.now % 1.0 or 1.0) * (others + self.deference.allowed(self.now))
            if used > 1.0:
                self.deference.refused(self.now, self.now)
            else:
                self.on_the_way.append((self.now, int(WINDOW * (1.0 - used))))
            while self.on_the_way and self.on_the_way[0][0] <= self.now - self.late:
                sent, remaining = self.on_the_way.pop(0)
                self.deference.heard("requests", remaining, sent, self.now)
        return self.deference.allowed(self.now)


def test_alone_all_but_the_margin_is_used() -> None:
    assert Service().run(0.0, 60.0) == pytest.approx(1.0 - MARGIN)


@pytest.mark.parametrize("late", [0.0, 3.0])
@pytest.mark.parametrize("others", [0.2, 0.4])
def test_others_are_given_way_to_and_no_further(others: float, late: float) -> None:
    service = Service(late=late)
    service.run(0.0, 20.0)
    # Within the window of theirs in which calls are refused, however late answers come.
    assert service.run(others, 22.0) <= 1.0 - others
    # It neither forgets those who are there, nor takes its own calls of before for theirs.
    least = min(service.run(others, 22.0 + second) for second in range(1, 60))
    assert least >= 1.0 - MARGIN - others - REFUSED
    assert service.run(others, 90.0) == pytest.approx(1.0 - MARGIN - others, abs=0.12)


def test_it_comes_back_by_itself_when_they_have_gone() -> None:
    service = Service()
    service.run(0.0, 5.0)
    assert service.run(0.5, 20.0) <= 0.5
    assert service.run(0.0, 22.0 + 0.7 * RECOVERY) == pytest.approx(1.0 - MARGIN)


def test_a_refusal_gives_way_at_once_and_those_of_one_flight_count_once() -> None:
    deference = Deference(1.0, 0.0)
    for _ in range(5):
        deference.refused(10.0, 11.0)
    assert deference.allowed(11.0) == pytest.approx(1.0 - MARGIN - REFUSED)
    deference.refused(11.5, 12.0)
    assert deference.allowed(12.0) < 1.0 - MARGIN - REFUSED


def test_a_reserve_is_left_to_others_beside_what_they_use() -> None:
    deference = Deference(0.8, 0.0)
    assert deference.allowed(0.0) == 1.0
    deference.refused(1.0, 1.0)
    assert 0.8 * deference.allowed(1.0) == pytest.approx(0.8 - REFUSED)


def test_a_window_that_has_become_smaller_is_not_taken_for_others_use() -> None:
    service = Service()
    service.deference.heard("requests", 100 * WINDOW, 0.0, 0.0)
    assert service.run(0.0, 60.0) < 0.2
    assert service.run(0.0, 2 * REMEMBERED + RECOVERY + 5.0) == pytest.approx(1.0 - MARGIN)


events = st.lists(
    st.tuples(st.floats(0.0, 5.0), st.one_of(st.none(), st.integers(0, 1000))), max_size=50
)


@given(st.floats(0.05, 1.0), events)
def test_it_is_never_nothing_and_never_more_than_is_ours(
    part: float, happened: list[tuple[float, int | None]]
) -> None:
    now, deference = 0.0, Deference(part, 0.0)
    for passed, remaining in happened:
        now += passed
        before = deference.allowed(now)
        if remaining is None:
            deference.refused(now, now)
            assert deference.allowed(now) <= before
        else:
            deference.heard("tokens", remaining, now, now)
        assert LEAST <= deference.allowed(now) <= 1.0
    assert deference.allowed(now + RECOVERY) == pytest.approx(min(1.0, (1.0 - MARGIN) / part))
