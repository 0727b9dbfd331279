"""Shares of a quota: never more than all of it, fair, live, and back soon after a crash."""

from dataclasses import dataclass
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.core.shares import (
    LEASE,
    MARGIN,
    Book,
    Holder,
    Wish,
    leave,
    renew,
    seats,
    weighted_max_min,
)

SKEW = 2.0


def holder(weight: float = 1.0, wants: float = 1.0, share: float = 0.0) -> Holder:
    return Holder(weight, wants, share, 0.0, LEASE)


holders = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=2),
    st.builds(holder, weight=st.floats(0.1, 8.0), wants=st.floats(0.05, 1.0)),
    min_size=1,
    max_size=12,
)


@given(holders)
def test_max_min_divides_exactly_all(holders: dict[str, Holder]) -> None:
    shares = weighted_max_min(holders)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert all(share >= 0.0 for share in shares.values())


@given(holders)
def test_nobody_gets_less_than_its_part_or_its_wish(holders: dict[str, Holder]) -> None:
    shares = weighted_max_min(holders)
    weights = sum(each.weight for each in holders.values())
    for name, each in holders.items():
        assert shares[name] >= min(each.wants, each.weight / weights) - 1e-9


def test_what_one_does_not_want_goes_to_those_who_do() -> None:
    shares = weighted_max_min(
        {"nightly": holder(weight=0.1), "day": holder(), "idle": holder(wants=0.05)}
    )
    assert shares["idle"] == pytest.approx(0.05)
    assert shares["day"] == pytest.approx(0.95 / 1.1)
    assert shares["nightly"] == pytest.approx(0.95 / 11)


def test_a_book_survives_storage() -> None:
    book, _ = renew(Book(), "a", Wish(2.0, 0.5, requests=0.99, per_day=150, day=10), 86_400.0 * 7)
    assert Book.load(book.dump()) == book


def test_a_ledger_of_a_newer_version_is_left_alone() -> None:
    assert Book.load(Book().dump().replace(b'"version":1', b'"version":2')) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"version": 1, "holders": 3}',
        b'{"version": 1, "holders": {"a": 1}, "requests": 1, "tokens": 1, "day": {}}',
    ],
)
def test_a_ledger_that_cannot_be_read_counts_as_empty(data: bytes) -> None:
    assert Book.load(data) == Book()


@given(st.floats(1.0, 100_000.0))
def test_no_seat_is_thinner_than_two_requests_a_second(per_minute: float) -> None:
    count = seats(per_minute)
    assert count == 1 or per_minute / 60.0 / count >= 2.0


@given(st.integers(0, 2**32), st.integers(9, 40))
@settings(max_examples=10, deadline=None)
def test_seats_go_round_and_no_more_are_taken_than_there_are(seed: int, many: int) -> None:
    """Each comes every four seconds, in an order that changes."""
    rng = Random(seed)
    book, seated, now = Book(), dict.fromkeys(range(many), 0), 0.0
    for _ in range(75):
        for who in rng.sample(range(many), many):
            now += 4.0 / many
            book, _ = renew(book, str(who), Wish(1.0, 1.0, seats=8), now)
            assert sum(each.seated for each in book.holders.values()) <= 8
            assert sum(each.share for each in book.holders.values()) <= 1.0 + 1e-9
            seated[who] += book.holders[str(who)].seated
    assert min(seated.values()) > 0.4 * 75 * 8 / many


def test_a_day_is_dealt_out_once() -> None:
    book, held = Book(), 0
    wish = Wish(1.0, 1.0, day=40, per_day=100)
    for who in "abcd":
        book, given_ = renew(book, who, wish, 1000.0)
        held += given_
    assert (held, book.day.given) == (100, 100)
    book = leave(book, "a", Wish(1.0, 1.0, back=15, per_day=100), 1001.0)
    assert "a" not in book.holders
    book, given_ = renew(book, "d", wish, 1002.0)
    assert given_ == 15
    book, given_ = renew(book, "d", wish, 86_400.0)
    assert given_ == 40


def test_the_headroom_of_all_is_what_each_has_learned() -> None:
    book, _ = renew(Book(), "a", Wish(1.0, 1.0, requests=0.9), 0.0)
    book, _ = renew(book, "b", Wish(1.0, 1.0, requests=0.9, tokens=0.5), 0.0)
    assert book.requests == pytest.approx(0.96 * 0.81)
    assert book.tokens == pytest.approx(0.48)


@given(
    began=st.floats(0.0, 1.0),
    later=st.floats(LEASE - MARGIN - 1.0, LEASE + 4.0),
    skews=st.sampled_from([(-1.0, 1.0), (1.0, -1.0), (0.0, 0.0), (-0.5, 0.9)]),
)
def test_a_stale_holder_has_stopped_before_another_takes_its_share(
    began: float, later: float, skews: tuple[float, float]
) -> None:
    """Front ends whose clocks differ by two seconds, and a Date of whole seconds."""
    book, _ = renew(Book(), "stale", Wish(1.0, 1.0), float(int(1e6 + began + skews[0])))
    book, _ = renew(book, "other", Wish(1.0, 1.0), float(int(1e6 + began + later + skews[1])))
    assert book.holders["other"].share == 0.0 or later >= LEASE - MARGIN


@dataclass
class Process:
    """A holder as it believes itself, by its own clock."""

    name: str
    offset: float
    share: float = 0.0
    until: float = -1e18


class Walk:
    """Processes join, renew, shrink, freeze and die at random, while writes are refused or their
    answers lost, front ends disagree by two seconds and show whole seconds only."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.now = 1e6
        self.book = Book()
        self.names = map(str, count())
        self.processes = [self.process() for _ in range(6)]

    def process(self) -> Process:
        return Process(next(self.names), self.rng.uniform(-1e5, 1e5))

    def step(self) -> None:
        rng = self.rng
        self.now += rng.choice([rng.uniform(0.0, 0.5), rng.uniform(0.0, 3.0), 0.0])
        if rng.random() < 0.02:
            self.now += rng.uniform(LEASE - 5.0, LEASE + 1.0)
        if rng.random() < 0.02:
            self.processes[rng.randrange(len(self.processes))] = self.process()
        self.round(rng.choice(self.processes))

    def round(self, process: Process) -> None:
        rng = self.rng
        began = self.now + process.offset
        shown = float(int(self.now + rng.uniform(-SKEW / 2, SKEW / 2)))
        wish = Wish(rng.choice([0.1, 1.0, 4.0]), rng.uniform(0.05, 1.0), seats=4)
        fresh, _ = renew(self.book, process.name, wish, shown)
        self.now += rng.choice([0.0, rng.uniform(0.0, 3.0)])
        share = fresh.holders[process.name].share
        # As workers.ledger does: what is about to be given up is not used from before the write.
        process.share = min(process.share, share)
        fate = rng.choice(["written", "written", "lost", "refused"])
        if fate != "refused":
            self.book = fresh
        if fate == "written":
            process.share, process.until = share, began + LEASE - MARGIN

    @property
    def used(self) -> float:
        """What all believe that they may use, at this moment."""
        return sum(p.share for p in self.processes if self.now + p.offset < p.until)


@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_whatever_happens_all_together_use_at_most_all(seed: int) -> None:
    walk = Walk(Random(seed))
    for _ in range(300):
        walk.step()
        assert walk.used <= 1.0 + 1e-9
