"""One attempt at a shard: its lease, what it knows and has, what it keeps up while rows are asked,
and its end.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from math import inf
from random import Random
from typing import Any, Final, Self

from schemas.budgets import Spend
from schemas.jobs import Ending, Job, Reason
from schemas.plans import PlannedShard
from schemas.results import CallRecord, Lost, Receipt
from workers.dispatch.call import Gate
from workers.jobs.lifecycle import Progress
from workers.jobs.store import JobStore
from workers.ports import BlobRef, Blobs
from workers.ports.errors import (
    BlobMissing,
    Draining,
    LeaseHeld,
    LeaseLost,
    StorageError,
    Unavailable,
    WorkerError,
    first_of,
)
from workers.rows import reasons, unmetered, writing
from workers.rows.reading import Refusal, Request
from workers.rows.unmetered import Serving
from workers.rows.writing import RowResult
from workers.shards.input import Row
from workers.shards.journal import (
    Journal,
    attempt_name,
    chargeable,
    journal_line,
    next_ordinal,
    read_journals,
    spent_line,
)
from workers.shards.purse import ShardPurse
from workers.shards.spool import Spool
from workers.shards.suspicion import Suspicion

LEASE_SECONDS: Final = 30
# Calls are admitted until this long after the start of the last renewal that succeeded.
SAFE_SECONDS: Final = 28.0
RENEW_SECONDS: Final = 8.0
# Its message is kept for so long while its end cannot be written: nobody else is to take it for
# dead, and to ask again what it only has in memory.
END_SECONDS: Final = 600.0
CANCELLED_END_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


class Lease:
    """One attempt's hold on a shard. `until` is the loop's time up to which calls are admitted."""

    def __init__(self, blobs: Blobs, ref: BlobRef, attempt: str) -> None:
        self._blobs = blobs
        self._ref = ref
        self.attempt = attempt
        self.until = 0.0

    async def acquire(self) -> bool:
        """Take the lease; gives whether no other attempt holds it."""
        start = asyncio.get_running_loop().time()
        try:
            await self._blobs.acquire_lease(self._ref, self.attempt, LEASE_SECONDS)
        except LeaseHeld:
            return False
        self.until = start + SAFE_SECONDS
        return True

    async def keep(self, gate: Gate) -> None:
        """Renew the lease until it is lost; `gate` hears of each renewal.

        It is begun at once: what earlier attempts left may take longer to read than a lease lasts,
        and an attempt that begins without one leaves only more to read.
        """
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                held = await self.renew()
            # One that is refused or not answered is none: in time the gate lets nobody through.
            except WorkerError as error:
                log.debug("a lease could not be renewed: %s", error)
                continue
            except Exception:
                log.exception("[LEASE_BUG] a lease could not be renewed")
                continue
            if not held:
                gate.close("lease")
                return
            gate.prolong(self.until)

    async def renew(self) -> bool:
        """Prolong the lease; gives whether it is not lost."""
        start = asyncio.get_running_loop().time()
        try:
            await self._blobs.renew_lease(self._ref, self.attempt)
        except LeaseLost:
            return False
        self.until = start + SAFE_SECONDS
        return True

    async def release(self) -> None:
        """Give the lease back; it runs out by itself where that fails."""
        try:
            await self._blobs.release_lease(self._ref, self.attempt)
        except (StorageError, Unavailable) as error:
            log.debug("a lease could not be given back, and runs out by itself: %s", error)


class Attempt:
    """One attempt at a shard. As a context it keeps its lease, and has an end however it is left.

    `rows` is empty where the input is not what was planned; `spent` are the calls that were made in
    vain for rows that had to wait. `unended` holds the attempts of the process that have no end
    yet: one that cannot be written is owed, for as long as it takes.
    """

    planned: PlannedShard
    suspicion: Suspicion
    lost: Lost
    """By earlier attempts."""
    serving: Serving
    """What its calls may have asked, by the settings of this process."""

    def __init__(
        self,
        store: JobStore,
        job: Job,
        shard: int,
        lease: Lease,
        *,
        clock: Callable[[], float],
        rng: Random,
        unended: "dict[Attempt, None]",
    ) -> None:
        self.job = job
        self.shard = shard
        self.lease = lease
        self.gate = Gate(until=lease.until, deadline=inf)
        self.spent: dict[int, tuple[CallRecord, ...]] = {}
        self.results = Spool()
        self.ending: Ending | None = None
        self.reason: Reason | None = None
        self.rows: Sequence[Row] = ()
        self.journaled: Progress | None = None
        """What this attempt's journal and earlier ones hold; None before the first interval."""
        self.found = 0
        """Rows in the journals of earlier attempts."""
        self.capped = False
        self.charged: Mapping[str, Spend] = {}
        """The most that the calls of earlier attempts may have cost, where the job is capped."""
        self.purse: ShardPurse | None = None
        self.receipt: Receipt | None = None
        self.ended = asyncio.Event()
        self._durable_at: float | None = None
        self._given_up = 0
        self._store = store
        self._clock = clock
        self._rng = rng
        self._unended = unended
        self._journal: Journal | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    # -- its begin and its end

    async def __aenter__(self) -> Self:
        self._unended[self] = None
        self._keeping = asyncio.create_task(self.lease.keep(self.gate), name="lease of an attempt")
        return self

    async def __aexit__(self, _kind: object, error: object, _trace: object) -> None:
        """Write the end. A task of its own does it, so that no cancellation reaches it."""
        trail = self.gate.trail
        trail.counts = self.receipt.counts if self.receipt else None
        trail.end = "done" if self.receipt else self.gate.closed or "handed_back"
        self.results.close()
        self.sum_up()
        self._closing = asyncio.create_task(self._close(), name="end of an attempt")
        self._closing.add_done_callback(self._closed)
        cancelled = isinstance(error, asyncio.CancelledError)
        seconds = CANCELLED_END_SECONDS if cancelled else END_SECONDS
        await asyncio.wait([self._closing], timeout=seconds)

    async def begin(self) -> None:
        """Open the own journal and read what earlier attempts left."""
        folder = self._store.ref(self.job.id, "journal", str(self.shard), "")
        self.planned, earlier = await self._store.plan_and_journals(self.job.id, self.shard)
        name = attempt_name(next_ordinal(earlier), self.lease.attempt)
        self._journal = Journal(self._store.blobs, folder, name)
        await self._journal.open()
        past = await read_journals(self._store.blobs, earlier, self.results)
        self.gate.trail.found = len(self.results)
        self.found = len(self.results) - self.results.invalid
        self.suspicion, self.charged, self.lost = past.suspicion, past.charged, past.lost
        if past.suspicion.died:
            self.gate.trail.crashed = earlier[-1]
        self.spent.update(past.spent)

    def sum_up(self) -> None:
        """Have the journal say, before its end mark, what was spent and what was cut off."""
        if self.purse is not None:
            self.purse.close()
        if self.gate.unkept:
            self.journal.lost(self.cut_off())

    @property
    def journal(self) -> Journal:
        """The own journal of an attempt that has begun."""
        if self._journal is None:
            raise RuntimeError("the attempt has not begun")
        return self._journal

    async def _close(self) -> None:
        """Write the end mark, and keep the lease until it stands."""
        try:
            await self._write_end()
        finally:
            if self._journal is not None:
                self._journal.drop()
            if self._keeping is not None:
                self._keeping.cancel()
                await asyncio.wait([self._keeping])
        await self.lease.release()

    async def _write_end(self) -> None:
        while self._journal is not None:
            try:
                await self._journal.end()
            except BlobMissing:
                log.warning(
                    "[JOURNAL_GONE] the journal of shard %s of %s is gone", self.shard, self.job.id
                )
                return
            except WorkerError as error:
                log.debug("shard %s of %s owes its end: %s", self.shard, self.job.id, error)
            except Exception:
                log.exception("[END_BUG] shard %s of %s owes its end", self.shard, self.job.id)
            else:
                return
            await asyncio.sleep(self._rng.uniform(1.0, 3.0))

    def _closed(self, closing: asyncio.Task[None]) -> None:
        self._unended.pop(self, None)
        self.ended.set()
        error = None if closing.cancelled() else closing.exception()
        if isinstance(error, Exception):
            log.error("[ATTEMPT_BUG] an attempt could not be ended", exc_info=error)

    # -- its rows

    @property
    def complete(self) -> bool:
        """Whether every row has its result."""
        return len(self.results) == self.planned.rows

    def collect(self, result: RowResult) -> None:
        """Keep the result of a row; the next journal interval makes it durable."""
        ended = result._replace(at=round(self._clock(), 1))
        if self.results.add(ended):
            self.journal.add(*journal_line(ended))
            # What earlier attempts spent on it is theirs.
            self.gate.unkept -= chargeable(*ended.use) - chargeable(*self.spent.get(ended.row, ()))

    def spend(self, row: int, attempts: tuple[CallRecord, ...]) -> None:
        """Keep the calls that were made for a row that has to wait; its line will tell of them."""
        self.spent[row] = (*self.spent.get(row, ()), *attempts)
        self.journal.add(spent_line(row, attempts))
        self.gate.unkept -= chargeable(*attempts)

    def cut_off(self) -> Lost:
        """Its own calls that may have been billed, and of which no line tells."""
        return unmetered.cut_off(self.gate.unkept, self.rows, self.job.prices, self.serving)

    def left(self) -> list[tuple[int, Request]]:
        """The rows that are still to be asked."""
        return [
            (row, read)
            for row, read in enumerate(self.rows)
            if isinstance(read, Request) and row not in self.results
        ]

    def settle_unaskable(self) -> None:
        """Give their results to rows that cannot be asked, or are given up.

        They are not journaled: the next attempt finds the same, and none of them was answered.
        """
        for row, read in enumerate(self.rows):
            if isinstance(read, Refusal):
                self.results.add(writing.refused(self.job.id, row, read))
            elif row in self.suspicion.given_up:
                self.results.add(self._not_done(row, "failed", reasons.CRASHED))
                self._given_up += 1

    def write_off(self, ending: Ending) -> None:
        """Give every row that was not answered the ending's reason."""
        reason = self.reason or reasons.default_reason(ending)
        for row in range(self.planned.rows):
            if row not in self.results:
                unasked = ending == "failed" and not self.spent.get(row)
                self.results.add(self._not_done(row, "invalid" if unasked else ending, reason))

    def _not_done(self, row: int, kind: writing.ResultKind, reason: Reason) -> RowResult:
        read = self.rows[row] if row < len(self.rows) else None
        line = read.line if read else None
        if line is None and not self.planned.gaps:
            line = self.planned.line + row
        return writing.not_done(
            self.job.id,
            row,
            line,
            read if isinstance(read, Request) else None,
            first_line=self.planned.line,
            kind=kind,
            reason=reason,
            attempts=self.spent.get(row, ()),
        )

    # -- while they are asked

    async def ask(
        self,
        asking: Coroutine[Any, Any, None],
        *,
        interval: float,
        watch: Callable[["Attempt"], Awaitable[None]],
    ) -> None:
        """Run `asking` to its end, and journal each `interval`. Raises Draining when stopped."""
        try:
            async with asyncio.TaskGroup() as group:
                attendant = group.create_task(self._attend(group, interval, watch))
                self._asking = group.create_task(asking)
                await asyncio.wait([self._asking])
                attendant.cancel()
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors
        if self._asking.cancelled():
            raise Draining

    async def keep(self, out: Callable[[], None] | None = None) -> None:
        """Journal now; `out` is called when what there is to write is in memory no more.

        Trouble with storage is no reason to stop asking: it is written later.
        """
        if out is not None:
            self.journal.when_out(partial(self.results.when_written, out))
        with contextlib.suppress(StorageError, Unavailable):
            progress = self._progress()
            began = asyncio.get_running_loop().time()
            await self.journal.flush()
            self.journaled = progress
            ended = asyncio.get_running_loop().time()
            self.gate.trail.journaled(ended - began, ended - (self._durable_at or began))
            self._durable_at = ended

    def _progress(self) -> Progress:
        answered = len(self.results) - self.results.invalid - self._given_up
        return Progress(answered, self.found, *self.results.metered(self.job.prices, self.spent))

    async def _attend(
        self,
        group: asyncio.TaskGroup,
        interval: float,
        watch: Callable[["Attempt"], Awaitable[None]],
    ) -> None:
        # A group of its own would hold the attempt after its end: one that is cancelled is a circle
        # of its task and that task's error.
        watching: asyncio.Task[None] | None = None
        try:
            while True:
                await asyncio.sleep(interval)
                await self.keep()
                # The journal does not wait for it: a status that is slow to read is no reason to
                # lose more in a crash.
                if watching is None or watching.done():
                    watching = group.create_task(self._watch(watch))
        finally:
            if watching is not None:
                watching.cancel()

    async def _watch(self, watch: Callable[["Attempt"], Awaitable[None]]) -> None:
        with contextlib.suppress(StorageError, Unavailable):
            await watch(self)

    def stop(self) -> None:
        """Stop the asking, because the process is about to end."""
        if self._asking is not None:
            self._asking.cancel()
