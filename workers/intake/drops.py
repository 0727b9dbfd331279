"""Dropped files that nobody told of: their event was lost, or settled and never handled."""

import logging
from collections.abc import Callable
from typing import Final

from schemas.walks import Walk
from workers.intake.doors import Doors
from workers.intake.walking import MARGIN_SECONDS, Walker, announce_once
from workers.jobs.store import JobStore
from workers.ports import BlobInfo

PROMPTS: Final = "prompts"
"""The container whose files are run when they are dropped; the trigger names it too."""
AGE_SECONDS: Final = 900.0
"""Seconds for which an event may be on its way before it counts as lost."""
LOOK_BACK_SECONDS: Final = 2 * 86_400.0
"""Seconds after which a file is left where it lies: a first walk is not to run old files."""
MOST_SLICES: Final = 4
"""Slices of a listing in one sweep; the next sweep goes on."""

log = logging.getLogger(__name__)


class Drops:
    """Walks the container with each sweep, a bounded part of it; each file is looked at once.

    What it announces has its marker: from there on it is the sweeper's, whatever is lost.
    """

    def __init__(self, store: JobStore, doors: Doors, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._doors = doors
        self._walker = Walker(store, PROMPTS, "drops", fits=self._due, announce=self._announce)
        self._clock = clock

    async def run(self) -> None:
        """Go on with the walk, or begin the next one."""
        standing = await self._walker.standing()
        if standing.document.began is None:
            begun = await self._walker.begin(standing, self._clock())
            if begun is None:
                return
            standing = begun
        count = await self._walker.go_on(standing, MOST_SLICES)
        if count:
            log.warning("[EVENTS_LOST] %s dropped files are announced that no event told of", count)

    def _due(self, info: BlobInfo, walk: Walk) -> bool:
        """Whether a file was too young when the last walk began, and is old enough now."""
        age = self._clock() - info.last_modified
        looked_at = info.last_modified < walk.since - AGE_SECONDS - MARGIN_SECONDS
        return AGE_SECONDS <= age <= LOOK_BACK_SECONDS and not looked_at

    async def _announce(self, info: BlobInfo) -> bool:
        announcement = await self._doors.overlooked(info)
        if announcement is None:
            return False
        return await announce_once(self._store, self._doors, announcement)
