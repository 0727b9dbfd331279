"""What a world has to be like to come to a place in the code that few worlds come to.

A world that has its faults at such a site is made so that it calls there: a file with duplicates,
a journal that is full after two appends, a plan that takes longer than a lease lasts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from tests.simulation.scenario import Act, Doing, Mishap, RowKind, Scenario, Span, version

Make = Callable[[Random], Mapping[str, Any]]


def _file(rng: Random, *odd: RowKind) -> Mapping[str, Any]:
    """One file of twenty rows, these among them."""
    usual: RowKind = "chat"
    kinds = [usual] * (20 - 2 * len(odd)) + [*odd, *odd]
    rng.shuffle(kinds)
    return {"files": (version("f0.jsonl", 1, ("chat", *kinds)),), "shard_rows": 8}


def _busy(rng: Random) -> Mapping[str, Any]:
    """A job that takes a while: one row after the other, and slowly."""
    slow = {"latency": 4.0, "max_concurrency": 1, "workers": rng.randint(2, 3)}
    return {**_file(rng), **slow, "completion_window": "24h"}


def _full_journals(rng: Random) -> Mapping[str, Any]:
    # No fewer: what the SDK repeats, and what comes late, may fill a blob that was just created.
    often = {"append_blocks": 6, "journal_seconds": 1.0, "latency": 6.0, "doings": ()}
    return {**_busy(rng), **often, "shard_rows": 20, "shard_seconds": rng.choice((30.0, 50.0))}


def _duplicates(rng: Random) -> Mapping[str, Any]:
    return _file(rng, "duplicate", "duplicate", "embedding")


def _unfit(rng: Random) -> Mapping[str, Any]:
    """A file that fails its job before a row is asked."""
    return {**_file(rng, "invalid"), "options": {"on_invalid": "fail"}, "doings": ()}


def _failing(rng: Random) -> Mapping[str, Any]:
    """The same, or a file that is written again while its rows are asked."""
    if rng.random() < 0.4:
        return _unfit(rng)
    return {**_busy(rng), "doings": (Doing(rng.uniform(2.0, 15.0), "overwrite"),)}


def _slow_plan(rng: Random) -> Mapping[str, Any]:
    seconds = rng.uniform(20.0, 90.0)
    return {"script": (Mishap("create", "/plan.jsonl", "slow", seconds=seconds),)}


def _stuck_plan(rng: Random) -> Mapping[str, Any]:
    """A plan that takes so long that the sweeper announces its file once more."""
    slow = Mishap("create", "/plan.jsonl", "slow", seconds=rng.uniform(1300.0, 2500.0))
    # Copies that wait for it breed where each may come twice, so that faults end as elsewhere.
    ends = {"faults_until": 900.0, "endless": False}
    return {**_file(rng), "script": (slow,), "workers": 3, **ends}


def _two_plans(rng: Random) -> Mapping[str, Any]:
    """Two workers come to one file at a time."""
    if rng.random() < 0.3:
        return _stuck_plan(rng)
    again = Doing(rng.uniform(1.0, 4.0), "announce")
    return {**_slow_plan(rng), "doings": (again,), "workers": 3, "queued": False}


def _fruitless(rng: Random) -> Mapping[str, Any]:
    """Attempts that end with nothing to say: no endpoint answers."""
    return {**_file(rng), "outages": (Span(0.0, 300.0),), "completion_window": "24h"}


def _in_slices(rng: Random) -> Mapping[str, Any]:
    """A shard that several attempts work at."""
    return {**_busy(rng), "shard_seconds": 5.0}


def _with_errors(rng: Random) -> Mapping[str, Any]:
    return {**_file(rng, "filtered", "refused", "unknown"), "shard_rows": 3}


def _asked_in_vain(_rng: Random) -> Mapping[str, Any]:
    """A request that storage does not let through."""
    again = (Mishap("create", "/open/", "lose before", nth=nth) for nth in (1, 2, 3))
    return {"queued": True, "script": tuple(again)}


def _nothing_there(rng: Random) -> Mapping[str, Any]:
    times = rng.randint(1, 4)
    return {"doings": tuple(Doing(rng.uniform(0.0, 60.0), "misname", at) for at in range(times))}


def _long_pause(rng: Random) -> Mapping[str, Any]:
    """A job that is open for hours, so that the sweeper looks at it again and again."""
    doings = (Doing(rng.uniform(0.5, 2.0), "pause"), Doing(7200.0, "resume"))
    # Faults last four times as long as in any other world: so many more die of them.
    return {
        **_busy(rng),
        "doings": doings,
        "faults_until": 3600.0,
        "endless": False,
        "most_lives": 800,
        "most_deliveries": 8_000,
    }


def _cancelled(rng: Random) -> Mapping[str, Any]:
    return {**_busy(rng), "doings": (Doing(rng.uniform(1.0, 20.0), "cancel"),)}


def _expired(rng: Random) -> Mapping[str, Any]:
    return {**_busy(rng), "completion_window": "20s", "doings": ()}


def _paused(rng: Random) -> Mapping[str, Any]:
    """Paused and resumed over and over: users do not ask again where an answer is lost."""
    acts: Sequence[Act] = ("pause", "resume") * 5
    times = sorted(rng.uniform(6.0, 120.0) for _ in acts)
    doings = tuple(Doing(at, act) for at, act in zip(times, acts, strict=True))
    return {**_busy(rng), "latency": 8.0, "doings": (*doings, Doing(300.0, "resume"))}


def _limited(rng: Random) -> Mapping[str, Any]:
    return {"requests_per_minute": rng.choice((30.0, 600.0)), "workers": rng.randint(2, 3)}


def _indexed_before(_rng: Random) -> Mapping[str, Any]:
    """A job that was indexed, but nobody was told that it was."""
    return {"script": (Mishap("create", "/index/", "lose after"),)}


def _written_before(name: str, kind: str = "commit") -> Make:
    """Results that stand already: nobody was told, or they are somebody else's."""

    def make(rng: Random) -> Mapping[str, Any]:
        lost = Mishap(kind, name, "lose after")
        other = Mishap("read", "/receipts/", act="squat", nth=rng.randint(1, 4))
        return {"script": (rng.choice((lost, other)),)}

    return make


def _withdrawn(rng: Random) -> Mapping[str, Any]:
    """A file that is gone about when it is looked at, so that it becomes no job."""
    return {"doings": (Doing(rng.choice((0.0, 0.2)), "delete"),)}


def _discarded(_rng: Random) -> Mapping[str, Any]:
    """Blocks of the first file that are gone when they are to be committed."""
    return {"script": (Mishap("commit", "/f0/*/errors.jsonl", act="discard"),)}


def _given_up(queue: str) -> Make:
    """A message whose lock is taken away each time that somebody has it, until it is dead."""

    def make(_rng: Random) -> Mapping[str, Any]:
        taken = (
            Mishap("deliver", f"{queue} ", "lose after", nth=nth, seconds=0.0) for nth in (1, 2)
        )
        return {"script": tuple(taken), "max_deliveries": 2}

    return make


_MAKINGS: Mapping[str, Make] = {
    "/journal/#/*-#": _full_journals,
    "/duplicates": _duplicates,
    "create state/jobs/*/verdict.json": _unfit,
    "job.failed": _failing,
    "job.failing": _failing,
    "renew_lease state/jobs/*/planning": _slow_plan,
    "read state/open/*": _stuck_plan,
    "delete state/open/*": _withdrawn,
    ":announce:": _two_plans,
    "send jobs request": _asked_in_vain,
    "rejected": _nothing_there,
    "take_dead": _long_pause,
    "job.cancel": _cancelled,
    "job.expir": _expired,
    "job.paused": _paused,
    "job.resumed": _paused,
    "state/quota/": _limited,
    "head results/f#/*/output.jsonl": _written_before("/output.jsonl"),
    "head results/f#/*/errors.jsonl": _written_before("/errors.jsonl"),
    "read results/f#/*/manifest.json": _written_before("/manifest.json", "create"),
    "stage_from results/f#/*/output.jsonl": _discarded,
    "read state/index/": _indexed_before,
    "delete state/jobs/*/journal/": _fruitless,
    "renew_lease state/jobs/*/leases/": _busy,
    "read_range state/jobs/*/journal/": _in_slices,
    "/errors": _with_errors,
    "deliver jobs/$": _given_up("jobs"),
    "deliver shards/$": _given_up("shards"),
}


def made_for(scenario: Scenario, site: str, rng: Random) -> Scenario:
    """A scenario that differs in what it takes to come to a site."""
    make = next((make for part, make in _MAKINGS.items() if part in site), None)
    if make is None:
        return scenario
    made = replace(scenario, **make(rng))
    # Other files stay beside the one that it takes.
    return replace(made, files=(*made.files[:1], *scenario.files[1:]))
