"""Workers of two releases side by side, with an upgrade, a rollback and an upgrade in mid-job."""

import json
from collections import Counter
from typing import Any

import pytest
from pydantic import BaseModel

from tests.simulation import releases
from workers.jobs import store

MORE = (range(20, 60), range(60, 120))


def see(seeds: range) -> tuple[dict[int, Any], Counter[str]]:
    """What is wrong in these worlds, and what they had of it."""
    wrong, met = {}, Counter[str]()
    for seed in seeds:
        world = releases.live(seed)
        if faults := releases.faults(world):
            wrong[seed] = faults
        told = [json.loads(message.body) for message in world.bus.published["job-status"]]
        met["set aside"] += sum(each["type"] == "job.refused" for each in told)
        met["jobs the older breaks"] += len(world.broken)
        met[f"{world.story.first} and {world.story.last}"] += 1
        met["capped jobs"] += len(world.records.jobs()) if world.caps is not None else 0
        met["replaced"] += len(world.story.changes)
        met["jobs"] += len(world.records.jobs())
    return wrong, met


@pytest.mark.parametrize(
    "seeds", [range(20), *(pytest.param(more, marks=pytest.mark.long) for more in MORE)], ids=str
)
def test_every_row_comes_out_once_whichever_release_asks_it(seeds: range) -> None:
    wrong, met = see(seeds)
    assert wrong == {}
    assert met["jobs"] >= len(seeds)
    assert met["replaced"] > 3 * len(seeds)
    assert min(met[kind] for kind in ("0.1.0 and this", "this and next")) > len(seeds) / 4
    assert min(met[kind] for kind in ("set aside", "jobs the older breaks")) > len(seeds) / 8
    assert met["capped jobs"] > 0


def noticed(fault: str) -> bool:
    """Whether one of twenty worlds goes wrong in this way; those after it are not lived."""
    return any(fault in str(releases.faults(releases.live(seed))) for seed in range(20))


LOAD = store.load


def without_what_is_new(model: type[BaseModel], data: bytes) -> Any:
    """A document as those read it who keep only what they know."""
    read = LOAD(model, data)
    known = {name: value for name, value in read if name in model.model_fields}
    return model.model_construct(**known)


def test_a_worker_that_drops_what_it_does_not_know_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "load", without_what_is_new)
    assert noticed("lost what a later release said")


def test_a_worker_that_does_not_look_at_versions_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "NEWEST_VERSION", 99)
    assert noticed("which it cannot read")
