"""The list of sites is the code's: every place in it that calls a service is met by a world."""

import ast
import inspect
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import pytest

from tests.simulation import coverage
from tests.simulation.checker import check
from tests.simulation.circumstances import made_for
from tests.simulation.faults import Befalls
from tests.simulation.host import QUEUES
from tests.simulation.process import Process
from tests.simulation.scenario import Mishap, Scenario, Span, version
from tests.simulation.seeds import see
from tests.simulation.sites import APART, SITES, Fault
from tests.simulation.swarm import scenario
from tests.simulation.world import World, live
from workers.ports import Blobs, Bus, Endpoint

WORKERS = Path(__file__).parents[2] / "workers"

# What no world of a seed comes to, and what does instead: a folder, a file, or a function of it.
ELSEWHERE = {
    "api/health.py": "asked by probes: tests/api",
    "api/links.py": "files of results over HTTP: tests/api",
    "api/openai/": "doors for programs of the OpenAI Batch API: tests/openai",
    "files/": "the files of those doors, and what is deleted of them: tests/openai",
    "quota/health.py": "what processes tell of deployments: tests/quota",
    "quota/claims.py": "claims to make such a call: tests/quota, test_quota_dispatch.py",
    "dispatch/probe.py": "asked where all rows of a job meet 500s: tests/dispatch",
    "dispatch/routing.py": "what an endpoint says of itself: tests/dispatch",
    "intake/walking.py": "walks at night, or where an event was lost: test_month.py",
    "intake/scanning.py": "reads ahead in a task, in which its caller does not show",
    "jobs/history.py read": "how jobs went, over HTTP: tests/jobs",
    "jobs/history.py series": "the same of jobs that have ended: tests/jobs",
    "jobs/index.py": "pages of jobs over HTTP: tests/jobs",
    "jobs/results.py read_manifest": "files of results over HTTP: tests/openai",
    "jobs/results.py _is_made_of": "files that the release 0.1.0 wrote: tests/jobs",
    "jobs/outbox.py put_back_webhook": "what newer versions send: tests/webhooks",
    "jobs/outbox.py put_webhook": "where a tenant has a receiver: test_webhooks.py",
    "jobs/store.py read ": "by a store that keeps no time of the service's: tests/jobs",
}
QUIET = Scenario(files=(version("f0.jsonl", 1, ("chat",) * 9),))
RECEIVERS = frozenset({"blobs", "_blobs", "bus", "_bus", "endpoint", "_endpoint", "_endpoints"})
METHODS = frozenset(
    name
    for port in (Blobs, Bus, Endpoint)
    for name, _ in inspect.getmembers(port, inspect.isfunction)
    if not name.startswith("_")
)


def _receiver(called: ast.expr) -> str:
    """What a call is made on, by its last name."""
    if isinstance(called, ast.Subscript):
        return _receiver(called.value)
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def _calls(function: ast.AST) -> Iterator[ast.Attribute]:
    for node in ast.walk(function):
        called = node.func if isinstance(node, ast.Call) else None
        method = isinstance(called, ast.Attribute) and called.attr in METHODS
        if isinstance(called, ast.Attribute) and method and _receiver(called.value) in RECEIVERS:
            yield called


def calls_of_services() -> dict[str, tuple[str, range]]:
    """For each call of a port in production its function; file and lines at which it begins."""
    found = {}
    for file in sorted(WORKERS.rglob("*.py")):
        if "adapters" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.AsyncFunctionDef):
                continue
            for call in _calls(node):
                name = f"{file.relative_to(WORKERS)} {node.name} {call.lineno}"
                lines = range(call.lineno, (call.end_lineno or call.lineno) + 1)
                found[name] = str(file), lines
    return found


def _caller(frame: FrameType | None) -> tuple[str, int]:
    """The nearest place in production that a call comes from."""
    while frame is not None and not frame.f_code.co_filename.startswith(str(WORKERS)):
        frame = frame.f_back
    return ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


@cache
def _worlds() -> tuple[dict[str, World], set[tuple[str, int]]]:
    """A world for each site that is made to come to it; where production called from in them."""
    places = set()

    def watching() -> Befalls:
        def nothing(_process: Process, _kind: str, _what: str) -> Fault | None:
            places.add(_caller(sys._getframe()))
            return None

        return nothing

    # Most sites need nothing made for them: the world is the same, and lived once.
    lived: list[World] = []

    def met(site: str) -> World:
        """A world that comes to a site; the last of some where none does."""
        for seed in range(101, 109):
            made = made_for(scenario(seed), site, Random(seed))
            same = (world for world in lived if world.scenario == made)
            world = next(same, None) or live(made, faults=watching)
            lived.append(world)
            if site in world.faults.met:
                return world
        return world

    return {site: met(site) for site in SITES}, places


# In one process, which lives the worlds once for all that look at them.
together = pytest.mark.xdist_group(__name__)


@together
def test_a_world_comes_to_every_site() -> None:
    worlds, _ = _worlds()
    assert [site for site, world in worlds.items() if site not in world.faults.met] == []
    assert {site: faults for site, world in worlds.items() if (faults := check(world))} == {}


@together
def test_no_world_comes_to_a_site_that_is_not_listed() -> None:
    worlds, _ = _worlds()
    assert set().union(*(world.faults.met for world in worlds.values())) - set(SITES) == set()


@together
def test_a_world_comes_to_every_place_in_the_code_that_calls_a_service() -> None:
    _, places = _worlds()
    unmet = {
        name
        for name, (file, lines) in calls_of_services().items()
        if not any((file, line) in places for line in lines)
    }
    assert [name for name in unmet if not name.startswith(tuple(ELSEWHERE))] == []
    for place in ELSEWHERE:
        assert any(name.startswith(place) for name in unmet), f"a world comes to {place}"


def test_what_many_worlds_never_come_to_is_told_and_what_few_do_not_is_no_fault() -> None:
    rare, *others = coverage.pairs()
    place, fault = rare
    most, enough = Counter(others), coverage.ENOUGH_WORLDS
    assert coverage.gaps(most, set(SITES), enough) == [f"NEVER HIT: {fault} at {place}"]
    assert coverage.gaps(most, set(SITES), enough - 1) == []
    assert coverage.gaps(most + Counter([rare]), set(SITES), enough) == []
    assert coverage.gaps(most, {*SITES, "elsewhere"}, 1) == ["UNKNOWN SITE: elsewhere"]
    odd: coverage.Struck = Counter([("deliver jobs", "storm")])
    assert coverage.gaps(odd, set(SITES), 1) == ["UNKNOWN PAIR: storm at deliver jobs"]


def test_only_what_can_befall_a_site_does() -> None:
    struck = [see(seed).struck for seed in range(12)]
    assert set().union(*struck) <= set(coverage.pairs())


def _struck(made: Scenario, **more: Any) -> coverage.Struck:
    world = live(replace(made, **more))
    assert check(world) == []
    return world.faults.struck


def test_each_429_of_a_storm_is_counted() -> None:
    world = live(replace(QUIET, storms=(Span(0.0, 30.0),)), keep=True)
    assert check(world) == []
    told = sum(" ask " in line and line.endswith(" throttled") for line in world.log or ())
    assert told
    assert world.faults.struck == {("ask", "storm"): told}


@pytest.mark.parametrize("place", [place for place in SITES if place.startswith("deliver ")])
def test_a_lock_that_is_taken_away_is_counted_at_its_queue(place: str) -> None:
    made = made_for(QUIET, place, Random(1))
    about = place.removeprefix("deliver ") + " "
    taken = Mishap("deliver", about, "lose after", seconds=0.0)
    before = _struck(made)
    assert _struck(made, script=(*made.script, taken))[place, "unlock"] == 1
    assert not before[place, "unlock"]
    done_by_then = replace(taken, seconds=3600.0)
    assert _struck(made, script=(*made.script, done_by_then)) == before


def test_what_is_counted_apart_is_what_no_focus_aims_at() -> None:
    apart = {(place, fault) for place, fault in coverage.pairs() if fault in APART}
    queues = {f"deliver {queue}" for queue in QUEUES}
    assert apart == {("ask", "storm"), *((place, "unlock") for place in queues)}
