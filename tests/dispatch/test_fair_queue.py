"""Jobs share by weight, in tokens; small ones are served at once; nothing leaks."""

from collections.abc import Mapping
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.dispatch.fair_queue import FairQueue

Queue = FairQueue[str, tuple[str, int]]


def everything(key: str) -> bool:
    return True


def serve(
    queue: Queue, costs: dict[str, float], count: int, weights: Mapping[str, float] = {}
) -> list[str]:
    served = []
    for _ in range(count):
        flow = queue.select(everything)
        if flow is None:
            break
        job, _ = queue.take(flow, costs[flow.job], weights.get(flow.job, 1.0))
        served.append(job)
    return served


@pytest.mark.slow
@given(
    weights=st.lists(st.floats(0.1, 8.0), min_size=2, max_size=6),
    costs=st.lists(st.floats(1.0, 1000.0), min_size=6, max_size=6),
)
def test_jobs_share_tokens_by_weight(weights: list[float], costs: list[float]) -> None:
    queue: Queue = FairQueue()
    jobs = {f"j{n}": weight for n, weight in enumerate(weights)}
    each = {f"j{n}": cost for n, cost in enumerate(costs)}
    for job in jobs:
        for n in range(3000):
            queue.push(job, "k", (job, n))
    served = serve(queue, each, 3000, jobs)
    spans = [served.count(job) * each[job] / weight for job, weight in jobs.items()]
    largest = max(each[job] / weight for job, weight in jobs.items())
    assert max(spans) - min(spans) <= 2 * largest + 1e-6


def test_a_small_job_behind_a_huge_one_is_served_at_once() -> None:
    queue: Queue = FairQueue()
    for n in range(10_000):
        queue.push("huge", "k", ("huge", n))
    serve(queue, {"huge": 300.0}, 5_000)
    for n in range(10):
        queue.push("small", "k", ("small", n))
    served = serve(queue, {"huge": 300.0, "small": 300.0}, 20)
    assert "small" in served[:2]
    assert served.count("small") >= 9


def test_a_nightly_job_yields_to_daytime_jobs() -> None:
    queue: Queue = FairQueue()
    for n in range(1000):
        queue.push("nightly", "k", ("nightly", n))
        queue.push("day", "k", ("day", n))
    costs = {"nightly": 100.0, "day": 100.0}
    served = serve(queue, costs, 550, {"nightly": 0.1, "day": 1.0})
    assert served.count("day") == pytest.approx(500, abs=2)
    # It counts what they weigh when they go, and not when they came.
    served = serve(queue, costs, 400, {"nightly": 0.1, "day": 0.1})
    assert served.count("day") == pytest.approx(200, abs=2)


def test_a_job_that_was_away_cannot_save_up() -> None:
    queue: Queue = FairQueue()
    queue.push("a", "k", ("a", -1))
    for n in range(2000):
        queue.push("b", "k", ("b", n))
    serve(queue, {"a": 10.0, "b": 10.0}, 1000)
    for n in range(500):
        queue.push("a", "k", ("a", n))
    served = serve(queue, {"a": 10.0, "b": 10.0}, 100)
    assert served.count("b") == pytest.approx(50, abs=2)


def test_only_what_is_eligible_is_selected_and_the_rest_keeps_its_place() -> None:
    queue: Queue = FairQueue()
    queue.push("a", "down", ("a", 1))
    queue.push("b", "up", ("b", 1))
    flow = queue.select(lambda key: key == "up")
    assert flow is not None
    assert queue.take(flow, 1.0) == ("b", 1)
    assert queue.select(lambda key: key == "up") is None
    assert queue.waiting == 1


def test_what_was_refused_goes_first_again() -> None:
    queue: Queue = FairQueue()
    queue.push("a", "k", ("a", 1))
    queue.push("a", "k", ("a", 0), first=True)
    assert serve(queue, {"a": 1.0}, 1) == ["a"]
    flow = queue.select(everything)
    assert flow is not None
    assert flow.head == ("a", 1)


def test_the_last_row_of_a_shard_goes_before_the_next_shard_when_it_comes_back() -> None:
    queue: Queue = FairQueue()
    queue.push("job", "shard 1", ("job", 1))
    queue.push("job", "shard 2", ("job", 2))
    refused = queue.select(everything)
    assert refused is not None
    assert queue.take(refused, 1.0) == ("job", 1)
    queue.push("job", "shard 1", ("job", 1), first=True)
    again = queue.select(everything)
    assert again is not None
    assert again.head == ("job", 1)


@given(st.integers(0, 2**32))
def test_nothing_is_lost_or_left_behind(seed: int) -> None:
    rng = Random(seed)
    queue: Queue = FairQueue()
    inside: set[tuple[str, str, int]] = set()
    for n in range(300):
        job, key = rng.choice("abc"), rng.choice("xy")
        what = rng.random()
        if what < 0.5:
            queue.push(job, key, (job, n))
            inside.add((job, key, n))
        elif what < 0.7 and inside:
            job, key, gone = rng.choice(sorted(inside))
            assert queue.remove(job, key, (job, gone))
            assert not queue.remove(job, key, (job, gone))
            inside.remove((job, key, gone))
        elif (flow := queue.select(everything)) is not None:
            job, taken = queue.take(flow, rng.uniform(1, 500), rng.choice([0.1, 1.0, 4.0]))
            inside.remove((job, flow.key, taken))
        assert queue.waiting == len(inside)
    while (flow := queue.select(everything)) is not None:
        queue.take(flow, 1.0)
    assert queue.waiting == 0
    assert not queue.flows()
    assert not queue._turns
