"""What HTTP may do to a job that runs: cancel, pause, resume."""

from collections.abc import Callable
from typing import Final

from schemas.jobs import JobState
from workers.api.routing import Action
from workers.intake.doors import Doors
from workers.jobs import budget, endings, pauses
from workers.jobs.lifecycle import Change
from workers.jobs.store import JobStore
from workers.jobs.transitions import Transitions

INSURED_SECONDS: Final = 10.0
"""After which a cancel or a resume is looked at whose messages may never have gone out."""


class JobActions:
    """Does to a job what somebody asks for."""

    def __init__(
        self,
        store: JobStore,
        transitions: Transitions,
        doors: Doors,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._transitions = transitions
        self._doors = doors
        self._clock = clock

    async def act(self, job_id: str, action: Action) -> bool:
        """Whether it is so now; False where there is no such job, or its state forbids it."""
        job = await self._store.job(job_id)
        if job is None:
            return False
        done = False

        def acted(state: JobState | None, repeated: bool) -> Change:
            nonlocal done
            change = _change(state, action, repeated, self._clock())
            # The last look counts: an earlier change may have lost against somebody else's.
            done = change.state is not None or _stands(state, action)
            return change

        if await self._sends(job_id, action):
            await self._transitions.insure(job, at=self._clock() + INSURED_SECONDS)
        state = await self._transitions.take(job, acted)
        if action == "resume" and state is not None and budget.awaits_room(state):
            await self._look_for_room(job_id)
        return done

    async def _look_for_room(self, job_id: str) -> None:
        """Have it looked at once whether a job's month has room, and not at the next sweep."""
        announcement = await self._store.announcement(job_id)
        if announcement is not None:
            await self._doors.send(announcement, repeated=True, marked=True)

    async def _sends(self, job_id: str, action: Action) -> bool:
        """Whether messages follow from an action, which this process may not live to send."""
        if action == "cancel":
            return await self._store.is_open(job_id)
        held = await self._store.state(job_id) if action == "resume" else None
        return held is not None and held.state.paused


def _change(state: JobState | None, action: Action, repeated: bool, now: float) -> Change:
    if action == "cancel":
        return endings.end(state, "cancelled", None, repeated=repeated, now=now)
    if action == "pause":
        return pauses.pause(state, now=now)
    return pauses.resume(state, repeated=repeated, now=now)


def _stands(state: JobState | None, action: Action) -> bool:
    """Whether what is asked for is so already."""
    if state is None:
        return False
    if action == "cancel":
        return state.ending == "cancelled"
    if state.state != "in_progress":
        return False
    if action == "pause":
        return state.paused
    if budget.awaits_room(state):
        return True  # it begins by itself
    return not state.paused and state.ending is None
