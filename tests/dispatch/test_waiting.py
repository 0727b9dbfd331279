"""What the ledger of a deployment is told of the calls that wait."""

from math import inf
from random import Random
from typing import Any

import pytest

from schemas.deployments import Deployment
from workers.dispatch.call import Gate
from workers.dispatch.lane import Lane
from workers.dispatch.waiting import Group, Pool


def lane(name: str) -> Lane:
    at: dict[str, Any] = {
        "kind": "openai",
        "url": f"https://{name}.invalid/v1",
        "model": "phi",
        "auth": "none",
    }
    deployment = Deployment(name=name, requests_per_minute=60, **at)
    return Lane(deployment, safe_share=0.1, midnight=inf, now=0.0, rng=Random(1))


def test_calls_count_where_they_may_go() -> None:
    one, other = lane("one"), lane("other")
    pool = Pool([one, other])
    both, there = Group((one, other), pool), Group((other,), pool)
    calls: list[Any] = [object() for _ in range(6)]
    for job, group, call in zip(
        "aaaaab", [both, both, there, there, there, there], calls, strict=True
    ):
        pool.begin(job, 1.0, ("default", 1.0))
        pool.queue.push(job, (Gate(inf, inf), group), call, servers=group.lanes)
    assert pool.jobs_at(one).waiting == {"a": 2, "b": 0}
    assert pool.jobs_at(other).waiting == {"a": 5, "b": 1}
    assert pool.jobs_at(one).jobs == pool.jobs().jobs == {"a": 1.0, "b": 1.0}


def test_a_job_weighs_what_the_ledger_has_told_by_now() -> None:
    at = lane("one")
    pool = Pool([at])
    for job, weight in (("night", 0.1), ("day", 0.2)):
        pool.begin(job, weight, ("default", 1.0))
    assert pool.weight("day", at) == 2 * pool.weight("night", at)
    at.allowance.parts = {"night": 0.025, "day": 0.1}
    assert pool.weight("day", at) == 4 * pool.weight("night", at)
    pool.begin("new", 0.3, ("default", 1.0))
    assert pool.weight("new", at) == pytest.approx(0.5)
