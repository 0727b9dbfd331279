"""Runs shards: what a message about a shard leads to, whatever became of it before."""

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Callable
from math import inf
from typing import Final, Protocol, cast, get_args

from schemas.jobs import Job, JobState, Reason, Waiting
from schemas.messages import ShardMessage
from schemas.results import Receipt, WaitReason
from workers.dispatch.admission import Gate
from workers.errors import BlobChanged, BlobMissing, Draining, HandBack, Unavailable
from workers.jobs import lifecycle
from workers.jobs.outbox import Outbox
from workers.jobs.store import JobStore
from workers.jobs.transitions import Transitions
from workers.rows.reading import rules_of
from workers.settings import Settings
from workers.shards.attempt import Attempt
from workers.shards.attending import WORTH_TELLING_SECONDS, Attendance
from workers.shards.calls import Dispatch, ShardCalls
from workers.shards.input import Routes, read_rows
from workers.shards.journal import Journal, attempt_name, next_ordinal, read_journals
from workers.shards.lease import Lease
from workers.shards.spool import Spool

HELD_RETRY_SECONDS: Final = 20.0
OUTAGE_RETRY_SECONDS: Final = 30.0
STORAGE_PATIENCE_SECONDS: Final = 600.0
LONGEST_DELAY_SECONDS: Final = 3600.0
CHANGED: Final = Reason(
    code="input_changed",
    message="the file was overwritten or deleted while it ran: drop it again",
)

log = logging.getLogger(__name__)


class Deployments(Dispatch, Routes, Protocol):
    """What a runner asks of the deployments, through the dispatcher."""

    def waiting(self, job: str) -> Waiting | None:
        """What a job's calls wait for now."""


class Runner:
    """Runs shards. One instance a process; `run` may be called at the same time for several."""

    def __init__(
        self,
        store: JobStore,
        transitions: Transitions,
        outbox: Outbox,
        dispatcher: Deployments,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        settings: Settings,
    ) -> None:
        self._store = store
        self._blobs = store.blobs
        self._transitions = transitions
        self._outbox = outbox
        self._dispatcher = dispatcher
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._attendance = Attendance(
            store,
            transitions,
            waiting=dispatcher.waiting,
            clock=clock,
            journal_seconds=settings.journal_seconds,
        )
        self._holding = 0
        self._idle = asyncio.Event()
        self._draining = False

    async def run(self, message: ShardMessage, *, repeated: bool) -> None:
        """Bring a shard as far as it goes now. Safe at any time, for any message, any number of
        times. Raises Draining when the process is to stop.
        """
        if self._draining:
            raise Draining
        try:
            await self._run(message, repeated)
        except Unavailable as error:
            # Without a delay the queue would hand the shard out again at once, until it is dead.
            log.warning("shard %s of %s waits: %s", message.shard, message.job, error)
            await self._send_copy(message, OUTAGE_RETRY_SECONDS, repeated=True)

    async def _run(self, message: ShardMessage, repeated: bool) -> None:
        job = await self._store.job(message.job)
        if job is None:
            return  # announced again by the sweeper, if there is anything to it
        receipt = await self._store.receipt(job.id, message.shard)
        if receipt is not None:
            await self._advance(job, receipt, repeated)
            return
        held = await self._store.state(job.id)
        if held is None:
            return
        if held.state.terminal:
            await self._transitions.tell_end(job, held.state)
            return
        if not lifecycle.runs(held.state, message.gen):
            return
        name = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        lease = Lease(self._blobs, await self._store.lease_blob(job.id, message.shard), name)
        if not await lease.acquire():
            await self._send_copy(message, HELD_RETRY_SECONDS)
            return
        self._holding += 1
        self._idle.clear()
        results = Spool()
        gate = Gate(until=lease.until, deadline=inf)
        try:
            async with lease.kept(gate):
                attempt = await self._begin(job, message.shard, lease, gate, results)
                attempt.ending, attempt.reason = held.state.ending, held.state.reason
                receipt = await self._bring_on(attempt, message)
                if receipt is not None:
                    await self._advance(job, receipt, repeated)
        finally:
            results.close()
            self._holding -= 1
            if not self._holding:
                self._idle.set()

    async def _begin(
        self, job: Job, shard: int, lease: Lease, gate: Gate, results: Spool
    ) -> Attempt:
        """Open the own journal and read what earlier attempts left."""
        earlier = await self._store.journals(job.id, shard)
        folder = self._store.ref(job.id, "journal", str(shard), "")
        journal = Journal(self._blobs, folder, attempt_name(next_ordinal(earlier), lease.attempt))
        await journal.open()
        planned = await self._store.planned(job.id, shard)
        past = await read_journals(self._blobs, earlier, results)
        gate.deadline = asyncio.get_running_loop().time() + self._settings.shard_seconds
        return Attempt(
            job=job,
            planned=planned,
            gate=gate,
            lease=lease,
            journal=journal,
            past=past,
            results=results,
        )

    async def _bring_on(self, attempt: Attempt, message: ShardMessage) -> Receipt | None:
        """Ask what is left; gives the receipt, or None where the rest had to go back."""
        await self._read(attempt)
        attempt.settle_unaskable()
        asking = ShardCalls(
            attempt.job,
            self._dispatcher,
            attempt.gate,
            attempt.collect,
            spend=attempt.spend,
            spent=attempt.past.spent,
        )
        if self._draining:
            await attempt.flush(end=True)
            raise Draining
        if attempt.ending is None and attempt.left():
            await self._attendance.attend(attempt, self._ask(attempt, asking))
        if attempt.ending is not None:
            attempt.write_off(attempt.ending)
        await self._journal_rest(attempt)
        if not attempt.complete:
            await self._hand_back(attempt, message, asking)
            return None
        return await self._store.create_receipt(attempt.job.id, await attempt.write(self._store))

    async def _journal_rest(self, attempt: Attempt) -> None:
        """Journal what is not yet, with the end mark.

        It is paid for, and an outage of storage is no crash: it is tried again for long.
        """
        loop = asyncio.get_running_loop()
        patience = loop.time() + STORAGE_PATIENCE_SECONDS
        while True:
            try:
                await attempt.flush(end=True)
            except Unavailable:
                if self._draining or loop.time() >= patience:
                    raise
                await asyncio.sleep(self._rng.uniform(1.0, 3.0))
            else:
                return

    async def _read(self, attempt: Attempt) -> None:
        rules = rules_of(attempt.job, self._settings.default_models)
        try:
            attempt.rows = await read_rows(
                self._store, attempt.job, attempt.planned, rules, self._dispatcher
            )
        except (BlobMissing, BlobChanged):

            def failed(state: JobState | None, repeated: bool) -> lifecycle.Change:
                return lifecycle.end(state, "failed", CHANGED, repeated=repeated)

            state = await self._transitions.take(attempt.job, failed)
            attempt.ending = (state.ending if state else None) or "failed"
            attempt.reason = CHANGED

    async def _ask(self, attempt: Attempt, asking: ShardCalls) -> None:
        if not attempt.past.suspect:
            await asking.all_at_once(attempt.left())
            return
        log.warning(
            "shard %s of %s crashed %s workers: its rows are asked one by one",
            attempt.planned.shard,
            attempt.job.id,
            attempt.past.crashes,
        )
        await asking.one_by_one(attempt.left(), attempt.journal.begin, attempt.flush)

    async def _hand_back(self, attempt: Attempt, message: ShardMessage, asking: ShardCalls) -> None:
        """Put the rest of the shard back on the queue; what is done is journaled."""
        if attempt.gate.closed == "paused":
            return  # resuming sends every shard that is out
        # A row that needs no more than a turn must not wait for one that needs tomorrow's quota.
        waits = sorted(asking.handed_back, key=lambda wait: wait.delay)
        if waits and waits[-1].delay >= WORTH_TELLING_SECONDS:
            waiting = _waiting(waits[-1], self._clock())
            if waiting is not None:
                await self._attendance.tell_waiting(attempt.job, waiting)
        await self._send_copy(message, waits[0].delay if waits else 0.0)

    async def _advance(self, job: Job, receipt: Receipt, repeated: bool) -> None:
        def advanced(state: JobState | None, repeated: bool) -> lifecycle.Change:
            if state is None:
                return lifecycle.NOTHING
            return lifecycle.advance(state, receipt, repeated=repeated, now=self._clock())

        await self._transitions.take(job, advanced, repeated=repeated)

    async def _send_copy(
        self, message: ShardMessage, delay: float, *, repeated: bool = False
    ) -> None:
        gen = message.gen
        # Out of reach, the message's own will do: were it too old, the sweeper sends a newer one.
        with contextlib.suppress(Unavailable):
            held = await self._store.state(message.job)
            gen = gen if held is None else held.state.gen
        delay = min(delay, LONGEST_DELAY_SECONDS)
        await self._outbox.send_shards(
            message.job, [message.shard], gen, delay=delay, repeated=repeated
        )

    async def drain(self) -> None:
        """Stop asking at once and journal what is there: the process is about to end."""
        self._draining = True
        for task in tuple(self._attendance.asking):
            task.cancel()
        if self._holding:
            await self._idle.wait()


def _waiting(wait: HandBack, now: float) -> Waiting | None:
    """What a job is to be told of a wait; None for a reason that is the worker's own."""
    if wait.reason not in get_args(WaitReason):
        return None
    return Waiting(
        reason=cast("WaitReason", wait.reason),
        deployment=wait.deployment,
        message=wait.said,
        since=now,
        until=now + wait.delay,
    )
