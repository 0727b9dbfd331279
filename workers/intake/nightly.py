"""The nightly container: each new file is announced, however many old ones lie there."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from schemas.walks import Walk
from workers.intake import announcements
from workers.intake.doors import Doors
from workers.intake.walking import MARGIN_SECONDS, Standing, Walker, announce_once
from workers.jobs.rejections import NOBODY
from workers.jobs.store import JobStore
from workers.ports import BlobInfo
from workers.ports.errors import Unavailable

PATIENCE_SECONDS: Final = 1200.0
RETRY_SECONDS: Final = 30.0
# A slice takes less; a walk that has not moved for so long has lost its worker.
STALE_SECONDS: Final = 240.0

log = logging.getLogger(__name__)


class Nightly:
    """Walks the container when its timer fires.

    What was written before the last whole walk began was announced by it, and costs no more than
    its place in a listing.
    """

    def __init__(
        self, store: JobStore, doors: Doors, *, container: str, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._doors = doors
        self._walker = Walker(store, container, "nightly", fits=_new, announce=self._announce)
        self._clock = clock

    async def run(self) -> int:
        """Announce what is new; gives how many files that were.

        A timer that fails comes again a day later: an outage of storage is waited out.
        """
        loop = asyncio.get_running_loop()
        patience, begun = loop.time() + PATIENCE_SECONDS, self._clock()
        while True:
            try:
                standing: Standing | None = await self._walker.standing()
                if standing is not None and standing.document.began != begun:
                    standing = await self._walker.begin(standing, begun)
                return await self._walk(standing)
            except Unavailable as error:
                if loop.time() >= patience:
                    raise
                log.debug("the nightly files wait: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def resume(self) -> None:
        """Go on with a walk that has lost its worker."""
        standing = await self._walker.held()
        if standing is not None and self._clock() - standing.last_modified >= STALE_SECONDS:
            await self._walk(standing)

    async def _walk(self, standing: Standing | None) -> int:
        count = await self._walker.go_on(standing)
        if count is None:
            return 0
        log.info("%s nightly files are announced", count)
        return count

    async def _announce(self, info: BlobInfo) -> bool:
        announcement = announcements.announce(info, "nightly", NOBODY)
        return await announce_once(self._store, self._doors, announcement)


def _new(info: BlobInfo, walk: Walk) -> bool:
    named = info.ref.name.lower().endswith((".jsonl", ".ndjson"))
    return named and info.last_modified >= walk.since - MARGIN_SECONDS
