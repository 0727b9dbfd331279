"""The nightly container: each new file is announced, however many old ones lie there."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from schemas.messages import Announcement
from schemas.night import Night
from workers.errors import NewerVersion, Unavailable, first_of
from workers.intake import announcements
from workers.intake.doors import Doors
from workers.jobs.rejections import NOBODY
from workers.jobs.store import JobStore, Versioned
from workers.ports import BlobInfo, BlobRef

PATIENCE_SECONDS: Final = 1200.0
RETRY_SECONDS: Final = 30.0
# A slice takes less; a walk that has not moved for so long has lost its worker.
STALE_SECONDS: Final = 240.0
# By how much clocks, and what is being written while a walk begins, may be off.
MARGIN_SECONDS: Final = 600.0
# One less than a page of a listing: the name after them, with which the next slice begins, comes
# with the same call.
SLICE: Final = 4999
_AT_ONCE: Final = 64

log = logging.getLogger(__name__)

Standing = Versioned[Night]


class Nightly:
    """Walks the container slice by slice. Where it stands is stored, so that others can go on.

    What was written before the last whole walk began was announced by it, and costs no more than
    its place in a listing.
    """

    def __init__(
        self, store: JobStore, doors: Doors, *, container: str, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._doors = doors
        self._container = container
        self._ref = BlobRef(store.state_container, f"nightly/{container}.json")
        self._clock = clock

    async def run(self) -> int:
        """Announce what is new; gives how many files that were.

        A timer that fails comes again a day later: an outage of storage is waited out.
        """
        loop = asyncio.get_running_loop()
        patience, begun = loop.time() + PATIENCE_SECONDS, self._clock()
        while True:
            try:
                standing: Standing | None = await self._standing()
                if standing is not None and standing.document.began != begun:
                    fresh = {"began": begun, "cursor": "", "announced": 0}
                    standing = await self._move(standing, fresh)
                return await self._walk(standing)
            except Unavailable as error:
                if loop.time() >= patience:
                    raise
                log.debug("the nightly files wait: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def resume(self) -> None:
        """Go on with a walk that has lost its worker."""
        standing = await self._store.held(Night, self._ref)
        if standing is not None and self._clock() - standing.last_modified >= STALE_SECONDS:
            await self._walk(standing)

    async def _standing(self) -> Standing:
        standing = await self._store.held(Night, self._ref)
        if standing is None:
            await self._store.create_document(self._ref, Night())
            return await self._standing()
        return standing

    async def _walk(self, standing: Standing | None) -> int:
        """Go on to the end, or until somebody else does; gives how many files were announced."""
        while standing is not None and standing.document.began is not None:
            night = standing.document
            files, cursor = await self._slice(night)
            count = night.announced + await self._announce(files)
            if cursor is None:
                await self._move(standing, {"since": night.began, "began": None, "cursor": ""})
                log.info("%s nightly files are announced", count)
                return count
            standing = await self._move(standing, {"cursor": cursor, "announced": count})
        return 0

    async def _slice(self, night: Night) -> tuple[list[BlobInfo], str | None]:
        """The new ones among the next files, and the name after them; None at the end."""
        new: list[BlobInfo] = []
        looked = 0
        async for info in self._store.blobs.list(self._container, start=night.cursor or None):
            if looked == SLICE:
                return new, info.ref.name
            looked += 1
            named = info.ref.name.lower().endswith((".jsonl", ".ndjson"))
            if named and info.last_modified >= night.since - MARGIN_SECONDS:
                new.append(info)
        return new, None

    async def _announce(self, files: Sequence[BlobInfo]) -> int:
        room = asyncio.Semaphore(_AT_ONCE)

        async def announce(announcement: Announcement) -> bool:
            async with room:
                return await self._announce_one(announcement)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(announce(announcements.announce(info, "nightly", NOBODY)))
                    for info in files
                ]
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors
        return sum(task.result() for task in tasks)

    async def _announce_one(self, announcement: Announcement) -> bool:
        job = announcement.job
        try:
            if await self._store.done(job) is not None or await self._store.job(job) is not None:
                return False
        except NewerVersion:
            return False  # it is a job already, whatever else is said of it
        # The marker comes first: it alone outlives a message, and the sweeper announces it again.
        if not await self._store.open(announcement):
            return False
        # Others plan what one worker could not plan in the time that a timer has.
        await self._doors.send(announcement)
        return True

    async def _move(self, standing: Standing, fields: dict[str, object]) -> Standing | None:
        """Store where the walk stands; None where somebody else has moved it."""
        moved = standing.document.model_copy(update=fields)
        return await self._store.replace(self._ref, moved, standing.etag)
