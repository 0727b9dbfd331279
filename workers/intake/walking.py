"""A walk through a container, slice by slice: where it stands is stored, so others can go on."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from schemas.messages import Announcement
from schemas.walks import Walk
from workers.intake.announcements import job_id
from workers.intake.doors import Doors
from workers.jobs.store import JobStore, Versioned
from workers.ports import BlobInfo, BlobRef
from workers.ports.errors import NewerVersion, Unreadable
from workers.ports.together import all_of

# By how much clocks, and what is being written while a walk begins, may be off.
MARGIN_SECONDS: Final = 600.0
# One less than a page of a listing: the name after them, with which the next slice begins, comes
# with the same call.
SLICE: Final = 4999
_AT_ONCE: Final = 64

Standing = Versioned[Walk]

log = logging.getLogger(__name__)


class Walker:
    """Walks a container. `fits` picks the files to announce; `announce` says whether it did."""

    def __init__(
        self,
        store: JobStore,
        container: str,
        folder: str,
        *,
        fits: Callable[[BlobInfo, Walk], bool],
        announce: Callable[[BlobInfo], Awaitable[bool]],
    ) -> None:
        self._store = store
        self._container = container
        self._ref = BlobRef(store.state_container, f"{folder}/{container}.json")
        self._fits = fits
        self._announce = announce

    async def held(self) -> Standing | None:
        """Where the walk stands; None before the first."""
        return await self._store.held(Walk, self._ref)

    async def standing(self) -> Standing:
        """Where the walk stands, or is to begin."""
        standing = await self.held()
        if standing is None:
            await self._store.create_document(self._ref, Walk())
            return await self.standing()
        return standing

    async def begin(self, standing: Standing, now: float) -> Standing | None:
        """Walk from the first name on; None where somebody else has begun."""
        return await self._move(standing, {"began": now, "cursor": "", "announced": 0})

    async def go_on(self, standing: Standing | None, most: int | None = None) -> int | None:
        """Go on for `most` slices, or to the end.

        The result is how many files the whole walk has announced, or None where it has not ended
        here: slices are left, or somebody else goes on.
        """
        slices = 0
        while standing is not None and standing.document.began is not None and slices != most:
            slices += 1
            walk = standing.document
            files, cursor = await self._slice(walk)
            count = walk.announced + await self._announce_all(files)
            if cursor is None:
                await self._move(standing, {"since": walk.began, "began": None, "cursor": ""})
                return count
            standing = await self._move(standing, {"cursor": cursor, "announced": count})
        return None

    async def _slice(self, walk: Walk) -> tuple[list[BlobInfo], str | None]:
        """The files that fit among the next ones, and the name after them; None at the end."""
        found: list[BlobInfo] = []
        looked = 0
        async for info in self._store.blobs.list(self._container, start=walk.cursor or None):
            if looked == SLICE:
                return found, info.ref.name
            looked += 1
            if self._fits(info, walk):
                found.append(info)
        return found, None

    async def _announce_all(self, files: Sequence[BlobInfo]) -> int:
        async def announce(info: BlobInfo) -> bool:
            try:
                return await self._announce(info)
            except (NewerVersion, Unreadable) as error:
                # The walk goes on: it would come to this file each time, and to no other.
                job = job_id(info, None)
                log.warning("[FILE_UNREAD] the file of job %s is left: %s", job, error)
                return False

        return sum(await all_of(announce, files, at_once=_AT_ONCE))

    async def _move(self, standing: Standing, fields: dict[str, object]) -> Standing | None:
        """Store where the walk stands; None where somebody else has moved it."""
        moved = standing.document.model_copy(update=fields)
        return await self._store.replace(self._ref, moved, standing.etag)


async def announce_once(store: JobStore, doors: Doors, announcement: Announcement) -> bool:
    """Announce a file, unless it is a job or on its way to be one; gives whether it did."""
    job = announcement.job
    try:
        if await store.done(job) is not None or await store.job(job) is not None:
            return False
    except NewerVersion:
        return False  # it is a job already, whatever else is said of it
    # The marker comes first: it alone outlives a message, and the sweeper announces it again.
    if not await store.open(announcement):
        return False
    # Others plan what one worker could not plan in the time that a timer has.
    await doors.send(announcement)
    return True
