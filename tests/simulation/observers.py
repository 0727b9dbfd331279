"""What people saw of a job while it ran, held against what became of it.

They ask for its status, and subscribe to its events; they read the parts of shards that are done.
Counts never go backwards, a row that was told as done is in the results as it was told, and what a
subscriber keeps by the highest `sequence` is what the manifest says.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import orjson

from schemas.jobs import TERMINAL
from tests.simulation.process import EPOCH
from workers.api.http import HttpCall, JsonReply
from workers.service import compose

if TYPE_CHECKING:
    from tests.simulation.world import World

RANK = {"validating": 0, "in_progress": 1, "finalizing": 2} | dict.fromkeys(TERMINAL, 3)
OFTEN_UNTIL = 300.0


class Observers:
    """Readers of every job, whose own calls nothing befalls."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = Random(world.scenario.seed)
        self._api = compose(
            world.settings,
            world.storage(world.blobs),
            world.bus,
            {},
            transfers=world.blobs,
            ledger=None,
            clock=lambda: EPOCH + world.now,
            rng=self._rng,
        ).api
        self._told: dict[str, list[dict[str, Any]]] = {}
        self._parts: dict[str, dict[str, bytes]] = {}

    async def watch(self) -> None:
        """Look at every job, for as long as the world lives."""
        while True:
            often = self._world.now < OFTEN_UNTIL
            await asyncio.sleep(self._rng.uniform(5.0, 25.0) if often else 600.0)
            for job in self._world.records.open_markers():
                await self.look(job)

    async def look(self, job: str) -> None:
        """Ask for a job's status, and read what is done of it."""
        reply = await self._api.answer(HttpCall("GET", f"/api/jobs/{job}"))
        if isinstance(reply, JsonReply) and reply.code == 200:
            self._told.setdefault(job, []).append(reply.body)
        parts = self._parts.setdefault(job, {})
        for name, receipt in self._world.records.below("state", f"jobs/{job}/receipts/"):
            if name not in parts:
                part = orjson.loads(receipt)["output"]
                parts[name] = (
                    self._world.records.stored("state", part["name"]) or b"" if part else b""
                )

    def forget(self, jobs: Iterable[str]) -> None:
        """Nobody asks what was told of these jobs any more."""
        for job in jobs:
            self._told.pop(job, None)
            self._parts.pop(job, None)

    def faults(self, job: str, output: bytes, manifest: Mapping[str, Any]) -> Iterator[str]:
        """What does not fit together of what was told of a job that has ended."""
        yield from _backwards(self._told.get(job, []))
        lines = set(output.splitlines())
        for name, part in self._parts.get(job, {}).items():
            if lost := set(part.splitlines()) - lines:
                yield f"{len(lost)} rows of {name} were told as done and are not in the results"
        kept = self._subscribed(job)
        if kept is not None and (kept["state"], kept["counts"]) != (
            manifest["state"],
            manifest["counts"],
        ):
            yield f"subscribers keep {kept['state']} {kept['counts']}, the manifest is different"

    def _subscribed(self, job: str) -> dict[str, Any] | None:
        """The last of a job's events by sequence, as a subscriber keeps it."""
        highest, kept = -1, None
        for event in self._world.told.get(job, []):
            if int(event["sequence"]) > highest:
                highest, kept = int(event["sequence"]), event["data"]
        return kept


def _backwards(story: list[dict[str, Any]]) -> Iterator[str]:
    for before, after in pairwise(story):
        if RANK.get(after["state"], 1) < RANK.get(before["state"], 1):
            yield f"its status went from {before['state']} back to {after['state']}"
        earlier, later = before.get("counts", {}), after.get("counts", {})
        if any(later.get(kind, 0) < count for kind, count in earlier.items()):
            yield f"its counts went backwards: {earlier}, then {later}"
