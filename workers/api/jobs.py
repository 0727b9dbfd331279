"""The operations on jobs over HTTP: list, create, read, cancel, pause, resume."""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from pydantic import BaseModel

from schemas.estimating import EstimateCreate
from schemas.jobs import Reason, parse_options
from schemas.messages import Announcement, JobRequest
from schemas.status import JobStatus
from workers.api.acting import JobActions
from workers.api.answering import answered, unknown_tenant
from workers.api.asking import asked_by
from workers.api.budgets import BudgetsApi
from workers.api.costs import CostsApi
from workers.api.deployments import DeploymentsApi
from workers.api.health import HealthApi
from workers.api.http import AnyReply, HttpCall, HttpRefusal, JsonReply, unless_known
from workers.api.links import ResultLinks
from workers.api.openai.operations import read_body
from workers.api.routing import (
    Act,
    Action,
    CreateJob,
    CreateLinks,
    EstimateJob,
    JobOperation,
    ListDeployments,
    ListJobs,
    Probe,
    ReadBudgets,
    ReadCosts,
    ReadErrors,
    ReadHealth,
    ReadJob,
    ReadSamples,
    route,
)
from workers.intake import announcements
from workers.intake.doors import Doors
from workers.intake.estimates import Estimates
from workers.jobs import events
from workers.jobs.advice import advised
from workers.jobs.history import History
from workers.jobs.index import JobIndex, Listed
from workers.jobs.store import JobStore
from workers.ports.errors import NewerVersion, Unreadable
from workers.ports.together import all_of

LEAST_READ: Final = 10
"""Open jobs that are looked at together: a page of one among many others' takes no listing each."""
MOST_READ: Final = 200
"""Jobs that one page looks at: a filter that few fit gives short pages, not slow ones."""

_ODD: Final = "see who else writes to the container of the state, and put it back as it was"


class Api:
    """Answers the calls under `/api`."""

    def __init__(
        self,
        store: JobStore,
        actions: JobActions,
        index: JobIndex,
        history: History,
        doors: Doors,
        *,
        budgets: BudgetsApi,
        deployments: DeploymentsApi,
        health: HealthApi,
        links: ResultLinks,
        estimates: Estimates,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._actions = actions
        self._index = index
        self._doors = doors
        self._budgets = budgets
        self._deployments = deployments
        self._health = health
        self._links = links
        self._estimates = estimates
        self._costs = CostsApi(index, estimates.tenants, clock=clock)
        self._history = history
        self._clock = clock

    async def answer(self, call: HttpCall) -> AnyReply:
        """The answer to any call; what is wrong with it is an answer too."""
        return unless_known(call, await answered(self._do(call)))

    async def _do(self, call: HttpCall) -> JsonReply:
        operation = route(call)
        if isinstance(operation, JobOperation):
            return await self._on_job(operation)
        match operation:
            case ListJobs():
                return await self._list(operation)
            case CreateJob():
                return await self._create(call)
            case ReadCosts():
                return await self._costs.of(operation)
            case ReadBudgets():
                return await self._budgets.of(operation)
            case EstimateJob(tenant=tenant):
                wanted = read_body(EstimateCreate, call)
                announcements.check_tenant(tenant, self._estimates.tenants)
                told = await self._estimates.told(wanted, tenant)
                return JsonReply(200, told.model_dump(mode="json"))
            case ListDeployments():
                return await self._deployments.list()
            case Probe(name=name):
                return await self._deployments.probe(name)
            case ReadHealth():
                return await self._health.tell()

    async def _on_job(self, operation: JobOperation) -> JsonReply:
        match operation:
            case ReadJob(id=job):
                return JsonReply(200, _plain(await self._known(job)))
            case ReadSamples(id=job, after=after):
                return await self._samples(job, after)
            case ReadErrors(id=job):
                told = await self._known(job)
                failed_for = told.reason.code if told.reason else None
                return _whole_list(advised(told.codes or {}, failed_for=failed_for))
            case CreateLinks(id=job):
                await self._known(job)
                return _whole_list(await self._links.of(job))
            case Act(id=job, action=action):
                return await self._act(job, action)

    async def _list(self, asked: ListJobs) -> JsonReply:
        tenants = tuple(self._estimates.tenants) if asked.tenant == "*" else (asked.tenant,)
        unknown = asked.tenant not in ("*", *self._estimates.tenants)
        # One that was taken out of the settings has its jobs all the same.
        if unknown and not (await self._index.names(asked.tenant, 1))[0]:
            raise unknown_tenant(asked.tenant, self._estimates.tenants)
        return await (self._open if asked.open else self._newest)(asked, tenants)

    async def _open(self, asked: ListJobs, tenants: Collection[str]) -> JsonReply:
        if asked.after is not None and not await self._is_known(asked.after):
            raise _no_place()
        found: list[JobStatus] = []
        looked, last, more = 0, asked.after, True
        while more and len(found) < asked.limit and looked < MOST_READ:
            page, more = await self._index.open_page(max(LEAST_READ, asked.limit), last or "")
            looked += len(page)
            last = page[-1].entry.id if page else last
            own = [each for each in page if each.tenant in tenants]
            # A marker stays until it is told that its job has ended.
            found += [each for each in await self._fit(asked, own) if each.ended is None]
        if len(found) > asked.limit:
            found, more = found[: asked.limit], True
            last = found[-1].job
        return _page(found, last, more=more)

    async def _fit(self, asked: ListJobs, page: Iterable[Listed]) -> Sequence[JobStatus]:
        told = await all_of(self._listed, [each for each in page if asked.lists(each.entry)])
        return [each for each in told if each and asked.takes(each)]

    async def _newest(self, asked: ListJobs, tenants: Collection[str]) -> JsonReply:
        last = None
        if asked.after is not None:
            last = await self._index.place(tenants, asked.after)
            if last is None:
                raise _no_place()
        most = MOST_READ if asked.filters else asked.limit
        entries, more = await self._index.page(tenants, most, last)
        found: list[JobStatus] = []
        looked = 0
        while len(found) < asked.limit and looked < len(entries):
            page = entries[looked : looked + asked.limit - len(found)]
            looked += len(page)
            found += await self._fit(asked, page)
        seen = entries[looked - 1].entry.id if looked else None
        return _page(found, seen, more=more or looked < len(entries))

    async def _samples(self, job: str, after: int) -> JsonReply:
        # Of a job that has ended the exact series, for whoever has not followed it.
        found = None if after else await self._history.series(job)
        if found is None:
            found = await self._history.read(job, after)
        if not found.end:
            await self._known(job)  # one that has no samples yet, or none at all
        return _whole_list(found.data, after=found.end)

    async def _create(self, call: HttpCall) -> JsonReply:
        """Put the job on the queue `jobs`, as a back end's message would have."""
        request = announcements.read_jobs_message(call.body)
        if not isinstance(request, JobRequest):
            raise HttpRefusal(
                400,
                "invalid_message",
                'the body is a job request: {"container": "...", "name": "...", "options": {...}}',
                param="type",
            )
        announcement = await self._doors.announced(request, asked_by(call))
        known = await self._told(announcement.job)
        if known is not None:
            return JsonReply(200, _plain(known))
        # The marker first: who is answered may go, and the sweeper knows of the job.
        await self._store.open(announcement)
        await self._doors.send(announcement)
        return JsonReply(
            202, _plain(_validating(announcement)), {"Location": f"/api/jobs/{announcement.job}"}
        )

    async def _act(self, job_id: str, action: Action) -> JsonReply:
        """Cancel, pause or resume; the answer is 409 where the job's state does not allow it."""
        done = await self._actions.act(job_id, action)
        told = await self._known(job_id)
        if done:
            return JsonReply(202, _plain(told))
        message = f"a job that is {told.state} takes no {action}"
        if told.state == "validating":
            message += " yet: its file is being read, try again in a moment"
        raise HttpRefusal(409, "not_possible", message, param="action")

    async def _listed(self, listed: Listed) -> JobStatus | None:
        try:
            return await self._seen(listed.entry.id)
        except NewerVersion as error:
            why = Reason(code="newer_version", message=str(error))
        except Unreadable as error:
            why = Reason(code="unreadable", message=f"{error}: {_ODD}")
        return events.unread(listed.entry, listed.tenant, why)

    async def _known(self, job_id: str) -> JobStatus:
        if (told := await self._seen(job_id)) is not None:
            return told
        raise _unknown()

    async def _seen(self, job_id: str) -> JobStatus | None:
        if (told := await self._told(job_id)) is not None:
            return told
        # Who posts a job looks at it before intake does.
        marked = await self._store.announcement(job_id)
        return None if marked is None else _validating(marked)

    async def _is_known(self, job_id: str) -> bool:
        try:
            return await self._seen(job_id) is not None
        except (NewerVersion, Unreadable):
            return True

    async def _told(self, job_id: str) -> JobStatus | None:
        told = await self._index.status(job_id, self._clock())
        return None if told is None else told[0]


def _page(found: Iterable[JobStatus], last: str | None, *, more: bool) -> JsonReply:
    data = [_plain(each) for each in found]
    return JsonReply(200, {"object": "list", "data": data, "last_id": last, "has_more": more})


def _validating(announcement: Announcement) -> JobStatus:
    """The status of a job that is on its way to being pinned."""
    metadata = dict(announcement.asked.metadata)
    # Intake judges the options: what is wrong with them is told in the job's own status.
    with suppress(ValueError):
        metadata |= parse_options(announcement.options or {}).metadata
    return JobStatus(
        job=announcement.job,
        tenant=announcement.tenant,
        state="validating",
        input=f"{announcement.container}/{announcement.name}",
        door=announcement.door,
        message_id=announcement.asked.message_id,
        metadata=metadata,
    )


def _whole_list(data: Iterable[BaseModel], **more: Any) -> JsonReply:
    """A list that is never paged."""
    told = [each.model_dump(mode="json") for each in data]
    return JsonReply(200, {"object": "list", "data": told, **more, "has_more": False})


def _no_place() -> HttpRefusal:
    return HttpRefusal(400, "invalid_value", "after: there is no such job", param="after")


def _unknown() -> HttpRefusal:
    return HttpRefusal(404, "unknown_job", "there is no such job", param="id")


def _plain(told: JobStatus) -> dict[str, Any]:
    return told.model_dump(mode="json", exclude_none=True)
