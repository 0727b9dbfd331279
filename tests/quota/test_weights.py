"""Jobs weigh by their tenant first and by their own weight then, on one process or on many."""

from collections import Counter

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.quota.shares import Book, Wish, job_parts, renew
from workers.quota.weights import JOBS, JobWeights, effective, named, weighed

jobs = st.dictionaries(
    st.sampled_from("pqrstuvw"), st.sampled_from((0.1, 1.0, 2.5, 4.0)), min_size=1
)
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
