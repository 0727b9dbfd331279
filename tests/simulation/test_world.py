"""A thousand small worlds in which everything goes wrong that can, and every row comes out once."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.checker import check
from tests.simulation.scenario import Scenario, scenario, version
from tests.simulation.seeds import see, see_all
from tests.simulation.world import live

ROOT = Path(__file__).parent.parent.parent
SEEDS = range(1000)


@pytest.mark.timeout(180)
def test_every_row_comes_out_once_in_a_thousand_worlds() -> None:
    began = _processor_seconds()
    worlds = list(see_all(SEEDS))
    wrong = {seen.seed: seen.faults for seen in worlds if seen.faults}
    assert wrong == {}, "python -m tests.simulation --seed K --trace shows what happened"
    # That so much went well says nothing unless there was something to go wrong.
    assert sum(seen.mishaps for seen in worlds) > 5 * len(worlds)
    assert sum(seen.jobs for seen in worlds) > len(worlds)
    assert sum(seen.shards for seen in worlds) > 1.5 * len(worlds)
    assert _processor_seconds() - began < 60.0


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("seed", [5, 69, 118, 496])
def test_a_seed_replays_exactly(seed: int) -> None:
    first = live(scenario(seed), keep=True)
    second = live(scenario(seed), keep=True)
    assert first.log == second.log
    assert first.digest.digest() == second.digest.digest()


def test_a_seed_replays_exactly_in_another_process() -> None:
    # Another process hashes strings differently: nothing may depend on the order of a set.
    program = "from tests.simulation.seeds import see; print(see(118).digest)"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    assert told.stdout.decode().strip() == see(118).digest


def test_a_world_without_faults_asks_each_row_once() -> None:
    file = version("a.jsonl", 1, ("chat",) * 7 + ("embedding",) * 3 + ("invalid",))
    world = live(Scenario(files=(file,), workers=3, shard_rows=4))
    assert check(world) == []
    asked = [prompt for call in world.service.calls for prompt in call.prompts]
    assert sorted(asked) == sorted(row.prompt for row in file.rows if row.asked)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (b"", "rows lost"),
        (b"{line}{line}", "rows doubled"),
    ],
)
def test_the_checker_sees_what_the_files_say(damage: bytes, found: str) -> None:
    file = version("a.jsonl", 1, ("chat",) * 5)
    world = live(Scenario(files=(file,)))
    assert check(world) == []
    blob = next(b for ref, b in world.blobs.blobs.items() if ref.name.endswith("output.jsonl"))
    first, rest = bytes(blob.data).split(b"\n", 1)
    blob.data = damage.replace(b"{line}", first + b"\n") + rest
    faults = check(world)
    assert any(found in fault for fault in faults)
    assert any("manifest" in fault for fault in faults)


def test_the_checker_sees_an_order_that_is_not_the_files() -> None:
    world = live(Scenario(files=(version("a.jsonl", 1, ("chat",) * 5),)))
    blob = next(b for ref, b in world.blobs.blobs.items() if ref.name.endswith("output.jsonl"))
    first, second, rest = bytes(blob.data).split(b"\n", 2)
    blob.data = b"\n".join((second, first, rest))
    assert any("out of order" in fault for fault in check(world))
