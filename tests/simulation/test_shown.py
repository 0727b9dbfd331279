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
