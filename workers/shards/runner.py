"""Runs shards: what a message about a shard leads to, whatever became of it before."""

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

from schemas.budgets import Spend
from schemas.deployments import Task
from schemas.jobs import Job, JobState, Reason, Waiting
from schemas.messages import ShardMessage
from schemas.results import Lost, Receipt
from workers.jobs import endings, lifecycle
from workers.jobs.outbox import Outbox
from workers.jobs.pace import opens, urgency
from workers.jobs.rejections import InputError
from workers.jobs.store import JobStore, load
from workers.jobs.transitions import Transitions
from workers.ports import Received
from workers.ports.errors import (
    BlobChanged,
    BlobMissing,
    Draining,
    NewerVersion,
    StorageError,
    Unavailable,
    Unreadable,
)
from workers.ports.telemetry import Telemetry
from workers.rows.reading import rules_of
from workers.settings import Settings
from workers.shards.attempt import Attempt, Lease
from workers.shards.calls import Dispatch, NumberedRow, Room, ShardCalls, waiting_of
from workers.shards.input import Routes, read_rows
from workers.shards.purse import ShardPurse
from workers.shards.quarantine import Quarantine
from workers.shards.reports import Reports
from workers.shards.spool import write_receipt

HELD_RETRY_SECONDS: Final = 20.0
OUTAGE_RETRY_SECONDS: Final = 30.0
WORTH_TELLING_SECONDS: Final = 10.0
# Twice the calls that host.json lets run at a time: what is owed is held in memory.
MOST_UNENDED: Final = 64
LONGEST_DELAY_SECONDS: Final = 3600.0
CHANGED: Final = Reason(
    code="input_changed",
    message="the file was overwritten or deleted while it ran: drop it again",
)

log = logging.getLogger(__name__)


Refuse = Callable[[Received, InputError | NewerVersion], Awaitable[None]]
"""Keeps a message that cannot be read, and tells whoever sent it."""


class Deployments(Dispatch, Routes, Protocol):
    """What a runner asks of the deployments, through the dispatcher."""

    def serving(self, task: Task, model: str) -> Sequence[str]:
        """The deployments that may be asked for a model's task."""

    def waiting(self, job: str) -> Waiting | None:
        """What a job's calls wait for now."""


class Runner:
    """Runs shards. A process has one instance; `run` may be called at the same time for several."""

    def __init__(
        self,
        store: JobStore,
        transitions: Transitions,
        outbox: Outbox,
        dispatcher: Deployments,
        *,
        telemetry: Telemetry,
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
        self._telemetry = telemetry
        self._reports = Reports(transitions, clock)
        self._room = Room()
        self._unended: dict[Attempt, None] = {}
        self._quarantine = Quarantine()
        self._draining = False

    async def run(self, received: Received, refuse: Refuse) -> None:
        """Bring the shard that a message names as far as it goes now.

        A message may come at any time, any number of times. One that this version cannot read, or
        whose stored documents it cannot, goes to `refuse`. Raises Draining when the process is to
        stop.
        """
        try:
            message = read_shard_message(received.body)
            await self._run_or_wait(message, received)
        except (InputError, NewerVersion) as error:
            await refuse(received, error)

    async def _run_or_wait(self, message: ShardMessage, received: Received) -> None:
        if self._draining:
            raise Draining
        try:
            await self._run(message, received)
        except Unavailable as error:
            # Without a delay the queue would hand the shard out again at once, until it is dead.
            log.debug("shard %s of %s waits: %s", message.shard, message.job, error)
            await self._send_copy(message, OUTAGE_RETRY_SECONDS, repeated=True)

    async def _run(self, message: ShardMessage, received: Received) -> None:
        standing = await self._store.standing(message.job, message.shard)
        if standing is None:
            return  # announced again by the sweeper, if there is anything to it
        job, receipt, held = standing
        if receipt is not None:
            await self._advance(job, receipt, received, found=receipt.counts.done)
            return
        if held is None:
            return
        if not lifecycle.runs(held.state, message.gen):
            if held.state.terminal:
                await self._transitions.tell_end(job, held.state)
            return
        if job.hours is not None and await self._closed(job, held.state, message):
            return
        if len(self._unended) >= MOST_UNENDED:
            raise Unavailable("too many attempts of this process owe their end to storage")
        lease = await self._lease(message)
        if lease is None:
            await self._send_copy(message, HELD_RETRY_SECONDS)
            return
        attempt = Attempt(
            *(self._store, job, message.shard, lease),
            clock=self._clock,
            rng=self._rng,
            unended=self._unended,
        )
        attempt.serving = self._dispatcher.serving
        attempt.ending, attempt.reason = held.state.ending, held.state.reason
        attempt.capped = held.state.budget is not None
        if tenant := self._settings.tenants.get(job.tenant):
            attempt.gate.tenant = job.tenant, tenant.weight
        with self._telemetry.attempt(
            job, message.shard, lease.attempt, shards=held.state.shards, received=received
        ) as trail:
            attempt.gate.trail = trail
            await self._attempt(attempt, held.state, message, received)

    async def _closed(self, job: Job, seen: JobState, message: ShardMessage) -> bool:
        """Whether a job has to wait for its hours; then its shard comes again, and it says so."""
        now = self._clock()
        at = opens(job, seen, now)
        if at <= now:
            return False
        await self._reports.waiting(job, Waiting(reason="hours", since=now, until=at))
        await self._send_copy(message, at - now)
        return True

    async def _lease(self, message: ShardMessage) -> Lease | None:
        """The shard's lease; None while an attempt has it, or has yet to end in this process.

        Where storage was away for longer than a lease lasts, one may have lost its lease and have
        yet to write what it was answered.
        """
        if self._is_here(message):
            return None
        name = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        lease = Lease(self._blobs, await self._store.lease_blob(message.job, message.shard), name)
        if not await lease.acquire():
            return None
        if self._is_here(message):
            await lease.release()
            return None
        return lease

    def _is_here(self, message: ShardMessage) -> bool:
        """Whether an attempt of this process at the shard has no end yet."""
        return any(
            (each.job.id, each.shard) == (message.job, message.shard) for each in self._unended
        )

    async def _attempt(
        self, attempt: Attempt, seen: JobState, message: ShardMessage, received: Received
    ) -> None:
        """Bring a shard to its receipt, or put the rest of it back on the queue."""
        self._weigh(attempt, seen)
        asking = ShardCalls(
            *(attempt.job, self._dispatcher, attempt.gate, attempt.collect),
            spend=attempt.spend,
            spent=attempt.spent,
            room=self._room,
            keep=attempt.keep,
        )
        async with attempt:
            attempt.receipt = receipt = await self._bring_on(attempt, asking)
            if receipt is not None:
                found, seats = attempt.found, attempt.gate.seats
                await self._advance(attempt.job, receipt, received, found=found, seats=seats)
            else:
                await self._give_back(attempt, asking)
        if receipt is None:
            await self._hand_back(attempt, message, asking)

    async def _bring_on(self, attempt: Attempt, asking: ShardCalls) -> Receipt | None:
        """Ask what is left; gives the receipt, or None where the rest has to go back."""
        await attempt.begin()
        loop = asyncio.get_running_loop()
        seconds = self._settings.shard_seconds
        if attempt.job.hours is not None and attempt.ending is None:
            seconds = min(seconds, attempt.job.hours.open_for(self._clock()))
        attempt.gate.deadline = loop.time() + seconds
        await self._read(attempt)
        attempt.settle_unaskable()
        if self._draining:
            raise Draining
        left = attempt.left() if attempt.ending is None else []
        if attempt.capped:
            await self._open_purse(attempt, left)
        if left:
            interval = self._settings.journal_seconds
            asked = self._ask(attempt, left, asking)
            await attempt.ask(asked, interval=interval, watch=self._watch)
        if attempt.ending is not None:
            attempt.write_off(attempt.ending)
        if not attempt.complete:
            return None
        attempt.sum_up()
        await attempt.journal.end()
        # Without the lease another may be asking.
        alone = loop.time() < attempt.lease.until
        lost = attempt.lost if alone else attempt.lost.plus(Lost(crashes=1))
        if attempt.gate.unkept:
            lost = lost.plus(attempt.cut_off())
        return await write_receipt(
            *(self._store, attempt.job, attempt.shard, attempt.lease.attempt, attempt.results),
            rows=attempt.rows,
            lost=lost,
            spent=None if attempt.purse is None else attempt.purse.spent,
        )

    async def _give_back(self, attempt: Attempt, asking: ShardCalls) -> None:
        """Tell how far the shard is, and let others have what of the cap was not spent."""
        if attempt.journal.behind:
            await attempt.keep()
        if attempt.journaled is not None:
            with contextlib.suppress(StorageError, Unavailable):
                await self._reports.progress(attempt.job, self._unended)
        if attempt.purse is not None:
            await attempt.purse.give_back()
            if {wait.reason for wait in asking.handed_back} == {"budget"}:
                await attempt.purse.pause()

    async def _open_purse(self, attempt: Attempt, left: Sequence[NumberedRow]) -> None:
        """Let an attempt of a capped job ask as much as the cap leaves room for."""
        gate = attempt.gate
        attempt.purse = purse = ShardPurse(
            *(attempt.job, attempt.shard, gate, attempt.journal, self._transitions),
            clock=self._clock,
        )
        loop = asyncio.get_running_loop()

        def charged() -> Mapping[str, Spend]:
            # Without the lease another may write on in what was read here.
            return attempt.charged if loop.time() < attempt.lease.until else {}

        await purse.open(attempt.lease.attempt, charged, [row for _, row in left])
        gate.purse = purse
        gate.among = attempt.job.askable

    async def _read(self, attempt: Attempt) -> None:
        rules = rules_of(attempt.job, self._settings.default_models)
        try:
            attempt.rows = await read_rows(
                self._store, attempt.job, attempt.planned, rules, self._dispatcher
            )
        except (BlobMissing, BlobChanged):

            def failed(state: JobState | None, repeated: bool) -> lifecycle.Change:
                return endings.end(state, "failed", CHANGED, repeated=repeated, now=self._clock())

            state = await self._transitions.take(attempt.job, failed)
            attempt.ending = (state.ending if state else None) or "failed"
            attempt.reason = CHANGED

    async def _ask(self, attempt: Attempt, left: Sequence[NumberedRow], asking: ShardCalls) -> None:
        suspicion = attempt.suspicion
        if not suspicion.suspect:
            await asking.all_at_once(left)
            return
        log.warning(
            "[SHARD_SUSPECT] shard %s of %s crashed %s workers in a row: "
            "its rows are asked in groups",
            attempt.shard,
            attempt.job.id,
            suspicion.crashes,
        )
        requests = dict(left)
        groups = (
            [(row, requests[row]) for row in group] for group in suspicion.groups(list(requests))
        )
        await asking.by_groups(groups, attempt.journal.begin, self._quarantine)

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
            self._weigh(attempt, state)
            await self._reports.progress(attempt.job, self._unended, state)
            waiting = self._dispatcher.waiting(attempt.job.id)
            if waiting is not None and self._clock() - waiting.since >= WORTH_TELLING_SECONDS:
                await self._reports.waiting(attempt.job, waiting)

    def _weigh(self, attempt: Attempt, seen: JobState) -> None:
        """Have all shards of a job that are asked here weigh alike, by what was seen last."""
        attempt.gate.urgency = urgency(attempt.job, seen, self._clock())
        for each in self._unended:
            if each.job.id == attempt.job.id:
                each.gate.urgency = attempt.gate.urgency

    async def _hand_back(self, attempt: Attempt, message: ShardMessage, asking: ShardCalls) -> None:
        """Put the rest of the shard back on the queue; what is done is journaled."""
        if attempt.gate.closed == "paused":
            return  # resuming sends every shard that is out
        # A row that needs no more than a turn must not wait for one that needs tomorrow's quota.
        waits = sorted(asking.handed_back, key=lambda wait: wait.delay)
        if waits and waits[-1].delay >= WORTH_TELLING_SECONDS:
            waiting = waiting_of(waits[-1], self._clock())
            if waiting is not None:
                await self._reports.waiting(attempt.job, waiting)
        await self._send_copy(message, waits[0].delay if waits else 0.0)

    async def _advance(
        self, job: Job, receipt: Receipt, received: Received, *, found: int, seats: int = 1
    ) -> None:
        def advanced(state: JobState | None, repeated: bool) -> lifecycle.Change:
            if state is None:
                return lifecycle.NOTHING
            now = self._clock()
            return lifecycle.advance(
                state, receipt, repeated=repeated, now=now, found=found, seats=seats
            )

        await self._transitions.take(job, advanced, repeated=received.repeated)

    async def _send_copy(
        self, message: ShardMessage, delay: float, *, repeated: bool = False
    ) -> None:
        gen, job = message.gen, None
        # Out of reach, the message's own will do: were it too old, the sweeper sends a newer one.
        with contextlib.suppress(Unavailable):
            job = await self._store.job(message.job)
            held = await self._store.state(message.job)
            gen = gen if held is None else held.state.gen
        delay = min(delay, LONGEST_DELAY_SECONDS)
        copy = message.model_copy(update={"gen": gen})
        trace = None if job is None else job.trace
        await self._outbox.send_shards([copy], delay=delay, repeated=repeated, trace=trace)

    @property
    def active(self) -> int:
        """Attempts that have no end yet."""
        return len(self._unended)

    async def drain(self) -> None:
        """Stop asking at once and journal what is there: the process is about to end."""
        self._draining = True
        for attempt in self._unended:
            attempt.stop()
        while self._unended:
            await next(iter(self._unended)).ended.wait()


def read_shard_message(body: bytes) -> ShardMessage:
    """A message on `shards`. Raises NewerVersion, and InputError for anything else."""
    try:
        return load(ShardMessage, body)
    except Unreadable:
        raise InputError("invalid_message", "not a shard message") from None
