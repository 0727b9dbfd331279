"""What comes in at the doors, and what it announces: dropped files, requests, blob events."""

import logging
from collections.abc import Callable

from schemas.jobs import Asked, Door, Job
from schemas.messages import Announcement, JobRequest
from schemas.status import JobStatus
from workers.intake import announcements
from workers.intake.intake import Intake
from workers.jobs.index import JobIndex
from workers.jobs.outbox import Outbox
from workers.jobs.rejections import NOBODY, InputError, Origin, Rejections
from workers.jobs.store import JobStore
from workers.ports import BlobInfo, BlobRef
from workers.ports.errors import BlobMissing, Unavailable
from workers.ports.telemetry import Telemetry
from workers.settings import Settings

log = logging.getLogger(__name__)


class Doors:
    """The ways in: files and requests become announcements, but for those that are jobs already."""

    def __init__(
        self,
        store: JobStore,
        outbox: Outbox,
        index: JobIndex,
        rejections: Rejections,
        intake: Intake,
        *,
        telemetry: Telemetry,
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._blobs = store.blobs
        self._outbox = outbox
        self._index = index
        self._rejections = rejections
        self._intake = intake
        self._settings = settings
        self._clock = clock
        self._telemetry = telemetry

    async def announce(self, container: str, name: str) -> None:
        """A blob trigger saw a file: announce it on `jobs`, which a blob trigger has no like of:
        a lock, a delivery count, dead letters.
        """
        announcement = await self._announcement(container, name, None, NOBODY)
        if announcement is not None:
            await self.send(announcement)

    async def send(
        self, announcement: Announcement, *, repeated: bool = False, marked: bool = False
    ) -> None:
        """Put an announcement on `jobs`; where the bus is out of reach, leave it to the sweeper.

        Neither a blob trigger nor a timer comes again for as long as an outage may last.
        """
        asked = announcement.asked.traceparent
        trace = self._telemetry.trace_of(announcement.job, asked)
        try:
            with self._telemetry.errand("announce", trace):
                await self._outbox.send_jobs(
                    announcement, repeated=repeated, marked=marked, trace=trace
                )
        except Unavailable as error:
            log.debug("%s waits for the sweeper: %s", announcement.job, error)
            if not marked:  # it may be rejected by now
                await self._store.open(announcement)

    async def dropped(
        self,
        container: str,
        name: str,
        *,
        etag: str | None = None,
        asked: Asked = NOBODY,
        repeated: bool,
    ) -> Job | None:
        """A BlobCreated event came on `jobs`; gives the job that it made."""
        announcement = await self._announcement(container, name, etag, asked)
        if announcement is None:
            return None
        return await self._intake.run(announcement, repeated=repeated)

    async def overlooked(self, info: BlobInfo) -> Announcement | None:
        """The announcement of a file that no event told of; None for what makes no job.

        What was rejected already is not told of again.
        """
        container, name = info.ref
        what = announcements.place_id(container, name, info.etag)
        if await self._index.rejection(what) is not None:
            return None
        return await self._announcement(container, name, info.etag, NOBODY)

    async def _announcement(
        self, container: str, name: str, etag: str | None, asked: Asked
    ) -> Announcement | None:
        """A dropped file's announcement; None for what makes no job."""
        source = f"{container}/{name[:1024]}"
        info = None
        try:
            announcements.check_place(container, name, self._settings.all_input_containers)
            info = await self._blobs.head(BlobRef(container, name))
            if etag is not None and info.etag != etag:
                return None  # the file was written again; that write has an event of its own
            if not announcements.check_dropped(name):
                return None
        except BlobMissing:
            log.info("a dropped file is gone before its job began: nothing to do")
            return None
        except InputError as error:
            written = etag if info is None else info.etag
            what = announcements.place_id(container, name, written)
            await self._rejections.reject(what, error, asked, Origin(source, door="drop"))
            return None
        return announcements.announce(info, "drop", asked)

    async def requested(self, request: JobRequest, asked: Asked, *, repeated: bool) -> Job | None:
        """A back end asks for a file to be run; gives the job, unless it was one already.

        Raises InputError.
        """
        announcement = await self.announced(request, asked)
        known = await self._index.status(announcement.job, self._clock())
        if known is None or _same(asked, known[0], repeated=repeated):
            return await self._intake.run(announcement, repeated=repeated)
        await self._outbox.tell_known(known[0], asked, known[1])
        return None

    async def announced(
        self, request: JobRequest, asked: Asked, door: Door = "queue"
    ) -> Announcement:
        """What a request announces, as the file is now. Raises InputError."""
        announcements.check_tenant(request.tenant, self._settings.tenants)
        announcements.check_place(
            request.container, request.name, self._settings.all_input_containers
        )
        if request.rerun and not asked.message_id:
            raise InputError(
                "rerun_unnamed",
                "a rerun needs a MessageId (over HTTP an Idempotency-Key): a request that is "
                "delivered twice would be two reruns",
                param="rerun",
            )
        try:
            if request.options is not None:
                announcements.check_options(request.options)
        except ValueError as error:
            raise InputError("invalid_options", str(error), param="options") from None
        try:
            info = await self._blobs.head(BlobRef(request.container, request.name))
        except BlobMissing:
            raise InputError(
                "file_not_found",
                f"{request.container}/{request.name} does not exist",
                param="name",
            ) from None
        if request.etag is not None and info.etag != announcements.unquoted(request.etag):
            raise InputError(
                "file_changed", "the file is not the one with the given etag", param="etag"
            )
        return announcements.announce(
            info,
            door,
            asked,
            request.options,
            tenant=request.tenant,
            rerun=asked.message_id if request.rerun else None,
        )


def _same(asked: Asked, told: JobStatus, *, repeated: bool) -> bool:
    """Whether a request is the one that a job was made of, delivered once more."""
    if asked.message_id is not None:
        return asked.message_id == told.message_id
    return repeated and (told.message_id, told.correlation_id) == (None, asked.correlation_id)
