"""The operations on jobs over HTTP: list, create, read, cancel, pause, resume."""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any, Final

from schemas.jobs import TRACEPARENT, Asked, JobState, JobStatus
from schemas.messages import Announcement, JobRequest
from workers.api.deployments import DeploymentsApi
from workers.api.http import HttpCall, HttpRefusal, JsonReply
from workers.api.routing import (
    Act,
    Action,
    CreateJob,
    ListDeployments,
    ListJobs,
    Operation,
    Probe,
    ReadJob,
    route,
)
from workers.errors import (
    InputError,
    NewerVersion,
    StorageError,
    Unavailable,
    Unreadable,
    first_of,
)
from workers.intake import announcements
from workers.intake.doors import Doors
from workers.jobs import lifecycle
from workers.jobs.index import JobIndex
from workers.jobs.lifecycle import Change
from workers.jobs.store import JobStore
from workers.jobs.transitions import Transitions

MOST_READ: Final = 200
"""Jobs that one page looks at: a filter that few fit gives short pages, not slow ones."""

INSURED_SECONDS: Final = 10.0
"""After which a cancel is looked at whose process died before it sent what follows from it."""

_IDEMPOTENCY_KEY: Final = re.compile(r"[!-~]{1,128}")
_STATUS_OF: Final = {"file_not_found": 404, "file_changed": 409, "message_too_large": 413}

log = logging.getLogger(__name__)


class Api:
    """Answers the calls under `/api`."""

    def __init__(
        self,
        store: JobStore,
        transitions: Transitions,
        index: JobIndex,
        doors: Doors,
        deployments: DeploymentsApi,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._transitions = transitions
        self._index = index
        self._doors = doors
        self._deployments = deployments
        self._clock = clock

    async def answer(self, call: HttpCall) -> JsonReply:
        """The answer to any call; what is wrong with it is an answer too."""
        try:
            return await self._do(route(call), call)
        except HttpRefusal as refusal:
            return refusal.reply()
        except InputError as error:
            status = _STATUS_OF.get(error.code, 400)
            return HttpRefusal(status, error.code, str(error), param=error.param).reply()
        except NewerVersion as error:
            return HttpRefusal(400, "newer_version", str(error)).reply()
        except (StorageError, Unreadable):
            log.exception("storage refused what HTTP asked for")
            return HttpRefusal(500, "storage_refused", "storage refused: see the log").reply()
        except Unavailable:
            away = HttpRefusal(503, "unavailable", "storage or bus is out of reach: ask again")
            return away.reply()

    async def _do(self, operation: Operation, call: HttpCall) -> JsonReply:
        match operation:
            case ListJobs():
                return await self._list(operation)
            case CreateJob():
                return await self._create(call)
            case ReadJob(id=job):
                return JsonReply(200, _plain(await self._known(job)))
            case Act(id=job, action=action):
                return await self._act(job, action)
            case ListDeployments():
                return await self._deployments.list()
            case Probe(name=name):
                return await self._deployments.probe(name)

    async def _list(self, asked: ListJobs) -> JsonReply:
        last = None
        if asked.after is not None and (last := await self._index.find(asked.after)) is None:
            raise HttpRefusal(400, "invalid_value", "after: there is no such job", param="after")
        most = MOST_READ if asked.filters else asked.limit
        entries, more = await self._index.page(asked.tenant, most, last)
        found: list[JobStatus] = []
        looked = 0
        while len(found) < asked.limit and looked < len(entries):
            page = entries[looked : looked + asked.limit - len(found)]
            looked += len(page)
            fit = [entry.id for entry in page if asked.lists(entry)]
            found += [told for told in await self._statuses(fit) if told and asked.takes(told)]
        return JsonReply(
            200,
            {
                "object": "list",
                "data": [_plain(told) for told in found],
                "last_id": entries[looked - 1].id if looked else None,
                "has_more": more or looked < len(entries),
            },
        )

    async def _create(self, call: HttpCall) -> JsonReply:
        """Put the job on the queue `jobs`, as a back end's message would have."""
        key = call.headers.get("idempotency-key")
        if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
            raise HttpRefusal(
                400,
                "invalid_value",
                "Idempotency-Key: 1 to 128 visible ASCII characters",
                param="Idempotency-Key",
            )
        request = announcements.read_jobs_message(call.body)
        if not isinstance(request, JobRequest):
            raise HttpRefusal(
                400,
                "invalid_message",
                'the body is a job request: {"container": "...", "name": "...", "options": {...}}',
                param="type",
            )
        trace = call.headers.get("traceparent", "")
        asked = Asked(message_id=key, traceparent=trace if TRACEPARENT.fullmatch(trace) else None)
        announcement = await self._doors.announced(request, asked)
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
        """Cancel, pause or resume. 409 where the job's state does not allow it."""
        job = await self._store.job(job_id)
        if job is None:
            raise _impossible(await self._known(job_id), action)
        done = False

        def acted(state: JobState | None, repeated: bool) -> Change:
            nonlocal done
            change = _change(state, action, repeated)
            # The last look counts: an earlier change may have lost against somebody else's.
            done = change.state is not None or _stands(state, action)
            return change

        if action == "cancel" and await self._store.is_open(job_id):
            await self._transitions.insure(job, at=self._clock() + INSURED_SECONDS)
        await self._transitions.take(job, acted)
        told = await self._known(job_id)
        if not done:
            raise _impossible(told, action)
        return JsonReply(202, _plain(told))

    async def _statuses(self, ids: list[str]) -> list[JobStatus | None]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._told(job)) for job in ids]
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors
        return [task.result() for task in tasks]

    async def _known(self, job_id: str) -> JobStatus:
        if (told := await self._told(job_id)) is not None:
            return told
        # Who posts a job looks at it before intake does.
        if (marked := await self._store.announcement(job_id)) is not None:
            return _validating(marked)
        raise _unknown()

    async def _told(self, job_id: str) -> JobStatus | None:
        told = await self._index.status(job_id, self._clock())
        return None if told is None else told[0]


def _change(state: JobState | None, action: Action, repeated: bool) -> Change:
    if action == "cancel":
        return lifecycle.end(state, "cancelled", None, repeated=repeated)
    if action == "pause":
        return lifecycle.pause(state)
    return lifecycle.resume(state, repeated=repeated)


def _stands(state: JobState | None, action: Action) -> bool:
    """Whether what is asked for is so already."""
    if state is None:
        return False
    if action == "cancel":
        return state.ending == "cancelled"
    if state.state != "in_progress":
        return False
    return state.paused if action == "pause" else not state.paused and state.ending is None


def _validating(announcement: Announcement) -> JobStatus:
    """The status of a job that is on its way to being pinned."""
    return JobStatus(
        job=announcement.job,
        tenant=announcement.tenant,
        state="validating",
        input=f"{announcement.container}/{announcement.name}",
        door=announcement.door,
        message_id=announcement.asked.message_id,
    )


def _impossible(told: JobStatus, action: Action) -> HttpRefusal:
    message = f"a job that is {told.state} takes no {action}"
    if told.state == "validating":
        message += " yet: its file is being read, try again in a moment"
    return HttpRefusal(409, "not_possible", message, param="action")


def _unknown() -> HttpRefusal:
    return HttpRefusal(404, "unknown_job", "there is no such job", param="id")


def _plain(told: JobStatus) -> dict[str, Any]:
    return told.model_dump(mode="json", exclude_none=True)
