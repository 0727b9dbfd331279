"""Attends to an attempt while its rows are asked: keeps its journal and watches its job."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

from schemas.jobs import Job, JobState, Waiting
from workers.errors import Draining, Unavailable, first_of
from workers.jobs import lifecycle
from workers.jobs.store import JobStore
from workers.jobs.transitions import Transitions
from workers.shards.attempt import Attempt

WORTH_TELLING_SECONDS: Final = 10.0


class Attendance:
    """What happens beside the asking. `asking` holds what a drain has to stop."""

    def __init__(
        self,
        store: JobStore,
        transitions: Transitions,
        *,
        waiting: Callable[[str], Waiting | None],
        clock: Callable[[], float],
        journal_seconds: float,
    ) -> None:
        self._store = store
        self._transitions = transitions
        self._waiting = waiting
        self._clock = clock
        self._journal_seconds = journal_seconds
        self.asking: set[asyncio.Task[None]] = set()

    async def attend(self, attempt: Attempt, asked: Coroutine[Any, Any, None]) -> None:
        """Run `asked` to its end. Raises Draining, with all journaled, where a drain stopped it."""
        try:
            async with asyncio.TaskGroup() as group:
                attendant = group.create_task(self._keep_journal(attempt))
                work = group.create_task(asked)
                self.asking.add(work)
                work.add_done_callback(self.asking.discard)
                await asyncio.wait([work])
                attendant.cancel()
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors
        if work.cancelled():
            await attempt.flush(end=True)
            raise Draining

    async def _keep_journal(self, attempt: Attempt) -> None:
        while True:
            await asyncio.sleep(self._journal_seconds)
            # A storage outage is no reason to stop asking: what is pending is written later.
            with contextlib.suppress(Unavailable):
                if not attempt.past.suspect:
                    await attempt.flush()
                await self._watch(attempt)

    async def _watch(self, attempt: Attempt) -> None:
        """Stop asking when the job is ending, paused or over; tell what it waits for."""
        held = await self._store.state(attempt.job.id)
        if held is None or attempt.gate.closed is not None:
            return
        state = held.state
        if state.ending is not None or state.state != "in_progress":
            attempt.ending, attempt.reason = state.ending, state.reason
            attempt.gate.close("ending")
        elif state.paused:
            attempt.gate.close("paused")
        else:
            waiting = self._waiting(attempt.job.id)
            if waiting is not None and self._clock() - waiting.since >= WORTH_TELLING_SECONDS:
                await self.tell_waiting(attempt.job, waiting)

    async def tell_waiting(self, job: Job, waiting: Waiting) -> None:
        """Let the job's status say what it waits for."""

        def waits(state: JobState | None, _repeated: bool) -> lifecycle.Change:
            return lifecycle.NOTHING if state is None else lifecycle.wait(state, waiting)

        await self._transitions.take(job, waits)
