"""Jobs weigh by their tenant first and by their own weight then, on one process or on many."""

from collections import Counter
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.quota.book import Book, Wish
from workers.quota.shares import job_parts, renew
from workers.quota.weights import (
    FEWEST,
    JOBS,
    STAYS,
    JobWeights,
    counted,
    effective,
    named,
    parts,
    weighed,
    within,
)

jobs = st.dictionaries(
    st.sampled_from("pqrstuvw"), st.sampled_from((0.1, 1.0, 2.5, 4.0)), min_size=1
)
counts = st.integers(FEWEST, 5000)
BLUE, RED = ("blue", 2.0), ("red", 0.5)
TENANTS = {"p": BLUE, "q": BLUE, "r": RED, "s": RED, "t": RED}
WEIGHT_OF = {"blue": 2.0, "red": 0.5, "default": 1.0}


def tenant(job: str) -> str:
    return TENANTS.get(job, ("default", 1.0))[0]


@given(jobs)
def test_tenants_weigh_what_is_agreed_and_their_jobs_share_it(asked: dict[str, float]) -> None:
    weights = weighed(asked, TENANTS)
    assert sum(weights.values()) == pytest.approx(sum(asked.values()))
    of_tenant: Counter[str] = Counter()
    for job, weight in weights.items():
        of_tenant[tenant(job)] += weight  # type: ignore[assignment]
        for other in asked.keys() - {job}:
            if tenant(other) == tenant(job):
                assert weight / weights[other] == pytest.approx(asked[job] / asked[other])
    units = [weight / WEIGHT_OF[name] for name, weight in of_tenant.items()]
    assert units == pytest.approx([units[0]] * len(units))


@given(jobs)
def test_without_tenants_jobs_weigh_what_they_weigh(asked: dict[str, float]) -> None:
    assert weighed(asked, {}) == asked
    assert weighed(asked, dict.fromkeys(asked, BLUE)) == asked


@given(jobs, st.lists(st.sets(st.sampled_from("pqrstuvw"), min_size=1), min_size=1, max_size=6))
def test_it_is_the_same_on_however_many_processes(
    asked: dict[str, float], spread: list[set[str]]
) -> None:
    book = Book()
    for number, some in enumerate([*spread, set(asked)]):
        own = {job: asked[job] for job in some if job in asked}
        if own:
            book, _ = renew(book, str(number), wish(own), 5.0)
    expected = weighed(asked, TENANTS)
    found: Counter[str] = Counter()
    assert sum(effective(book.holders).values()) == pytest.approx(sum(expected.values()))
    for name in book.holders:
        for job, part in job_parts(book.holders, name).items():
            found[job] += part  # type: ignore[assignment]
    assert dict(found) == pytest.approx(dict(expected))


def test_each_tenant_has_its_part_however_many_jobs_an_entry_names() -> None:
    own = {f"{name}-{n:03}": 1.0 for name in ("blue", "red", "default") for n in range(100)}
    whose = {job: (job[:-4], 1.0) for job in own if not job.startswith("default")}
    entry = named(JobWeights(own, whose))
    assert len(entry.jobs) <= JOBS + 3
    of_tenant: Counter[str] = Counter()
    for job, weight in weighed(entry.jobs, entry.tenants).items():
        of_tenant[entry.tenants.get(job, ("default", 1.0))[0]] += weight  # type: ignore[assignment]
    assert of_tenant == pytest.approx({"blue": 100.0, "red": 100.0, "default": 100.0})


def wish(own: dict[str, float]) -> Wish:
    asked = JobWeights(own, {job: TENANTS[job] for job in own if job in TENANTS})
    return Wish(asked.weight, 1.0, jobs=asked.jobs, tenants=asked.tenants)


@given(jobs, st.lists(st.dictionaries(st.sampled_from("pqrstuvw"), counts, min_size=1), min_size=1))
def test_a_job_falls_to_its_processes_by_their_calls_that_wait(
    weights: dict[str, float], waiting: list[dict[str, int]]
) -> None:
    asked = {
        str(n): JobWeights({job: weights.get(job, 1.0) for job in calls}, TENANTS, calls)
        for n, calls in enumerate(waiting)
    }
    found = parts(asked)
    every = {job: weights.get(job, 1.0) for calls in waiting for job in calls}
    for job, whole in weighed(every, TENANTS).items():
        calls = sum(each.get(job, 0) for each in waiting)
        assert sum(each.get(job, 0.0) for each in found.values()) == pytest.approx(whole)
        for name, each in asked.items():
            if job in each.jobs:
                assert found[name][job] == pytest.approx(whole * each.waiting[job] / calls)


def test_beside_one_that_drops_what_waits_nothing_of_the_quota_lies_idle() -> None:
    """As workers of 0.1.0 do, with the entries of all, whatever jobs these ask."""
    wishes = {
        "old": Wish(1.0, 1.0, jobs={"q": 1.0}),
        "one": Wish(1.0, 1.0, jobs={"p": 1.0}, waiting={"p": 3000}),
        "two": Wish(1.0, 1.0, jobs={"p": 1.0}, waiting={"p": 150}),
    }
    book = Book()
    for turn in range(12):
        for name, wish in wishes.items():
            book, _ = renew(book, name, wish, float(turn))
            if name == "old":
                own = {who: replace(held, waiting={}) for who, held in book.holders.items()}
                book = replace(book, holders=own)
    assert [book.holders[name].share for name in wishes] == pytest.approx([0.5, 0.25, 0.25])


def test_jobs_that_an_entry_counts_together_fall_evenly_to_those_who_ask_them() -> None:
    asked = {
        name: JobWeights({"p": 1.0, "": 2.0}, {}, {"p": calls})
        for name, calls in (("a", 100), ("b", 300))
    }
    assert parts(asked) == {"a": {"p": 0.25, "": 1.0}, "b": {"p": 0.75, "": 1.0}}


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=50))
def test_small_changes_of_what_waits_move_no_share(calls: list[int]) -> None:
    count: int | None = None
    for waiting in calls:
        before, count = count, counted(waiting, count)
        now = max(FEWEST, waiting)
        if not waiting:
            assert count == 0
        elif not before or not before / STAYS <= now <= before * STAYS:
            assert count == now
        else:
            assert count == before


def test_jobs_of_one_process_weigh_what_falls_to_it() -> None:
    # On four processes 0.1 and on two 0.2: a quarter and a half of that is here.
    assert within({"night": 0.025, "day": 0.1}, {"night": 0.1, "day": 0.2}) == pytest.approx(
        {"night": 0.2, "day": 0.8}
    )
    # Of one that has just come, or that an entry does not name, nothing is told.
    found = within({"night": 0.025, "day": 0.1}, {"night": 0.1, "day": 0.2, "new": 0.3})
    assert found["new"] == pytest.approx(0.5)
    assert found["day"] == pytest.approx(4 * found["night"])
    # Without a ledger they have their own weights, and what is told of others does not matter.
    assert within({}, {"night": 0.1, "day": 0.4}) == pytest.approx({"night": 0.2, "day": 0.8})
    assert within({"gone": 3.0}, {"day": 0.4}) == {"day": 1.0}


def test_what_waits_is_stored_as_it_counts() -> None:
    asked = {"p": 1.0}
    book, _ = renew(Book(), "a", Wish(1.0, 1.0, jobs=asked, waiting={"p": 500}), 5.0)
    book, _ = renew(book, "a", Wish(1.0, 1.0, jobs=asked, waiting={"p": 499}), 6.0)
    loaded = Book.load(book.dump())
    assert loaded == book
    assert loaded.holders["a"].waiting == {"p": 500}
    book, _ = renew(book, "a", Wish(1.0, 1.0, jobs=asked, waiting={"p": 9}), 7.0)
    assert book.holders["a"].waiting == {"p": FEWEST}
    # That none waits is told, too, and its part is as if few did.
    book, _ = renew(book, "a", Wish(1.0, 1.0, jobs=asked, waiting={"p": 0}), 8.0)
    book, _ = renew(book, "b", Wish(1.0, 1.0, jobs=asked, waiting={"p": 300}), 8.0)
    loaded = Book.load(book.dump())
    assert loaded == book
    assert loaded.holders["a"].waiting == {"p": 0}
    assert effective(loaded.holders) == {"a": 0.25, "b": 0.75}


def test_tenants_are_stored_and_entries_without_them_are_the_defaults() -> None:
    book, _ = renew(Book(), "a", wish({"p": 1.0, "w": 1.0}), 5.0)
    assert Book.load(book.dump()) == book
    stored = orjson.loads(book.dump())
    assert stored["holders"]["a"]["tenants"] == {"p": ["blue", 2.0]}
    del stored["holders"]["a"]["tenants"]
    old = Book.load(orjson.dumps(stored))
    assert old is not None
    assert job_parts(old.holders, "a") == {"p": 1.0, "w": 1.0}
    assert job_parts(book.holders, "a") == pytest.approx({"p": 4 / 3, "w": 2 / 3})
