"""Shares of a quota: never more than all of it, fair, live, and back soon after a crash."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from math import inf
from random import Random

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workers.quota import shares as rules
from workers.quota.allowance import Allowance, Grant
from workers.quota.book import Book, Day, Holder, Wish
from workers.quota.pacing import Quota
from workers.quota.shares import (
    LEASE,
    LEAST_RATE,
    LEAST_TURN,
    MARGIN,
    TURN,
    fair_shares,
    job_parts,
    leave,
    renew,
    seats,
    short,
    weighted_max_min,
)
from workers.quota.weights import JOBS, JobWeights, effective, named

SKEW = 2.0
MORE = [pytest.param(seed, marks=pytest.mark.long) for seed in (2, 3)]


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


def test_what_nobody_wants_goes_to_those_who_want_any() -> None:
    shares = weighted_max_min({"dry": holder(wants=0.0), "a": holder(wants=0.3)})
    assert shares == {"dry": 0.0, "a": 1.0}
    # While nobody has calls that wait, whoever asks first finds a part at once.
    assert weighted_max_min({n: holder(wants=0.0) for n in "ab"}) == {"a": 0.5, "b": 0.5}


@given(holders, st.integers(1, 200))
def test_shares_are_whole_requests_but_for_slivers_and_one(
    holders: dict[str, Holder], rate: int
) -> None:
    exact, shares = weighted_max_min(holders), fair_shares(holders, rate)
    assert sum(shares.values()) == pytest.approx(1.0)
    fractions = 0
    for name, share in shares.items():
        assert share * rate == pytest.approx(exact[name] * rate, abs=1.0 + 1e-6)
        if exact[name] * rate < 1.0 - 1e-6:
            assert share == exact[name]
        else:
            fractions += abs(share * rate - round(share * rate)) > 1e-6
    assert fractions <= 1


def test_eight_equal_holders_have_whole_requests_of_thirty_a_second() -> None:
    shares = fair_shares({str(n): holder() for n in range(8)}, 30)
    assert sorted(round(share * 30, 6) for share in shares.values()) == [3, 3, 4, 4, 4, 4, 4, 4]
    # Without a limit of requests there are none to be whole.
    assert set(fair_shares({str(n): holder() for n in range(8)}, 0).values()) == {0.125}


some_jobs = st.sets(st.sampled_from("pqrstuv"), min_size=1)
WEIGHTS = dict(zip("pqrstuv", (0.1, 0.1, 1.0, 1.0, 1.0, 4.0, 4.0), strict=True))


@given(st.lists(some_jobs, min_size=1, max_size=12))
def test_a_job_weighs_the_same_however_many_ask_it(asked: list[set[str]]) -> None:
    held = {
        str(number): replace(holder(weight=99.0), jobs={job: WEIGHTS[job] for job in jobs})
        for number, jobs in enumerate(asked)
    }
    weights = effective(held)
    distinct = set().union(*asked)
    assert sum(weights.values()) == pytest.approx(sum(WEIGHTS[job] for job in distinct))
    # Of one job, each of those who ask it has the same part.
    alone = {name: replace(each, jobs={"q": 0.1}) for name, each in held.items()}
    assert list(effective(alone).values()) == pytest.approx([0.1 / len(held)] * len(held))


some_orders = some_jobs.flatmap(lambda jobs: st.permutations(sorted(jobs)))


@given(st.lists(some_orders, min_size=1, max_size=12), st.sampled_from((15, 16, 25, 30)))
# Two have 2.3984375 requests a second here, or one digit less where sums depend on their order.
@example(["pqr", "pru", "rtu", "prsu", "pqrstuv", "pqrutsv", "pqrstuv", "pqrstuv", "pstuv"], 15)
def test_all_processes_come_to_the_same_shares(asked: list[Sequence[str]], rate: int) -> None:
    """Each puts its own entry behind those of others; one that sees less than others do gives up
    what they give back, for ever."""
    held = {
        str(number): replace(holder(), jobs={job: WEIGHTS[job] for job in jobs})
        for number, jobs in enumerate(asked)
    }
    shares = fair_shares(held, rate)
    for name, mine in held.items():
        seen = {**{other: each for other, each in held.items() if other != name}, name: mine}
        assert fair_shares(seen, rate) == pytest.approx(shares, abs=1e-9)


@pytest.mark.slow
def test_shares_do_not_hang_on_the_hashes_of_a_process() -> None:
    script = """if True:
        from workers.quota.book import Holder
        from workers.quota.shares import fair_shares
        jobs = {"p": "ab", "q": "bc", "r": "ca"}
        held = {
            name: Holder(1.0, 1.0, 0.0, 0.0, 9.0, jobs={f"batch_{job}": 1.0 for job in of})
            for name, of in jobs.items()
        }
        print(fair_shares(held, 16))
    """
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "7")
    }
    assert len(said) == 1


@pytest.mark.parametrize("weights", [(1.0, 1.0), (4.0, 1.0, 0.1)])
def test_a_job_on_many_has_its_part_beside_one_on_few(weights: tuple[float, ...]) -> None:
    """Were each share cut by itself, 1.39 a second on each of four would be four, and not 5.5."""
    held = {
        f"{job}{number}": replace(holder(), jobs={str(job): weight})
        for job, weight in enumerate(weights)
        for number in range((2, 4, 4)[job])
    }
    exact, shares = weighted_max_min(held), fair_shares(held, 17)
    for job in range(len(weights)):
        both = (sum(each[n] for n in held if n[0] == str(job)) for each in (exact, shares))
        assert abs(next(both) - next(both)) * 17 < 1.0


def test_a_nightly_job_on_all_yields_to_a_job_on_one() -> None:
    held = {str(n): replace(holder(), jobs={"nightly": 0.1}) for n in range(31)}
    held["day"] = replace(holder(), jobs={"nightly": 0.1, "day": 1.0})
    shares = weighted_max_min(held)
    assert shares["day"] == pytest.approx((1.0 + 0.1 / 32) / 1.1)
    assert job_parts(held, "day") == {"nightly": 0.1 / 32, "day": 1.0}


def test_an_entry_names_the_heaviest_jobs_and_counts_the_others_together() -> None:
    jobs = {f"n{n:03}": 0.1 for n in range(200)} | {f"d{n}": 1.0 for n in range(10)}
    kept = named(JobWeights(jobs)).jobs
    assert len(kept) == JOBS + 1
    assert sum(kept.values()) == pytest.approx(sum(jobs.values()))
    assert {f"d{n}" for n in range(10)} < set(kept)
    # Whatever the order in which they came, all processes name the same ones.
    assert named(JobWeights(dict(reversed(jobs.items())))).jobs == pytest.approx(kept)


def test_entries_of_earlier_workers_count_by_their_weight() -> None:
    old = orjson.loads(renew(Book(), "old", Wish(2.0, 1.0), 5.0)[0].dump())
    for slot in ("jobs", "drawn"):
        del old["holders"]["old"][slot]
    book = Book.load(orjson.dumps(old))
    assert book is not None
    book, _ = renew(book, "new", Wish(1.0, 1.0, jobs={"day": 1.0}), 6.0)
    assert effective(book.holders) == {"old": 2.0, "new": 1.0}
    # And they find what they know in the new ones.
    known = {"weight", "wants", "share", "since", "expires", "seated"}
    assert known < set(orjson.loads(book.dump())["holders"]["new"])


def test_a_book_survives_storage() -> None:
    wish = Wish(2.0, 0.5, requests=0.99, per_day=150, day=10, jobs={"a": 1.5, "b": 0.5})
    book, _ = renew(Book(), "a", wish, 86_400.0 * 7)
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


# The named one waits for 50 s once: in a row of draws that is bound to come, and is made up for.
@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(9, 40))
@example(2542, 16)
@settings(max_examples=5, deadline=None)
def test_seats_go_round_and_no_more_are_taken_than_there_are(seed: int, many: int) -> None:
    """Each comes every four seconds, in an order that changes."""
    rng = Random(seed)
    book, seated, now = Book(), dict.fromkeys(range(many), 0), 0.0
    for _ in range(200):
        for who in rng.sample(range(many), many):
            now += 4.0 / many
            book, _ = renew(book, str(who), Wish(1.0, 1.0, seats=8), now)
            assert sum(each.seated for each in book.holders.values()) <= 8
            assert sum(each.share for each in book.holders.values()) <= 1.0 + 1e-9
            seated[who] += book.holders[str(who)].seated
    assert min(seated.values()) > 0.4 * 200 * 8 / many


def seating(
    wishes: dict[str, Wish], seconds: float, rng: Random, at_once: int
) -> dict[str, tuple[float, float]]:
    """All come every four seconds, whoever is `short` every one: seated when first, how long."""
    book, now, last = Book(), 0.0, 0.0
    next_at = {name: rng.uniform(0.0, 4.0) for name in wishes}
    first, held = dict.fromkeys(wishes, inf), dict.fromkeys(wishes, 0.0)
    while now < seconds:
        who = min(next_at, key=lambda name: next_at[name])
        now = next_at[who]
        for name, each in book.holders.items():
            held[name] += (now - last) * each.seated
        last = now
        book, _ = renew(book, who, replace(wishes[who], seats=at_once), float(int(now)))
        assert sum(each.seated for each in book.holders.values()) <= at_once
        assert sum(each.share for each in book.holders.values()) <= 1.0 + 1e-9
        if book.holders[who].seated:
            first[who] = min(first[who], now)
        soon = short(book.holders, who, float(int(now)), wishes[who].rate)
        next_at[who] = now + rng.uniform(0.9, 1.1) * (1.0 if soon else 4.0)
    return {name: (first[name], held[name] / seconds) for name in wishes}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, *MORE])
@pytest.mark.parametrize(
    ("at_once", "rate", "seconds"), [(1, 0, 1800.0), (8, 0, 1000.0), (8, 16, 5000.0)]
)
def test_a_heavy_one_keeps_a_seat_and_the_light_ones_share_the_rest(
    seed: int, at_once: int, rate: int, seconds: float
) -> None:
    light = {str(n): Wish(0.1, 1.0, rate=rate, jobs={"nightly": 0.1}) for n in range(31)}
    heavy = Wish(1.0, 1.0, rate=rate, jobs={"day": 1.0})
    seated = seating(light | {"heavy": heavy}, seconds, Random(seed), at_once)
    first, part = seated.pop("heavy")
    assert first <= 15.0
    assert part >= 0.80 if at_once == 1 else part >= 0.99
    # Each light one comes to its turn, and keeps its seat for a while.
    assert max(first for first, _ in seated.values()) < inf
    # Where all ask one seat that is the least turn, told in whole seconds.
    kept = LEAST_TURN - 1.0 if at_once == 1 else TURN
    assert min(part for _, part in seated.values()) >= kept / seconds


def test_nobody_keeps_a_sliver_of_what_others_ask_too() -> None:
    """Of 16 a second 3.2 are the light job's: three seats of one a second, and not seven."""
    light = Wish(1.0, 1.0, seats=8, rate=16, jobs={"nightly": 1.0})
    wishes = {str(n): light for n in range(7)}
    wishes["heavy"] = Wish(4.0, 1.0, seats=8, rate=16, jobs={"day": 4.0})

    book, _ = settled(wishes, 0, 25)
    found = seated_rates(book)
    assert found.pop("heavy") == pytest.approx(12.8, abs=0.2)
    assert len(found) == 3
    assert min(found.values()) >= LEAST_RATE - 1e-9
    # Whose last calls want no more than a sliver stays, and leaves the rest to others.
    last = min(found)
    wishes[last] = replace(light, wants=0.02)
    book, _ = settled(wishes, 25, 60, book)
    assert seated_rates(book)[last] == pytest.approx(0.32)
    # Where there is more for them, more of them sit.
    book = leave(book, "heavy", wishes.pop("heavy"), 60.0)
    assert len(seated_rates(book)) == 7


def seated_rates(book: Book) -> dict[str, float]:
    """Of 16 requests a second."""
    return {name: held.share * 16 for name, held in book.holders.items() if held.seated}


def settled(
    wishes: dict[str, Wish], begin: int, end: int, book: Book | None = None
) -> tuple[Book, int]:
    """The ledger after all have come each second; how often somebody's seat changed."""
    book, changes = book or Book(), 0
    for turn in range(begin, end):
        for name, wish in wishes.items():
            before = {who for who, held in book.holders.items() if held.seated}
            book, _ = renew(book, name, wish, float(turn))
            changes += len(before ^ {who for who, held in book.holders.items() if held.seated})
    return book, changes


def test_one_sliver_is_left_to_who_asks_what_another_asks_too() -> None:
    """Its calls wait there and nowhere else, and a seat is free."""
    wishes = {
        "day": Wish(1.1, 1.0, seats=2, rate=4, jobs={"day": 1.0, "nightly": 0.1}),
        "nightly": Wish(0.1, 1.0, seats=2, rate=4, jobs={"nightly": 0.1}),
    }
    book, changes = settled(wishes, 0, 300)
    assert book.holders["nightly"].share * 4 == pytest.approx(2 / 11, abs=0.01)
    assert changes == 2


def test_what_others_cannot_use_is_used_however_little_it_is() -> None:
    wishes = {
        "full": Wish(1.0, 0.76, seats=2, rate=4, jobs={"p": 1.0}, waiting={"p": 10_000}),
        "other": Wish(1.0, 1.0, seats=2, rate=4, jobs={"p": 1.0}, waiting={"p": 100}),
    }
    book, _ = settled(wishes, 0, 5)
    assert book.holders["other"].share == pytest.approx(0.24)


@pytest.mark.parametrize("name", ["a", "z"])
def test_who_comes_late_has_a_seat_whatever_its_name(name: str) -> None:
    """Its part is 1.4 of 35 a second; whole requests are one or two."""
    light = Wish(1.0, 1.0, seats=17, rate=35, jobs={"m": 1.0})
    wishes = dict.fromkeys("klmn", light)
    wishes["heavy"] = replace(light, weight=4.0, jobs={"h": 4.0})
    book, _ = settled(wishes, 0, 2)
    book, _ = renew(book, name, light, 2.0)
    assert book.holders[name].seated


def test_beside_workers_that_seat_whoever_is_next_seats_seldom_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of 0.1.0 know no slivers."""
    wishes = {str(n): Wish(0.1, 1.0, seats=8, rate=16, jobs={"n": 0.1}) for n in range(7)}
    wishes["both"] = Wish(1.1, 1.0, seats=8, rate=16, jobs={"day": 1.0, "n": 0.1})
    judge, earlier, now = rules._sliver, set("024"), ""

    def judged(holders: dict[str, Holder], name: str, rate: int, least: float) -> bool:
        return now not in earlier and judge(holders, name, rate, least)

    monkeypatch.setattr(rules, "_sliver", judged)
    book, changes = Book(), 0
    for turn in range(240):
        for now, wish in wishes.items():
            fresh, _ = renew(book, now, wish, turn / 4)
            before = {who for who, held in book.holders.items() if held.seated}
            changes += len(before ^ {who for who, held in fresh.holders.items() if held.seated})
            book = fresh
    # Each turn of 20 s, some leave and are seated again.
    assert changes <= 8 + 2 * 8 * 60 / TURN


def test_a_heavy_newcomer_comes_before_light_ones_that_have_waited() -> None:
    book, now = Book(), 1000.0
    for who in "abcd":
        book, _ = renew(book, who, Wish(0.1, 1.0, seats=1, jobs={"nightly": 0.1}), now)
    book, _ = renew(book, "heavy", Wish(1.0, 1.0, seats=1, jobs={"day": 1.0}), now + 8.0)
    # Of the light ones that wait, too, one is to come soon: its job is another.
    assert {who for who in book.holders if short(book.holders, who, now + 8.0)} == {"d", "heavy"}
    # The one who is seated gives way as soon as it comes, and hands its seat over to the heavy one.
    for who in "dcba":
        assert not book.holders["heavy"].seated
        book, _ = renew(book, who, Wish(0.1, 1.0, seats=1, jobs={"nightly": 0.1}), now + 9.0)
    assert (book.holders["heavy"].seated, book.holders["heavy"].share) == (True, 1.0)


def test_what_one_gives_up_others_have_with_the_same_write() -> None:
    book, _ = renew(Book(), "a", Wish(1.0, 1.0), 0.0)
    for who in "bc":
        book, _ = renew(book, who, Wish(1.0, 1.0), 0.0)
    assert shares(book) == {"a": 1.0, "b": 0.0, "c": 0.0}
    book, _ = renew(book, "a", Wish(1.0, 1.0), 1.0)
    assert shares(book) == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    book, _ = renew(book, "a", Wish(1.0, 0.0), 2.0)
    assert shares(book) == pytest.approx({"a": 0.0, "b": 0.5, "c": 0.5})
    # An entry lasts no longer for what was handed over to it.
    assert {held.expires for held in book.holders.values()} == {LEASE, LEASE + 2.0}
    assert shares(leave(book, "b", Wish(1.0, 0.0), 3.0)) == pytest.approx({"a": 0.0, "c": 1.0})


def shares(book: Book) -> dict[str, float]:
    return {name: held.share for name, held in book.holders.items()}


def seated_over(book: Book, wishes: dict[str, Wish], times: range) -> tuple[Book, list[str]]:
    """Who has the one seat after each of these seconds, in which all come in their order."""
    seen = []
    for now in times:
        for who, wish in wishes.items():
            book, _ = renew(book, who, replace(wish, seats=1), float(now))
        seen.append("".join(name for name, held in book.holders.items() if held.seated))
    return book, seen


def test_of_a_job_that_is_asked_anyhow_workers_seldom_change_seats() -> None:
    one, other = (Wish(1.0, 1.0, jobs={job: 1.0}) for job in ("one", "other"))
    book, seen = seated_over(Book(), {"a": one, "b": one}, range(240))
    assert seen == ["a"] * 120 + ["b"] * 120
    # Whoever asks what nobody asks who has a seat comes sooner, and each job has half of the time.
    book, seen = seated_over(book, {"a": one, "b": one, "c": other}, range(240, 300))
    assert seen == ["a"] * 10 + ["c"] * 20 + ["b"] * 10 + ["a"] * 10 + ["c"] * 10


@pytest.mark.parametrize("waits", [0, 5])
def test_a_job_is_asked_where_its_calls_wait_and_not_where_one_is_in_flight(waits: int) -> None:
    both = {"light": 1.0, "urgent": 4.0}
    first = Wish(5.0, 1.0, jobs=both, waiting={"light": 2000, "urgent": waits})
    urgent = Wish(4.0, 1.0, jobs={"urgent": 4.0}, waiting={"urgent": 200})
    _, seen = seated_over(Book(), {"a": first, "b": urgent}, range(60))
    assert "".join(seen).find("b") == (-1 if waits else 18)


def test_of_those_who_wait_the_first_of_each_job_asks_again_soon() -> None:
    book = Book()
    for who, job in [("a", "p"), ("b", "p"), ("c", "p"), ("d", "q"), ("e", "q")]:
        book, _ = renew(book, who, Wish(1.0, 1.0, seats=1, jobs={job: 1.0}), 0.0)
    none = Wish(1.0, 0.0, seats=1, jobs={"r": 1.0})
    book, _ = renew(book, "f", none, 0.0)
    soon = {who for who in book.holders if short(book.holders, who, 1.0)}
    assert soon == {"c", "e"}
    assert book.holders["a"].seated


def test_one_that_wants_none_leaves_its_seat_to_any() -> None:
    wish = Wish(1.0, 1.0, seats=1, jobs={"one": 1.0})
    book = Book()
    for who in "ab":
        book, _ = renew(book, who, wish, 0.0)
    book, _ = renew(book, "a", replace(wish, wants=0.0), 3.0)
    assert book.holders["a"].seated
    book, _ = renew(book, "a", replace(wish, wants=0.0), 4.0)
    assert shares(book) == {"a": 0.0, "b": 1.0}
    # One that wants none does not stand in line before one that does.
    book, _ = renew(book, "c", wish, 5.0)
    book = leave(book, "b", wish, 6.0)
    assert [name for name, held in book.holders.items() if held.seated] == ["c"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, *MORE])
def test_a_light_one_is_seated_now_and_then_among_heavy_ones_in_need(seed: int) -> None:
    wishes = {f"day{n}": Wish(1.0, 1.0, jobs={f"day{n}": 1.0}) for n in range(12)}
    wishes["light"] = Wish(0.1, 1.0, jobs={"nightly": 0.1})
    first, part = seating(wishes, 2000.0, Random(seed), 8)["light"]
    assert first <= 600.0
    assert 0.002 <= part <= 0.2


def test_a_day_is_dealt_out_once() -> None:
    book, held = Book(), 0
    wish = Wish(1.0, 1.0, day=40, per_day=100)
    for who in "abcd":
        book, given_ = renew(book, who, wish, 1000.0)
        held += given_
    assert (held, book.day.given) == (100, 100)
    book = leave(book, "a", Wish(1.0, 1.0, drawn=Day(0, 25), per_day=100), 1001.0)
    assert "a" not in book.holders
    book, given_ = renew(book, "d", wish, 1002.0)
    assert given_ == 15
    book, given_ = renew(book, "d", wish, 86_400.0)
    assert given_ == 40


@pytest.mark.slow
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.3, 0.7]))
@settings(max_examples=50, deadline=None)
def test_of_a_day_nothing_is_dealt_twice_and_nothing_is_lost(seed: int, lost: float) -> None:
    """Writes are refused, and land though their answers are lost, those of leaving too.

    No entry runs out meanwhile: with it goes what its process was given and not told of, as in a
    crash.
    """
    rng, per_day, now = Random(seed), 300, 86_400.0 * 7
    quota = Quota(None, None, per_day)
    processes = {name: Allowance(quota, safe_share=0.1, midnight=inf, now=0.0) for name in "abcd"}
    book, used = Book(), 0
    for _ in range(2000):
        name, mine = rng.choice(list(processes.items()))
        now += rng.uniform(0.0, 0.03)
        fate = rng.random()
        if rng.random() < 0.1:
            wish = mine.wish(JobWeights(), 0, 0.0, leaving=True)
            mine.release()
            if name in book.holders and (fate >= lost or rng.random() < 0.5):
                book = leave(book, name, wish, now)
            continue
        wish = mine.wish(JobWeights(), 0, 0.0)
        fresh, given_ = renew(book, name, wish, now)
        if fate >= lost or rng.random() < 0.5:
            book = fresh
        if fate >= lost:
            mine.fund(Grant(1.0, inf, day=given_, date=book.day.date), wish, inf, 0.0)
        if mine.day_left:
            used += 1
            mine.spend(1.0, 0.0)
        assert used + sum(each.day_left for each in processes.values()) <= book.day.given
        assert book.day.given <= per_day
    assert used == per_day


def test_a_day_begins_once_though_front_ends_differ_about_midnight() -> None:
    wish = Wish(1.0, 1.0, day=60, per_day=100)
    book, first = renew(Book(), "a", wish, 86_399.0)
    book, second = renew(book, "a", replace(wish, drawn=Day(0, first)), 86_401.0)
    assert (first, second, book.holders["a"].drawn) == (60, 60, 60)
    book, third = renew(book, "b", wish, 86_399.0)
    assert (third, book.day) == (40, Day(1, 100))
    book, again = renew(book, "a", replace(wish, day=0, drawn=Day(1, 60)), 86_402.0)
    assert again == 0


def test_a_lot_of_yesterday_is_worth_nothing_today() -> None:
    mine = Allowance(Quota(None, None, 100), safe_share=0.1, midnight=10.0, now=0.0)
    mine.fund(Grant(1.0, inf, day=5, date=7), Wish(1.0, 1.0), 10.0, 0.0)
    mine.spend(1.0, 0.0)
    assert (mine.day_left, mine.used) == (4, Day(7, 1))
    mine.fund(Grant(1.0, inf, day=3, date=8), Wish(1.0, 1.0), 10.0 + 86_400.0, 10.0)
    assert (mine.day_left, mine.used) == (3, Day(8, 0))


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
    written: Holder | None = None
    since: float = 0.0


def handed_over(written: Holder, held: Holder) -> Holder:
    """An entry with what others may have changed of it."""
    return replace(written, share=held.share, seated=held.seated, since=held.since)


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
        jobs = {job: WEIGHTS[job] for job in rng.sample("pqrstuv", rng.randrange(4))}
        weight = sum(jobs.values()) or rng.choice([0.1, 1.0, 4.0])
        wish = Wish(weight, rng.uniform(0.05, 1.0), seats=4, jobs=jobs)
        read = self.book.holders
        fresh, _ = renew(self.book, process.name, wish, shown)
        self.now += rng.choice([0.0, rng.uniform(0.0, 3.0)])
        share = fresh.holders[process.name].share
        # As workers.quota.ledger does: what others handed over is used, and what is about to be
        # given up is not any more.
        held, written = read.get(process.name), process.written
        if written is not None and held is not None and held == handed_over(written, held):
            process.share, process.until = min(share, held.share), process.since + LEASE - MARGIN
        else:
            process.share = min(process.share, share)
        fate = rng.choice(["written", "written", "lost", "refused"])
        if self.book.holders is not read:
            fate = "refused"
        if fate != "refused":
            self.book = fresh
        if fate == "written":
            process.share, process.until = share, began + LEASE - MARGIN
            process.written, process.since = fresh.holders[process.name], began

    @property
    def used(self) -> float:
        """What all believe that they may use, at this moment."""
        return sum(p.share for p in self.processes if self.now + p.offset < p.until)


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_whatever_happens_all_together_use_at_most_all(seed: int) -> None:
    walk = Walk(Random(seed))
    for _ in range(300):
        walk.step()
        assert walk.used <= 1.0 + 1e-9
