"""The one way a job's state changes: swap, then send, then tell."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Final
from weakref import WeakValueDictionary

from schemas.jobs import Job, JobState
from schemas.listing import Done
from schemas.messages import EventType, ShardMessage, finish
from workers.jobs import events
from workers.jobs.costs import cost_so_far
from workers.jobs.history import History
from workers.jobs.lifecycle import Change
from workers.jobs.months import MonthlyBudgets
from workers.jobs.outbox import Outbox
from workers.jobs.store import JobStore
from workers.ports.errors import Unavailable
from workers.ports.telemetry import Telemetry

_PATIENCE: Final = 12
TURN_SECONDS: Final = 2.0
"""Tens of shards that end together have changed the state by then, one after the other."""

log = logging.getLogger(__name__)

Transition = Callable[[JobState | None, bool], Change]
"""From the state that stands, and whether this may be a repeat, to what becomes of it."""


class Transitions:
    """Takes a job from state to state.

    The order is what survives a crash: what follows from a state is a function of it, so whoever
    finds the state stored can send and publish again.
    """

    def __init__(
        self,
        store: JobStore,
        outbox: Outbox,
        history: History,
        *,
        rng: random.Random,
        telemetry: Telemetry,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._history = history
        self._rng = rng
        self._telemetry = telemetry
        self._months = MonthlyBudgets(store, rng=rng)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def take(
        self, job: Job, transition: Transition, *, repeated: bool = False
    ) -> JobState | None:
        """Make one transition durable and do what it asks for; gives the state that stands then.

        Raises `Unavailable` when storage or bus stay out of reach.
        """
        before, after, change, repeated = await self._swap(job, transition, repeated)
        if change.state is not None:
            priced, state = job.prices and change.state.terminal, change.state
            cost = cost_so_far(job, state) if priced else None
            self._telemetry.moved(job, before, state, cost)
        if after is None:
            return None
        if change.state is None and after.terminal:
            await self.tell_end(job, after)
            return after
        trace = job.trace
        version = job.schema_version
        shards = [
            ShardMessage(schema_version=version, job=job.id, shard=shard, gen=after.gen)
            for shard in change.shards
        ]
        await self._outbox.send_shards(shards, delay=change.delay, trace=trace)
        if change.finish:
            await self._outbox.send_jobs(finish(job), trace=trace)
        if change.sample is not None:
            cost = cost_so_far(job, after) if job.prices else None
            counted = None if cost is None else cost.counted
            await self._history.add(job.id, change.sample.model_copy(update={"cost": counted}))
        if ends := after.terminal:
            await self._settle(job, after)
        if change.state is not None:
            _log_failure(job, before, after)
            await self._tell(events.event_type(before, after), job, after)
        elif repeated and change.told:
            await self._tell(events.standing_event(after), job, after)
        if ends:
            await self._end(job, after)
        return after

    async def _tell(self, kind: EventType, job: Job, state: JobState) -> None:
        if not state.terminal:
            await self._outbox.tell(kind, job, state)
            return
        with self._telemetry.errand("tell", job.trace):
            await self._outbox.tell(kind, job, state)

    async def insure(self, job: Job, *, at: float) -> None:
        """Have somebody look, at a time, whether the ending or resume that is asked for went out.

        Whoever asks over HTTP has no message that would come again if this process died.
        """
        await self._outbox.send_jobs(finish(job), at=at, repeated=True)

    async def _swap(
        self, job: Job, transition: Transition, repeated: bool
    ) -> tuple[JobState | None, JobState | None, Change, bool]:
        for attempt in range(_PATIENCE):
            with await self._turn(job.id):
                held = await self._store.state(job.id)
                before = held.state if held else None
                change = transition(before, repeated)
                if change.state is None:
                    return before, before, change, repeated
                try:
                    if await self._store.swap(job.id, held, change.state):
                        return before, change.state, change, repeated
                except Unavailable:
                    if attempt == _PATIENCE - 1:
                        raise
            # It may have been our own success, so from here on this is a repeat.
            repeated = True
            self._telemetry.conflict()
            await asyncio.sleep(self._rng.uniform(0, min(2.0, 0.02 * 2**attempt)))
        raise Unavailable(f"the state of {job.id} could not be changed: too many are at it")

    async def _turn(self, job: str) -> contextlib.ExitStack:
        """One try at a time in a process: of those that read the same state all but one fail.

        Where storage hangs, nobody waits for long behind another.
        """
        turn, taken = self._turns.setdefault(job, asyncio.Lock()), contextlib.ExitStack()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_SECONDS):
                await turn.acquire()
                taken.callback(turn.release)
        return taken

    async def tell_end(self, job: Job, state: JobState) -> None:
        """Make sure that an ended job has settled its month, and that its last event was sent, then
        its webhook, whatever message has come for it.
        """
        await self._settle(job, state)
        if await self._store.is_open(job.id):
            self._telemetry.end_found(job, state)
            if await self._store.done(job.id) is None:
                await self._tell(events.standing_event(state), job, state)
            await self._end(job, state)

    async def _settle(self, job: Job, state: JobState) -> None:
        """Before anybody is told of the end: who hears of it may need the room that it leaves."""
        if job.monthly:
            await self._months.settle(job, state)

    async def _end(self, job: Job, state: JobState) -> None:
        await self._remember(job, state)
        try:
            await self._outbox.send_webhook(job)
        except Unavailable as error:
            # The job has ended, and who listens knows: its marker stays, for the sweeper to find.
            log.warning("[WEBHOOK_WAITS] the webhook of %s is not on its queue: %s", job.id, error)
        else:
            await self._store.close(job.id)

    async def _remember(self, job: Job, state: JobState) -> None:
        ended = state.ended or job.created
        await self._store.end(
            Done(
                schema_version=job.schema_version,
                id=job.id,
                tenant=job.tenant,
                created=job.created,
                revision=state.revision,
                status=events.status(job, state, self._store.results_container, ended),
            )
        )


def _log_failure(job: Job, before: JobState | None, after: JobState) -> None:
    """One line where a job comes to fail as a whole; what its reason says is for who asked."""
    if after.ending == "failed" and (before is None or before.ending is None):
        code = after.reason.code if after.reason else "unknown"
        log.warning("[JOB_FAILED] job %s of %r fails: %s", job.id, job.input, code)
