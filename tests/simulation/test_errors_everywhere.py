"""An error of each kind at every call that an attempt at a shard makes: nobody dies of it.

So every attempt has its end, no shard is suspected, and no row is given up: the checker knows that
no process died.
"""

import dataclasses

import pytest

from tests.simulation.billing import RUN
from tests.simulation.checker import check
from tests.simulation.process import Process
from tests.simulation.scenario import RowKind, Scenario, Span, version
from tests.simulation.sites import Fault, faults_of
from tests.simulation.world import live

ROWS: tuple[RowKind, ...] = ("chat", "embedding", "invalid", "embedding", "chat", "duplicate")
# The storm of this seed has the shard handed back twice, so that there are journals of several
# attempts to be read.
JOB = Scenario(
    seed=5,
    files=(version("a.jsonl", 1, ROWS),),
    shard_rows=6,
    shard_seconds=10.0,
    journal_seconds=1.0,
    latency=0.1,
    storms=(Span(0.0, 20.0),),
)
SMALL_JOURNALS = dataclasses.replace(JOB, append_blocks=1)
FAULTS: tuple[Fault, ...] = ("refused", "busy", "lose before", "lose after", "cancel", "bug")


class ErrorPoint:
    """One fault at the n-th call that attempts make, of those calls that can meet it."""

    def __init__(self, nth: int, fault: Fault) -> None:
        self.nth = nth
        self.fault = fault
        self.count = 0

    def __call__(self, _process: Process, kind: str, what: str) -> Fault | None:
        run = RUN.get()
        if run is None or run.attempt is None or self.fault not in faults_of(kind, what):
            return None
        self.count += 1
        return self.fault if self.count == self.nth else None


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_at_any_call_of_an_attempt_is_no_crash(fault: Fault) -> None:
    assert any("/journal/#/*-#" in place for place in live(SMALL_JOURNALS).faults.met)
    _walk(SMALL_JOURNALS, fault)


# Calls of the same kinds, but for those that begin a journal's next blob.
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=pytest.mark.long if fault != "lose after" else ())
        for fault in FAULTS
    ],
)
def test_neither_is_one_where_a_journal_is_one_blob(fault: Fault) -> None:
    _walk(JOB, fault)


def _walk(scenario: Scenario, fault: Fault) -> None:
    point = ErrorPoint(0, fault)
    assert check(live(scenario, faults=lambda: point)) == []
    assert point.count > 20, "most of an attempt is calls"
    wrong = []
    for nth in range(1, point.count + 1):
        world = live(scenario, faults=lambda: ErrorPoint(nth, fault))  # noqa: B023 - called at once
        wrong += [f"{world.faults.mishaps[:1]}: {found}" for found in check(world)]
    assert wrong == []
