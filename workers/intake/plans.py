"""From a pinned job to its plan: one worker reads the file, and each process only a few at once."""

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Final

from schemas.jobs import Job, Reason
from schemas.plans import Verdict
from workers.intake import announcements
from workers.intake.estimates import Estimates
from workers.intake.planning import Survey
from workers.intake.scanning import PIECE_BYTES, Planned, scan
from workers.intake.verdicts import Preflight, judged
from workers.jobs.rejections import InputError
from workers.jobs.store import JobStore
from workers.ports import BlobRef
from workers.ports.errors import BlobChanged, BlobMissing, LeaseHeld, StorageError, Unavailable
from workers.rows.reading import rules_of
from workers.settings import Settings

# What is larger is read by one worker at a time, and by each process a few at a time: one reads a
# file as fast as two, and more would only take memory.
LARGE_BYTES: Final = PIECE_BYTES
LARGE_AT_ONCE: Final = 2
TURN_SECONDS: Final = 300.0
# With a turn's and a margin what host.json gives a function: beyond that its process is ended, with
# all else that it does.
READ_SECONDS: Final = 1380.0
# As long as that may be the hour's fault, or the worker's.
TRIED_SECONDS: Final = 2 * 3600.0
LEASE_SECONDS: Final = 60
RENEW_SECONDS: Final = 15.0
LATEST_PLAN_SECONDS: Final = 4 * 3600.0
NOT_PLANNED: Final = Reason(
    code="not_planned",
    message="the file could not be planned within its completion window, however often it was "
    "tried: see the workers' log, split the file, and drop it again",
)
TOO_LONG: Final = Reason(
    code="not_planned",
    message=f"reading the file takes a worker more than {READ_SECONDS / 60:.0f} minutes, however "
    "often it was tried: split the file, and drop its parts",
)

log = logging.getLogger(__name__)


class Plans:
    """Makes plans. Errors are those of storage; what a plan comes to stands once."""

    def __init__(
        self,
        store: JobStore,
        routes: Preflight,
        estimates: Estimates,
        settings: Settings,
        *,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._store = store
        self._blobs = store.blobs
        self._routes = routes
        self._estimates = estimates
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._turns = asyncio.Semaphore(LARGE_AT_ONCE)

    async def make(self, job: Job) -> bool:
        """Write a job's plan, and return whether it stands now.

        The result is false where this is to be tried again: other files have their turn, another
        worker reads this one, or reading it took too long.
        """
        if job.size <= LARGE_BYTES:
            return await self._plan(job)
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            return False
        try:
            async with self._alone(job) as alone:
                # Whoever was at it may just have ended.
                if alone and await self._store.plan_totals(job.id) is None:
                    return await self._plan(job)
                return alone
        finally:
            self._turns.release()

    @contextlib.asynccontextmanager
    async def _alone(self, job: Job) -> AsyncIterator[bool]:
        """Whether nobody else plans this job while the block runs.

        It saves reading a file twice and no more: were the lease lost, two would write one plan.
        """
        lease = self._store.ref(job.id, "planning")
        await self._store.create_once(lease, b"", content_type="application/octet-stream")
        name = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        try:
            await self._blobs.acquire_lease(lease, name, LEASE_SECONDS)
        except LeaseHeld:
            yield False
            return
        keeper = asyncio.create_task(self._keep(lease, name), name=f"plan of {job.id}")
        try:
            yield True
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            with contextlib.suppress(Unavailable, StorageError):
                await self._blobs.release_lease(lease, name)

    async def _keep(self, lease: BlobRef, name: str) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._blobs.renew_lease(lease, name)
            except Unavailable:
                log.debug("a plan's lease could not be renewed: trying again")
            except StorageError:
                return

    async def _plan(self, job: Job) -> bool:
        """Scan the file; write duplicates, the verdict where the job has to fail, and the plan.

        The result is false where the file took too long to read, and is to be tried again.
        """
        planned, reason = Planned([], Survey(), []), job.failure or self._forbidden(job)
        if reason is None and self._clock() >= job.expires + LATEST_PLAN_SECONDS:
            reason = NOT_PLANNED
        if reason is None:
            try:
                rules = rules_of(job, self._settings.default_models)
                async with asyncio.timeout(READ_SECONDS):
                    planned = await scan(self._blobs, job, rules)
                reason = await judged(job, planned, self._routes)
            except (BlobMissing, BlobChanged):
                planned = Planned([], Survey(), [])
                reason = Reason(
                    code="input_changed",
                    message="the file was changed or deleted before it was read: drop it again",
                )
            except TimeoutError:
                if self._clock() < job.created + TRIED_SECONDS:
                    return False
                reason = TOO_LONG
        await self._store.create_duplicates(job.id, planned.duplicates)
        if reason is not None:
            await self._store.create_verdict(job.id, _verdict(reason))
        else:
            estimate = await self._estimates.of_job(job, planned)
            await self._store.create_document(self._store.ref(job.id, "estimate.json"), estimate)
        await self._store.create_plan(job.id, planned.shards)
        return True

    def _forbidden(self, job: Job) -> Reason | None:
        """Why a job's file may not be read any more: settings may have changed since."""
        try:
            announcements.check_place(job.container, job.name, self._settings.all_input_containers)
        except InputError as error:
            return Reason(code=error.code, message=str(error))
        return None


def _verdict(reason: Reason) -> Verdict:
    if isinstance(reason, Verdict):
        return reason
    return Verdict(code=reason.code, message=reason.message)
