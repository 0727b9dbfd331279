"""Worlds of the doors by seeds: nothing is wrong in them, and what is broken on purpose is noticed.

`python -m tests.api.worlds --seeds 10000` lives through more of them.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.api.worlds.world import live
from workers.api.openai.batches import BatchesApi
from workers.api.openai.creating import BatchCreator
from workers.api.openai.uploads import UploadsApi
from workers.files import store
from workers.files.retention import Retention
from workers.files.store import FileStore

SEEDS, PIECE = 150, 50
ENOUGH = range(120)
"""Among so many seeds is one that notices each rule that is broken."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "start", [0, *(pytest.param(at, marks=pytest.mark.long) for at in range(PIECE, SEEDS, PIECE))]
)
def test_nothing_is_wrong_in_these_worlds(start: int) -> None:
    worlds = {seed: live(seed) for seed in range(start, start + PIECE)}
    wrong = {seed: came.wrong for seed, came in worlds.items() if came.wrong}
    assert wrong == {}, "python -m tests.api.worlds --seed K lives through one of them"
    # There was something to go wrong.
    assert sum(came.kills for came in worlds.values()) > PIECE
    assert sum(came.batches for came in worlds.values()) > 3 * PIECE
    assert sum(came.files for came in worlds.values()) > 3 * PIECE


def test_a_seed_comes_to_the_same_again() -> None:
    assert live(7) == live(7)


async def _nothing(*_: Any) -> None:
    """What a forgotten step does."""


async def _unknown(*_: Any) -> None:
    """No request is known again."""


async def _no_job_reads(_: Any) -> frozenset[Any]:
    return frozenset()


async def _anybodys(self: BatchesApi, _caller: Any, job_id: str) -> Any:
    return await self._store.job(job_id)


async def _any_md5(_: Any, _info: Any) -> str:
    return "0" * 32


def _for_ever(*_: Any) -> bool:
    return True


BROKEN: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "a repeated create is known": (BatchCreator, "_known", _unknown),
    "a batch that is answered is listed": (BatchCreator, "_list", _nothing),
    "what an open job reads is kept": (Retention, "_read_by_jobs", _no_job_reads),
    "a deleted file is named no more": (FileStore, "remove", _nothing),
    "a deleted file's upload is forgotten": (FileStore, "drop", _nothing),
    "what is deleted later is written down": (FileStore, "owe", _nothing),
    "a file ends at its time": (store, "_lives", _for_ever),
    "a batch is its tenant's": (BatchesApi, "_job", _anybodys),
    "a file has its md5": (UploadsApi, "_md5", _any_md5),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_noticed(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BROKEN[rule])
    assert any(_wrong(seed) for seed in ENOUGH)


def _wrong(seed: int) -> bool:
    """Whether a world shows a fault, or breaks off."""
    try:
        return bool(live(seed).wrong)
    except Exception:  # noqa: BLE001 - what is broken may break off anywhere
        return True
