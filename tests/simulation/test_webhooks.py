"""Webhooks in worlds: told at least once whatever crashes, and no job waits for one."""

import dataclasses

import pytest

from schemas.jobs import TERMINAL
from tests.simulation.checker import check
from tests.simulation.faults import Befalls
from tests.simulation.process import Process
from tests.simulation.scenario import Scenario
from tests.simulation.seeds import named
from tests.simulation.sites import Fault
from tests.simulation.swarm import scenario
from tests.simulation.test_crash_points import PLAIN, Phase
from tests.simulation.world import World, live
from workers.webhooks.backoff import DAY_SECONDS

HOOKED = dataclasses.replace(PLAIN, webhooks=True)
BROKEN_SECONDS = 3600.0


class LastCrashes:
    """Kills whoever makes the n-th call about events, markers or webhooks."""

    def __init__(self, nth: int, phase: Phase) -> None:
        self.nth = nth
        self.phase = phase
        self.count = 0

    def __call__(self, process: Process, kind: str, name: str) -> Fault | None:
        about_end = (
            kind == "post" or "webhooks" in name or name.startswith(("state/done/", "state/open/"))
        )
        if not about_end and ":job.completed" not in name:
            return None
        self.count += 1
        if self.count != self.nth:
            return None
        return "kill before" if self.phase == "before" else "kill after"


def effects(of: Scenario) -> int:
    point = LastCrashes(0, "before")
    assert check(live(of, faults=lambda: point)) == []
    return point.count


@pytest.mark.parametrize("mended", [0.0, BROKEN_SECONDS], ids=["taken", "refused for an hour"])
def test_a_webhook_is_told_whatever_crashes_around_it(mended: float) -> None:
    of = dataclasses.replace(HOOKED, receiver_mended=mended)
    count = effects(of)
    assert count > 5
    for nth in range(1, count + 1):
        for phase in ("before", "after"):
            world = live(of, faults=lambda: LastCrashes(nth, phase))  # noqa: B023 - called at once
            assert world.host.kills == 1
            assert check(world) == [], f"{phase} effect {nth} of {count}"


@pytest.mark.parametrize(
    "seeds", [range(10), pytest.param(range(10, 60), marks=pytest.mark.long)], ids=named
)
def test_seeds_tell_their_webhooks_too(seeds: range) -> None:
    wrong = {}
    for seed in seeds:
        world = live(dataclasses.replace(scenario(seed), webhooks=True, receiver_mended=600.0))
        if faults := check(world):
            wrong[seed] = faults
    assert wrong == {}


def ended(world: World) -> str:
    """When the world's one job ended, as its one last event says."""
    (events,) = world.told.values()
    (last,) = {
        each["data"]["ended"] for each in events if each["type"].removeprefix("job.") in TERMINAL
    }
    return str(last)


def test_a_receiver_that_never_takes_one_holds_up_no_job_and_is_given_up_after_a_day() -> None:
    broken = live(dataclasses.replace(HOOKED, receiver_mended=float("inf")))
    found = check(broken)
    assert len(found) == 1
    assert found[0].startswith("its webhook was never told")
    assert DAY_SECONDS - 1.0 < broken.ended_at < DAY_SECONDS + 300.0
    assert ended(broken) == ended(live(HOOKED))


def test_a_queue_that_takes_nothing_holds_up_no_job() -> None:
    def deaf() -> Befalls:
        def strike(process: Process, kind: str, name: str) -> Fault | None:
            refused = kind == "send" and name.startswith("webhooks")
            return "lose before" if refused and process.world.now < BROKEN_SECONDS else None

        return strike

    world = live(HOOKED, faults=deaf)
    assert check(world) == []
    assert ended(world) == ended(live(HOOKED))
    # It is the webhook alone that is sent again: who listens is told once.
    (events,) = world.told.values()
    assert len([each for each in events if each["type"] == "job.completed"]) == 1
