"""What the HTTP doors answer: a status code and JSON."""

import asyncio
import functools
import re
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, ParamSpec

from schemas.jobs import Job, JobState
from workers.errors import Unavailable, first_of
from workers.jobs import events, lifecycle
from workers.jobs.lifecycle import Change
from workers.jobs.store import JobStore
from workers.jobs.transitions import Transitions

_ACTIONS: Final = ("cancel", "pause", "resume")
_JOB_ID: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
Arguments = ParamSpec("Arguments")
_LIMIT: Final = re.compile(r"[0-9]{1,3}")
MOST_JOBS: Final = 100


@dataclass(frozen=True, slots=True)
class JsonReply:
    """An HTTP status code and a JSON body."""

    code: int
    body: dict[str, Any]


def _reachable(
    answer: Callable[Arguments, Awaitable[JsonReply]],
) -> Callable[Arguments, Coroutine[Any, Any, JsonReply]]:
    @functools.wraps(answer)
    async def answered(*args: Arguments.args, **kwargs: Arguments.kwargs) -> JsonReply:
        try:
            return await answer(*args, **kwargs)
        except Unavailable:
            return _problem(503, "unavailable", "storage or bus is out of reach: ask again")

    return answered


class Api:
    """Reads jobs, and lets people cancel, pause and resume them."""

    def __init__(
        self, store: JobStore, transitions: Transitions, *, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._transitions = transitions
        self._clock = clock

    @_reachable
    async def jobs(self, limit: str | None, after: str | None) -> JsonReply:
        """The newest jobs first, `limit` of them (1 to 100, 20 by default), after job `after`."""
        count = 20 if limit is None else int(limit) if _LIMIT.fullmatch(limit) else 0
        if not 1 <= count <= MOST_JOBS:
            return _problem(400, "invalid_limit", f"limit has to be 1 to {MOST_JOBS}")
        # Listed oldest first, and only the end of the list is wanted: it alone is held.
        newest: deque[str] = deque(maxlen=count + 1)
        async for job in self._store.jobs():
            if after is None or job < after:
                newest.append(job)
        ids = list(reversed(newest))
        try:
            async with asyncio.TaskGroup() as group:
                page = [group.create_task(self._status(job)) for job in ids[:count]]
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors
        return JsonReply(
            200,
            {
                "object": "list",
                "data": [told for task in page if (told := task.result()) is not None],
                "has_more": len(ids) > count,
            },
        )

    @_reachable
    async def job(self, job_id: str) -> JsonReply:
        """One job's state, counts, tokens, rate, time left and where its results are."""
        told = await self._status(job_id)
        return _unknown() if told is None else JsonReply(200, told)

    @_reachable
    async def act(self, job_id: str, action: str) -> JsonReply:
        """Cancel, pause or resume. 409 where the job's state does not allow it."""
        if action not in _ACTIONS:
            return _problem(404, "unknown_action", f"known are {', '.join(_ACTIONS)}")
        job = await self._job(job_id)
        if job is None:
            return _unknown()
        done = False

        def acted(state: JobState | None, repeated: bool) -> Change:
            nonlocal done
            change = _act(state, action, repeated)
            # The last look counts: an earlier change may have lost against somebody else's.
            done = change.state is not None or _stands(state, action)
            return change

        await self._transitions.take(job, acted)
        told = await self._status(job_id) or {}
        if not done:
            return _problem(409, "not_possible", f"a job that is {told['state']} takes no {action}")
        return JsonReply(202, told)

    async def _job(self, job_id: str) -> Job | None:
        return await self._store.job(job_id) if _JOB_ID.fullmatch(job_id) else None

    async def _status(self, job_id: str) -> dict[str, Any] | None:
        job = await self._job(job_id)
        if job is None:
            return None
        held = await self._store.state(job_id)
        told = events.status(
            job, held.state if held else None, self._store.results_container, self._clock()
        )
        return told.model_dump(mode="json", exclude_none=True)


def _act(state: JobState | None, action: str, repeated: bool) -> Change:
    if action == "cancel":
        return lifecycle.end(state, "cancelled", None, repeated=repeated)
    if action == "pause":
        return lifecycle.pause(state)
    return lifecycle.resume(state, repeated=repeated)


def _stands(state: JobState | None, action: str) -> bool:
    """Whether what is asked for is so already."""
    if state is None:
        return False
    if action == "cancel":
        return state.ending == "cancelled"
    if state.state != "in_progress":
        return False
    return state.paused if action == "pause" else not state.paused and state.ending is None


def _unknown() -> JsonReply:
    return _problem(404, "unknown_job", "there is no such job")


def _problem(code: int, name: str, message: str) -> JsonReply:
    return JsonReply(code, {"error": {"code": name, "message": message}})
