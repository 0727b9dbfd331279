"""From a file at a door to a planned job: open marker, job, duplicates, plan, state, messages."""

import logging
from collections.abc import Callable, Mapping
from typing import Final

from schemas.deployments import hourly_prices_of, prices_of
from schemas.estimates import JobEstimate
from schemas.hours import Hours
from schemas.jobs import (
    Job,
    JobOptions,
    JobState,
    Priority,
    Reason,
    Waiting,
    parse_options,
    window_seconds,
)
from schemas.messages import Announcement, Expire
from schemas.versions import version_of
from workers.intake import announcements, markers
from workers.intake.plans import Plans
from workers.jobs import beginning, budget, lifecycle, pace
from workers.jobs.index import JobIndex
from workers.jobs.months import MonthlyBudgets
from workers.jobs.outbox import Outbox
from workers.jobs.rejections import InputError, Origin, Rejections
from workers.jobs.store import JobStore
from workers.jobs.transitions import Transitions
from workers.ports import BlobInfo, BlobRef
from workers.ports.errors import BlobMissing
from workers.ports.telemetry import Telemetry
from workers.rows.reading import RowRules
from workers.settings import Settings

WINDOW: Final[Mapping[Priority, int]] = {"high": 32, "normal": 16, "low": 8}

# Another worker plans, or others have their turn: this long until somebody looks again.
NOT_ALONE_SECONDS: Final = 60.0

_TAKEN_OVER: Final = {"tenant", "door", "container", "name", "filename", "etag"}

log = logging.getLogger(__name__)


class Intake:
    """The way from announcements to jobs. A repeated announcement may repeat each of its steps."""

    def __init__(
        self,
        store: JobStore,
        transitions: Transitions,
        outbox: Outbox,
        index: JobIndex,
        rejections: Rejections,
        *,
        telemetry: Telemetry,
        months: MonthlyBudgets,
        plans: Plans,
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._blobs = store.blobs
        self._transitions = transitions
        self._outbox = outbox
        self._index = index
        self._rejections = rejections
        self._plans = plans
        self._settings = settings
        self._clock = clock
        self._telemetry = telemetry
        self._months = months

    async def run(
        self, announcement: Announcement, *, repeated: bool, marked: bool = False
    ) -> Job | None:
        """Do all steps from the first one on; a step that was done before is left as it stands.

        The result is the job, or None where none came of it. One that was `marked` and is no more
        has been rejected since, and whoever asked has been told.
        """
        job = await self._store.job(announcement.job)
        held = None if job is None else await self._store.state(job.id)
        if job is not None and held is not None and held.state.terminal:
            await self._transitions.tell_end(job, held.state)
            return job
        if held is None and await self._store.done(announcement.job) is not None:
            await self._store.close(announcement.job)  # its folder was deleted, or is just going
            return None
        if job is None:
            if marked and not await self._store.is_open(announcement.job):
                return None
            job = await self.accept(announcement)
            if job is None:
                return None
        else:
            await self._store.open(announcement)
        totals = await self._store.plan_totals(job.id)
        if totals is None:
            await self._index.add(job)
            # Reading a large file takes minutes; who asked may want the job's id before that.
            await self._outbox.tell("job.validating", job, None)
            with self._telemetry.errand("plan", job.trace):
                planned = await self._plans.make(job)
            if not planned:
                at = self._clock() + NOT_ALONE_SECONDS
                trace = job.trace
                await self._outbox.send_jobs(announcement, at=at, repeated=True, trace=trace)
                return job
            totals = await self._store.plan_totals(job.id) or (0, 0)
        shards, rows = totals
        reason = await self._store.verdict(job.id)
        if rows == 0 and reason is None:
            reason = Reason(code="empty_file", message="the file has no rows")
        if held is None or not budget.awaits_room(held.state):
            expire = Expire(schema_version=job.schema_version, job=job.id)
            await self._outbox.send_jobs(expire, at=job.expires, trace=job.trace)
        await self._begin(job, shards, rows, reason, repeated=repeated)
        return job

    async def _begin(
        self, job: Job, shards: int, rows: int, reason: Reason | None, *, repeated: bool
    ) -> None:
        """Send a planned job's first shards, once what it may cost has room in its month."""
        cost, no_room = budget.may_cost(job.options, None), None
        estimate = None if reason is not None else await self._estimate(job)
        if reason is None and job.monthly:
            # Nobody can know what a job without an estimate may cost.
            cost = budget.may_cost(job.options, (estimate and estimate.may_cost) or "0")
            cap = self._monthly_cap(job.tenant)
            no_room = await self._months.reserve(job, cost or 0, cap, self._clock())

        def begun(state: JobState | None, _repeated: bool) -> lifecycle.Change:
            return beginning.begin(
                state,
                job,
                shards=shards,
                rows=rows,
                ending=no_room if isinstance(no_room, Reason) else reason,
                now=self._clock(),
                least_seconds=None if estimate is None else pace.quota_seconds(estimate),
                cost=cost,
                waiting=no_room if isinstance(no_room, Waiting) else None,
            )

        await self._transitions.take(job, begun, repeated=repeated)

    async def _estimate(self, job: Job) -> JobEstimate | None:
        return await self._store.find(JobEstimate, self._store.ref(job.id, "estimate.json"))

    def _monthly_cap(self, tenant: str) -> float | None:
        known = self._settings.tenants.get(tenant)
        return None if known is None else known.max_cost_per_month

    async def accept(self, announcement: Announcement) -> Job | None:
        """Mark and pin a new job; None where its file has changed since it was announced.

        Raises InputError where its file may not become one.
        """
        try:
            announcements.check_place(
                announcement.container, announcement.name, self._settings.all_input_containers
            )
        except InputError:
            # An earlier delivery may have marked it: nobody is to be told of it over and over.
            if await markers.withdraw(self._store, announcement):
                raise
            return await self._store.job(announcement.job)
        await self._store.open(announcement)
        return await self._pin(announcement)

    async def _pin(self, announcement: Announcement) -> Job | None:
        """Create job.json with the present options; None where the file has changed since."""
        info = await self._current(announcement)
        if info is None:
            if not await markers.withdraw(self._store, announcement):
                return await self._store.job(announcement.job)
            if announcement.door == "queue":
                gone = InputError("file_changed", "the file was changed or deleted meanwhile")
                source = f"{announcement.container}/{announcement.name}"
                origin = Origin(source, announcement.tenant)
                await self._rejections.reject(announcement.job, gone, announcement.asked, origin)
            return None
        options, failure = JobOptions(), None
        try:
            options = await self._options(announcement, info)
            # A wrong template is told once, not with every row.
            RowRules.of(options, max_line_bytes=self._settings.max_line_bytes)
        except ValueError as error:
            failure = Reason(code="invalid_options", message=str(error))
        if failure is None and info.size > self._settings.max_file_bytes:
            failure = Reason(
                code="file_too_large",
                message=f"the file has {info.size:,} bytes, the limit is "
                f"{self._settings.max_file_bytes:,}: split it, or raise MAX_FILE_BYTES",
            )
        job = await self._store.create_job(self._job(announcement, info, options, failure))
        # Somebody who found the file changed may be about to withdraw the marker.
        await markers.renew(self._store, announcement)
        return job

    async def _current(self, announcement: Announcement) -> BlobInfo | None:
        try:
            info = await self._blobs.head(BlobRef(announcement.container, announcement.name))
        except BlobMissing:
            return None
        return info if info.etag == announcement.etag else None

    def _job(
        self,
        announcement: Announcement,
        info: BlobInfo,
        options: JobOptions,
        failure: Reason | None,
    ) -> Job:
        now = self._clock()
        named = "completion_window" in options.model_fields_set
        window = options.completion_window if named else self._settings.completion_window
        priority = options.priority or ("low" if announcement.door == "nightly" else "normal")
        hours, cap = self._hours(priority), self._monthly_cap(announcement.tenant)
        return Job(
            schema_version=version_of(
                options.model_dump(exclude_defaults=True),
                announcement.tenant,
                announcement.door,
                limited=hours is not None or cap is not None,
            ),
            id=announcement.job,
            **announcement.model_dump(include=_TAKEN_OVER),
            size=info.size,
            options=options,
            priority=priority,
            created=now,
            expires=now + window_seconds(window),
            window=WINDOW[priority],
            max_line_bytes=self._settings.max_line_bytes,
            asked=announcement.asked,
            trace=self._telemetry.trace_of(announcement.job, announcement.asked.traceparent),
            hours=hours,
            failure=failure,
            results=announcements.results_folder(announcement.name, announcement.job),
            prices=prices_of(self._settings.deployments),
            hourly_prices=hourly_prices_of(self._settings.deployments),
            monthly=cap is not None,
        )

    def _hours(self, priority: Priority) -> Hours | None:
        """In which a job of a priority may be asked."""
        own = self._settings.priority_hours.get(priority)
        return own or pace.shared_hours(self._settings.deployments)

    async def _options(self, announcement: Announcement, info: BlobInfo) -> JobOptions:
        """Options of the message, the blob's metadata or the file beside it. Raises ValueError."""
        if announcement.options is not None:
            return parse_options(announcement.options)
        raw = announcements.metadata_options(info.metadata)
        if raw is not None:
            return parse_options(raw)
        stem = announcement.name.rsplit(".", 1)[0]
        beside = BlobRef(announcement.container, f"{stem}{announcements.OPTIONS_SUFFIX}")
        try:
            data = await self._blobs.read_range(beside, 0, announcements.MAX_OPTIONS_BYTES + 1)
            return parse_options(announcements.options_json(data))
        except BlobMissing:
            return JobOptions()
