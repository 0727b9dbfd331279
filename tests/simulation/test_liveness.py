"""A job that stands still is named in time, and one that waits for what is not there is not."""

import pytest

from tests.simulation.checker import check
from tests.simulation.liveness import LOOK_SECONDS, NEVER_NUDGED_SECONDS
from tests.simulation.scenario import Doing, Mishap, Scenario, version
from tests.simulation.world import World, live
from workers.sweeper import Sweeper

FILE = version("f0.jsonl", 1, ("chat",) * 6)
# Both messages are settled by the host, and no handler runs.
WHILE_IT_IS_PLANNED = Scenario(
    files=(FILE,),
    script=(
        Mishap("create", "/plan.jsonl", "kill before"),
        Mishap("deliver", "drops", "lost", nth=2),
    ),
)
WHILE_IT_IS_FINISHED = Scenario(files=(FILE,), script=(Mishap("deliver", ":finish:", "lost"),))


def test_a_job_waits_until_its_month_has_room_and_a_while_longer() -> None:
    # The first job is paused at its cap, and keeps its part of the month until its window ends, a
    # moment before somebody looks at the other one.
    world = Scenario(
        seed=811578,
        files=(version("f0.jsonl", 1, ("chat", "chat", "embedding", "chat", "chat", "chat")),),
        options={"max_tokens": 60, "max_total_tokens": 91, "on_budget": "pause"},
        month_cap=0.001745,
        slots=1,
        window=1,
        journal_seconds=1.0,
        skews=(-80.0,),
        doings=(Doing(16.193300842312365, "overwrite"),),
        faults_until=400.0,
    )
    assert check(live(world)) == []


@pytest.mark.parametrize("world", [WHILE_IT_IS_PLANNED, WHILE_IT_IS_FINISHED])
def test_a_job_that_nobody_helps_is_named_after_a_quarter_of_an_hour(
    world: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check(live(world)) == []

    async def sleeps(_: Sweeper) -> None:
        """Look after no job."""

    monkeypatch.setattr(Sweeper, "run", sleeps)
    lived = live(world, keep=True)
    waited = _first(lived, "stood still") - _first(lived, "host loses")
    assert 0 <= round(waited) - NEVER_NUDGED_SECONDS <= 2 * LOOK_SECONDS


def _first(world: World, what: str) -> float:
    """When something happened first."""
    return next(float(line.split()[0]) for line in world.log or () if what in line)
