"""A crash at every durable operation of whole jobs, before it and after it.

One worker runs a job; it is killed at its n-th effect on storage, bus or endpoint, and others take
over with redelivery and the sweeper, until nothing moves. In `make test-long` n walks over every
effect, before it and after it; in `make test` over the first of each site in a job, after it.
"""

import concurrent.futures
import dataclasses
import json
from collections.abc import Sequence
from typing import Any, Literal

import pytest

from schemas.jobs import TERMINAL
from tests.doubles.faults import EFFECTS
from tests.simulation.checker import check
from tests.simulation.faults import Befalls
from tests.simulation.process import Process
from tests.simulation.scenario import Act, Doing, Mishap, RowKind, Scenario, Span, version
from tests.simulation.sites import Fault, site
from tests.simulation.world import World, live

Phase = Literal["before", "after"]

ROWS: Sequence[RowKind] = (
    "chat",
    "embedding",
    "invalid",
    "embedding",
    "chat",
    "duplicate",
    "filtered",
    "chat",
)
PLAIN = Scenario(
    files=(version("a.jsonl", 1, ROWS, gaps=(3,)),),
    workers=1,
    shard_rows=3,
    window=2,
    journal_seconds=1.0,
    slice_seconds=0.001,
    latency=0.1,
)


def _like(scenario: Scenario = PLAIN, **changes: Any) -> Scenario:
    return dataclasses.replace(scenario, **changes)


def _when_asked(scenario: Scenario, act: Act) -> Scenario:
    return _like(scenario, script=(Mishap("ask", "a.jsonl/1/1/", act=act),))


# The storm has the shards handed back; slow services leave room for whoever acts meanwhile.
STORM = (Span(0.0, 20.0),)
# Twice, because a crash may put off the pause.
RESUMED = (Doing(30.0, "resume"), Doing(900.0, "resume"))
SLOW = _like(latency=2.0, window=1)
JOBS = {
    "errors, hand-backs and slices": _like(shard_seconds=10.0, storms=STORM),
    "queued, one call at a time": _like(queued=True, max_concurrency=1),
    "cancel": _when_asked(SLOW, "cancel"),
    "cancel before there is a plan": _like(
        SLOW, script=(Mishap("send", ":job.validating", act="cancel"),)
    ),
    "expiry": _like(SLOW, completion_window="4s"),
    "pause and resume": _when_asked(_like(SLOW, doings=RESUMED), "pause"),
    "overwritten while it runs": _when_asked(SLOW, "overwrite"),
    "a cap that does not suffice": _like(options={"max_tokens": 20, "max_total_tokens": 500}),
    "a pause until the month has room": _like(
        files=(version("a.jsonl", 1, ("chat",) * 4), version("b.jsonl", 1, ("chat",) * 4)),
        options={"max_tokens": 20, "on_budget": "pause"},
        # A call that may have been billed leaves no room: what waits then, waits to its window.
        completion_window="1h",
        month_cap=0.0012,
    ),
    "announced twice": _like(doings=(Doing(0.0, "announce"), Doing(0.3, "announce"))),
}
ENDS = {
    "cancel": ["job.cancelled"],
    "cancel before there is a plan": ["job.cancelled"],
    "expiry": ["job.expired"],
    "overwritten while it runs": ["job.completed", "job.failed"],
    "a pause until the month has room": ["job.completed", "job.completed"],
}


class CrashPoint:
    """Kills the process that makes the n-th durable effect, before or after it, once."""

    def __init__(self, nth: int, phase: Phase) -> None:
        self.nth = nth
        self.phase = phase
        self.sites: list[str] = []

    def __call__(self, process: Process, kind: str, what: str) -> Fault | None:
        if kind not in EFFECTS and kind != "ask":
            return None
        self.sites.append(site(kind, what))
        if len(self.sites) != self.nth:
            return None
        return "kill before" if self.phase == "before" else "kill after"


def crashed(job: str, nth: int, phase: Phase) -> World:
    """A job's world with a crash at one effect."""
    return live(JOBS[job], faults=lambda: CrashPoint(nth, phase))


def effects(job: str) -> list[str]:
    """The sites of the durable effects of a job that nothing befalls, in their order."""
    point = CrashPoint(0, "before")
    world = live(JOBS[job], faults=lambda: point)
    assert check(world) == []
    assert world.host.kills == 0
    return point.sites


def walk(job: str, points: Sequence[int], *phases: Phase) -> list[str]:
    """Crash at these effects of a job, each in a world of its own; gives what is wrong."""
    wrong = []
    for nth in points:
        for phase in phases:
            world = crashed(job, nth, phase)
            if world.host.kills != 1:
                wrong.append(f"{phase} effect {nth}: nobody crashed")
            wrong += [f"{phase} effect {nth}: {fault}" for fault in check(world)]
    return wrong


@pytest.mark.parametrize("job", JOBS)
def test_a_crash_at_each_site_of_a_job_ends_with_every_row_once(job: str) -> None:
    sites = effects(job)
    firsts = [nth for nth, place in enumerate(sites, 1) if sites.index(place) == nth - 1]
    assert len(firsts) > 30
    assert walk(job, firsts, "after") == []


# What a crash before an effect leaves is mostly what one after the effect before it left, but for
# reads and for what goes on beside it.
@pytest.mark.long
@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("job", JOBS)
def test_every_crash_point_of_a_job_ends_with_every_row_once(job: str, phase: Phase) -> None:
    points = range(1, len(effects(job)) + 1)
    assert len(points) > 50
    assert walk(job, points, phase) == []


@pytest.mark.parametrize("job", JOBS)
def test_without_a_crash_the_jobs_are_what_they_are_called(job: str) -> None:
    world = live(JOBS[job])
    told = [json.loads(message.body)["type"] for message in world.bus.published["job-status"]]
    ends = sorted(kind for kind in told if kind.removeprefix("job.") in TERMINAL)
    assert ends == ENDS.get(job, ["job.completed"])
    assert ("job.paused" in told) == ("pause" in job)
    all_data = [json.loads(m.body)["data"] for m in world.bus.published["job-status"]]
    counted = [data["counts"]["total"] for data in all_data if "counts" in data]
    assert (0 in counted) == ("before" in job)


def test_the_walk_goes_through_every_kind_of_effect() -> None:
    seen: set[str] = set()

    def noting(job: str) -> Befalls:
        def note(process: Process, kind: str, name: str) -> Fault | None:
            seen.add(kind)
            return None

        return note

    for job, scenario in JOBS.items():
        live(scenario, faults=lambda: noting(job))  # noqa: B023 - called at once
    assert seen >= EFFECTS - {"renew_lease"}
    assert "ask" in seen


def both(job: str) -> tuple[int, list[str]]:
    points = range(1, len(effects(job)) + 1)
    return 2 * len(points), walk(job, points, "before", "after")


if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor() as pool:
        for job, (points, wrong) in zip(JOBS, pool.map(both, JOBS), strict=True):
            print(f"{job}: {points} points", *wrong, sep="\n  ")
