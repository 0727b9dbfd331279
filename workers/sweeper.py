"""Looks after jobs that have not moved: what a crash left unsent is sent again."""

import logging
from collections.abc import Callable
from math import inf
from typing import Final

from schemas.jobs import Job, JobState
from schemas.messages import finish
from workers.intake.doors import Doors
from workers.jobs import budget, endings, helping, lifecycle
from workers.jobs.outbox import Outbox
from workers.jobs.store import Held, JobStore
from workers.jobs.transitions import Transitions
from workers.ports.errors import WorkerError

LOOK_SECONDS: Final = 300.0

log = logging.getLogger(__name__)


class Sweeper:
    """One look at every open job. A message that is sent twice by it does no harm."""

    def __init__(
        self,
        store: JobStore,
        transitions: Transitions,
        outbox: Outbox,
        doors: Doors,
        *,
        clock: Callable[[], float],
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._store = store
        self._transitions = transitions
        self._outbox = outbox
        self._doors = doors
        self._clock = clock
        self._look_seconds = look_seconds
        self._looked = -inf
        self._unread: set[str] = set()

    async def run(self) -> None:
        """Look at all open jobs, also at those after one that cannot be read."""
        now = self._clock()
        since, unread = now - self._looked, set[str]()
        async for job, marked in self._store.open_jobs():
            try:
                # A look that failed was none: its help may have been due, and the next is far off.
                await self._look(job, marked, inf if job in self._unread else since)
                continue
            except WorkerError as error:
                log.warning("[JOB_UNREAD] job %s could not be looked at: %s", job, error)
            except Exception:
                log.exception("[JOB_BUG] job %s could not be looked at: report this", job)
            unread.add(job)
        self._looked, self._unread = now, unread

    async def _look(self, job_id: str, marked: float, since: float) -> None:
        job = await self._store.job(job_id)
        held = await self._store.state(job_id) if job else None
        state = held.state if held else None
        moved = helping.stands_since(state, held.last_modified if held else marked)
        due = helping.overdue(state, self._clock() - moved, self._look_seconds, since)
        if job is None or held is None or held.state.state == "validating":
            if due:
                await self._announce_again(job_id)
            return
        if held.state.terminal:
            await self._transitions.tell_end(job, held.state)
            return
        if self._clock() >= job.expires:
            held = await self._expired(job, held)
        if budget.awaits_room(held.state):
            await self._announce_again(job_id)
        elif due:
            await self._help(job, held)

    async def _announce_again(self, job_id: str) -> None:
        announcement = await self._store.announcement(job_id)
        if announcement is not None:
            # Not planned here: that takes minutes, and others wait to be looked at.
            await self._doors.send(announcement, repeated=True, marked=True)

    async def _expired(self, job: Job, held: Held) -> Held:
        def expired(state: JobState | None, repeated: bool) -> lifecycle.Change:
            return endings.end(state, "expired", None, repeated=repeated, now=self._clock())

        await self._transitions.take(job, expired)
        return await self._store.state(job.id) or held

    async def _help(self, job: Job, held: Held) -> None:
        if held.state.terminal:
            return
        if held.state.state == "finalizing":
            await self._outbox.send_jobs(finish(job))
            return
        seen = held.state.revision

        def nudged(state: JobState | None, repeated: bool) -> lifecycle.Change:
            if state is None:
                return lifecycle.NOTHING
            return helping.nudge(state, seen, repeated=repeated)

        await self._transitions.take(job, nudged)
