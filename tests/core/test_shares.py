"""Shares of a quota: never more than all of it, fair, live, and back soon after a crash."""

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"holders": 3}', b'{"holders": {"a": 1}}'])
def test_a_ledger_that_cannot_be_read_counts_as_empty(data: bytes) -> None:
    assert Book.load(data) == Book()


@given(st.floats(1.0, 100_000.0))
def test_no_seat_is_thinner_than_two_requests_a_second(per_minute: float) -> None:
    count = seats(per_minute)
    assert count == 1 or per_minute / 60.0 / count >= 2.0


@given(st.integers(0, 2**32), st.integers(9, 40))
@settings(max_examples=10, deadline=None)
def test_seats_go_round_and_no_more_are_taken_than_there_are(seed: int, count: int) -> None:
    """Each comes every four seconds, in an order that changes."""
    rng = Random(seed)
    book, seated, now = Book(), dict.fromkeys(range(count), 0), 0.0
    for _ in range(75):
        for who in rng.sample(range(count), count):
            now += 4.0 / count
            book, _ = renew(book, str(who), Wish(1.0, 1.0, seats=8), now)
            assert sum(each.seated for each in book.holders.values()) <= 8
            assert sum(each.share for each in book.holders.values()) <= 1.0 + 1e-9
            seated[who] += book.holders[str(who)].seated
    assert min(seated.values()) > 0.4 * 75 * 8 / count


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


@dataclass
class Process:
    """A holder as it believes itself: by its own clock, which only runs forward."""

    offset: float
    share: float = 0.0
    until: float = -1.0
    alive: bool = True
    told: list[float] = field(default_factory=list)


class Ledgers(RuleBasedStateMachine):
    """Processes join, renew, shrink, die and freeze, while the service's front ends disagree by
    up to two seconds and show whole seconds only. What all may use together stays at most all."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.book = Book()
        self.processes: dict[str, Process] = {}

    @rule(offset=st.floats(-1e5, 1e5))
    def join(self, offset: float) -> None:
        if len(self.processes) < 9:
            self.processes[f"p{len(self.processes)}"] = Process(offset)

    @precondition(lambda self: self.processes)
    @rule(
        data=st.data(),
        wish=st.builds(
            Wish, st.sampled_from([0.1, 1.0, 4.0]), st.floats(0.05, 1.0), seats=st.just(4)
        ),
        skew=st.floats(-SKEW / 2, SKEW / 2),
        slow=st.floats(0.0, 3.0),
        fate=st.sampled_from(["written", "conflict", "lost", "unsent"]),
    )
    def round(self, data: st.DataObject, wish: Wish, skew: float, slow: float, fate: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.processes)))
        process = self.processes[name]
        if not process.alive:
            return
        began = self.now + process.offset
        shown = float(int(self.now + skew))
        fresh, _ = renew(self.book, name, wish, shown)
        self.now += slow
        share = fresh.holders[name].share
        process.share = min(process.share, share)
        if fate in ("written", "lost"):
            # Nobody wrote in between: with a conflict the write would have been refused.
            self.book = fresh
        if fate == "written":
            process.share, process.until = share, began + LEASE - MARGIN

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        process = self.processes[data.draw(st.sampled_from(sorted(self.processes)))]
        process.alive = False
        process.until = -1e18

    @rule(seconds=st.floats(0.1, 20.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def never_more_than_all(self) -> None:
        used = sum(
            process.share
            for process in self.processes.values()
            if self.now + process.offset < process.until
        )
        assert used <= 1.0 + 1e-9


TestLedgers = Ledgers.TestCase
TestLedgers.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
