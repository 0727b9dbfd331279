"""Worlds that showed a defect, by the few mishaps that it takes."""

import pytest

from tests.simulation.checker import check
from tests.simulation.scenario import Mishap, Scenario, version
from tests.simulation.world import live

FILES = (version("f0.jsonl", 1, ("chat", "chat", "filtered")),)


@pytest.mark.parametrize("name", ["/errors.jsonl", "/output.jsonl"])
def test_results_whose_second_commit_has_succeeded_already_are_ones_own(name: str) -> None:
    gone = Mishap("commit", name, act="discard")
    repeated = Mishap("commit", name, "repeat", nth=2)
    world = live(Scenario(files=FILES, script=(gone, repeated)))
    assert world.faults.mishaps
    assert check(world) == []


def test_an_end_that_was_told_twice_is_an_end_though_its_journal_goes_on() -> None:
    # Told again, it does not fit into the full journal, and its process dies in beginning another.
    dies = Mishap("ask", "/1/1/chat", "kill before")
    told_twice = Mishap("append", "=state/jobs/*/journal/0/*", "repeat", nth=1)
    dies_again = Mishap("create_append", "*-001", "kill after")
    scenario = Scenario(
        files=(version("f0.jsonl", 1, ("chat",) * 6),),
        workers=2,
        max_concurrency=1,
        shard_seconds=3.0,
        journal_seconds=60.0,
        append_blocks=1,
        script=(dies, told_twice, dies_again),
    )
    world = live(scenario)
    assert len(world.faults.mishaps) == 3
    assert check(world) == []
