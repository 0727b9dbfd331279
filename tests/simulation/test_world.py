"""Small worlds in which everything goes wrong that can, and every row comes out once."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from tests.doubles.blobs import MemoryBlob
from tests.simulation.billing import Run
from tests.simulation.checker import check
from tests.simulation.scenario import Doing, Focus, Scenario, version
from tests.simulation.seeds import assert_in_order, chunks, named, see
from tests.simulation.swarm import scenario
from tests.simulation.world import live
from workers.ports import BlobRef

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("seeds", chunks(range(100), 20), ids=named)
def test_every_row_comes_out_once_in_a_hundred_worlds(seeds: range) -> None:
    assert_in_order(seeds)


@pytest.mark.parametrize("seed", [5, 69, 118, 496])
def test_a_seed_replays_exactly(seed: int) -> None:
    first = live(scenario(seed), keep=True)
    second = live(scenario(seed), keep=True)
    assert first.log == second.log
    assert first.digest.digest() == second.digest.digest()


@pytest.mark.slow
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


@pytest.mark.parametrize("times", [1, 2])
def test_a_file_is_no_job_or_was_not_rejected_unless_somebody_asked_again(times: int) -> None:
    # The handlers of its request are cancelled until it is given up.
    focus = Focus("create state/jobs/*/job.json", "cancel", 1.0, 8)
    asked_again = Scenario(
        files=(version("f0.jsonl", 1, ("chat",)),),
        queued=True,
        max_deliveries=2,
        focuses=(focus,),
        doings=(Doing(3600.0, "announce"),),
    )
    world = live(asked_again)
    assert world.bus.published["job-status"][0].properties["type"] == "job.rejected"
    assert world.records.jobs()
    world.users.announced["f0.jsonl"] = times
    assert check(world) == (["rejected although it is a job: f0.jsonl"] if times == 1 else [])
    world.faults.struck["send jobs request f#.jsonl", "repeat"] = 1
    assert check(world) == [], "each copy of a message is answered for itself"


def test_a_run_may_ask_once_its_request_for_the_lease_has_come_a_second_time() -> None:
    billing = live(Scenario(files=(version("a.jsonl", 1, ("chat",)),))).billing
    (run,) = billing.runs
    assert run.job is not None
    assert run.attempt is not None
    other = Run("p1.0")
    billing.took_lease(other, run.job, 0, "another")
    taken = run.lost_at
    billing.took_lease(run, run.job, 0, run.attempt)
    assert (taken is None, run.lost_at, run.broken_at) == (False, None, None)
    assert other.lost_at is not None
    assert billing.runs == [run, other]


def test_what_a_run_asked_before_it_had_the_lease_anew_is_its_fault() -> None:
    world = live(Scenario(files=(version("a.jsonl", 1, ("chat",)),)))
    (run,) = world.billing.runs
    assert run.job is not None
    assert run.attempt is not None
    world.billing.took_lease(Run("p1.0"), run.job, 0, "another")
    run.lost_at = run.calls[0].asked - 1.0
    world.billing.took_lease(run, run.job, 0, run.attempt)
    assert any("asked after another had taken the lease" in fault for fault in check(world))


def test_who_was_cut_off_when_another_looked_counts_as_dead() -> None:
    """As in seed 8072469: a third attempt at a row that kills was cut off for two minutes."""
    world = live(Scenario(files=(version("a.jsonl", 1, ("chat",)),)))
    (run,) = world.billing.runs
    assert run.job is not None
    for number in range(3):
        attempt = str(UUID(int=number))
        ref = BlobRef("state", f"jobs/{run.job}/journal/0/{number:06}-{attempt}")
        world.blobs.blobs[ref] = MemoryBlob(b'{"begin":0}\n', "e", 0.0, 0.0, "")
        died_at = None if number == 2 else 60.0
        world.billing.runs.append(Run("p1.0", None, False, run.job, 0, attempt, died_at=died_at))
    assert world.attempts.deaths_over(run.job, 0, 0) == 2
    world.attempts.looks_back(run)
    world.blobs.blobs[ref].data += b'{"end":true}\n'
    assert world.attempts.deaths_over(run.job, 0, 0) == 3


def test_the_checker_sees_an_order_that_is_not_the_files() -> None:
    world = live(Scenario(files=(version("a.jsonl", 1, ("chat",) * 5),)))
    blob = next(b for ref, b in world.blobs.blobs.items() if ref.name.endswith("output.jsonl"))
    first, second, rest = bytes(blob.data).split(b"\n", 2)
    blob.data = b"\n".join((second, first, rest))
    assert any("out of order" in fault for fault in check(world))
