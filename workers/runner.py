"""Runs one shard: claims it, asks what is left, keeps a journal, writes its receipt."""

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast, get_args

from schemas.jobs import Ending, Job, JobState, PlannedShard, Reason, Waiting
from schemas.messages import ShardMessage
from schemas.results import Part, Receipt, WaitReason
from workers.asking import Asked, Asking, Dispatch
from workers.core import lifecycle, lines
from workers.core.lines import RowResult
from workers.core.packing import Limits
from workers.core.planning import MAX_BYTES
from workers.core.rows import RAW_BYTES, Refusal, Request, read_row, split_lines
from workers.dispatcher import Gate
from workers.errors import BlobChanged, BlobMissing, Draining, HandBack, Unavailable, first_of
from workers.intake import Routes, rules_of
from workers.journal import Journal, Past, attempt_name, read_journals
from workers.lease import RENEW_SECONDS, Lease
from workers.ports import BlobRef
from workers.records import Records
from workers.settings import Settings
from workers.spool import Spool
from workers.steps import Steps

HELD_RETRY_SECONDS: Final = 20.0
OUTAGE_RETRY_SECONDS: Final = 30.0
LONGEST_DELAY_SECONDS: Final = 3600.0
WORTH_TELLING_SECONDS: Final = 10.0
PACK_LIMITS: Final = Limits()

log = logging.getLogger(__name__)


class Dispatcher(Dispatch, Routes, Protocol):
    """What a runner asks of the dispatcher."""

    def waiting(self, job: str) -> Waiting | None:
        """What a job's calls wait for now."""


@dataclass(slots=True)
class Attempt:
    """One try at a shard: what it knows and what it has."""

    job: Job
    planned: PlannedShard
    gate: Gate
    lease: Lease
    journal: Journal
    past: Past
    results: Spool
    pending: list[RowResult] = field(default_factory=list)
    ending: Ending | None = None
    reason: Reason | None = None

    def collect(self, result: RowResult) -> None:
        """A row is done; the next journal interval makes it durable."""
        if result.row not in self.results:
            self.results.add(result)
            self.pending.append(result)


class Runner:
    """Runs shards. One instance a process; `run` may be called at the same time for several."""

    def __init__(
        self,
        records: Records,
        steps: Steps,
        dispatcher: Dispatcher,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        settings: Settings,
    ) -> None:
        self._records = records
        self._blobs = records.blobs
        self._steps = steps
        self._dispatcher = dispatcher
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._asking: set[asyncio.Task[None]] = set()
        self._holding = 0
        self._idle = asyncio.Event()
        self._draining = False

    # -- one message

    async def run(self, message: ShardMessage, *, again: bool) -> None:
        """Bring a shard as far as it goes now. Safe at any time, for any message, any number of
        times. Raises Draining when the process is to stop.
        """
        if self._draining:
            raise Draining
        try:
            await self._run(message, again)
        except Unavailable as error:
            # Without a delay the queue would hand the shard out again at once, until it is dead.
            log.warning("shard %s of %s waits: %s", message.shard, message.job, error)
            await self._send_copy(message, OUTAGE_RETRY_SECONDS)

    async def _run(self, message: ShardMessage, again: bool) -> None:
        job = await self._records.job(message.job)
        if job is None:
            return  # announced again by the sweeper, if there is anything to it
        receipt = await self._records.receipt(job.id, message.shard)
        if receipt is not None:
            await self._advance(job, receipt, again)
            return
        held = await self._records.state(job.id)
        if held is None:
            return
        if held.state.terminal:
            await self._steps.tell_end(job, held.state)
            return
        if not lifecycle.runs(held.state, message.gen):
            return
        name = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        lease = Lease(self._blobs, await self._records.lease_blob(job.id, message.shard), name)
        if not await lease.acquire():
            await self._send_copy(message, HELD_RETRY_SECONDS)
            return
        results = Spool()
        self._holding += 1
        self._idle.clear()
        try:
            attempt = await self._begin(job, message, held.state, lease, results)
            receipt = await self._finish(attempt, message)
            if receipt is not None:
                await self._advance(job, receipt, again)
        finally:
            results.close()
            await lease.release()
            self._holding -= 1
            if not self._holding:
                self._idle.set()

    async def _begin(
        self, job: Job, message: ShardMessage, state: JobState, lease: Lease, results: Spool
    ) -> Attempt:
        """Open the own journal and read what earlier attempts left."""
        earlier = await self._records.journals(job.id, message.shard)
        folder = self._records.ref(job.id, "journal", str(message.shard), "")
        journal = Journal(self._blobs, folder, attempt_name(len(earlier), lease.attempt))
        await journal.open()
        deadline = asyncio.get_running_loop().time() + self._settings.shard_seconds
        return Attempt(
            job=job,
            planned=await self._records.planned(job.id, message.shard),
            gate=Gate(until=lease.until, deadline=deadline),
            lease=lease,
            journal=journal,
            past=await read_journals(self._blobs, earlier, results),
            results=results,
            ending=state.ending,
            reason=state.reason,
        )

    async def _finish(self, attempt: Attempt, message: ShardMessage) -> Receipt | None:
        """Ask what is left; gives the receipt, or None where the rest had to go back."""
        rows = await self._rows(attempt)
        asking = await self._ask_what_is_left(attempt, rows)
        if attempt.ending is not None:
            self._write_off(attempt, rows)
        if len(attempt.results) < attempt.planned.rows:
            await self._hand_back(attempt, message, asking)
            return None
        await self._flush(attempt, end=True)
        return await self._records.create_receipt(attempt.job.id, await self._write(attempt))

    async def _advance(self, job: Job, receipt: Receipt, again: bool) -> None:
        def advanced(state: JobState | None, repeated: bool) -> lifecycle.Change:
            if state is None:
                return lifecycle.NOTHING
            return lifecycle.advance(state, receipt, again=repeated, now=self._clock())

        await self._steps.take(job, advanced, again=again)

    # -- reading

    async def _rows(self, attempt: Attempt) -> list[Request | Refusal]:
        """The shard's rows; none where the input is not what was planned any more."""
        job, planned = attempt.job, attempt.planned
        ref = BlobRef(job.container, job.name)
        # An over-long line stands alone in its shard, and only its beginning is ever read.
        most = max(MAX_BYTES, job.max_line_bytes + 1, RAW_BYTES)
        try:
            data = await self._blobs.read_range(
                ref, planned.offset, min(planned.length, most), etag=job.etag
            )
        except (BlobMissing, BlobChanged):
            await self._fail_for_changed_input(attempt)
            return []
        duplicates = await self._records.duplicates(job.id, planned)
        rules = rules_of(job, self._settings)
        rows = [read_row(number, line, rules) for number, line in split_lines(data, planned.line)]
        return [self._vetted(row, duplicates) for row in rows]

    def _vetted(self, row: Request | Refusal, duplicates: frozenset[int]) -> Request | Refusal:
        if isinstance(row, Refusal):
            return row
        if row.line in duplicates:
            return _refusal(row, "duplicate_custom_id", lines.DUPLICATE)
        if row.model is None:
            message = "the row names no model, nor does the job: set the option model"
            return _refusal(row, "no_model", message)
        cannot = self._dispatcher.cannot(row.task, row.model)
        return row if cannot is None else _refusal(row, "unknown_model", cannot)

    async def _fail_for_changed_input(self, attempt: Attempt) -> None:
        reason = Reason(
            code="input_changed",
            message="the file was overwritten or deleted while it ran: drop it again",
        )

        def failed(state: JobState | None, repeated: bool) -> lifecycle.Change:
            return lifecycle.end(state, "failed", reason, again=repeated)

        state = await self._steps.take(attempt.job, failed)
        attempt.ending = (state.ending if state else None) or "failed"
        attempt.reason = reason

    # -- asking

    async def _ask_what_is_left(
        self, attempt: Attempt, rows: Sequence[Request | Refusal]
    ) -> Asking:
        job = attempt.job
        for row, read in enumerate(rows):
            if isinstance(read, Refusal):
                attempt.collect(lines.refused(job.id, row, read))
        self._give_up(attempt, rows)
        left: list[Asked] = [
            (row, read)
            for row, read in enumerate(rows)
            if isinstance(read, Request) and row not in attempt.results
        ]
        asking = Asking(
            job, self._dispatcher, attempt.gate, attempt.collect, pack_limits=PACK_LIMITS
        )
        if left and attempt.ending is None:
            await self._attended(attempt, self._asked(attempt, asking, left))
        return asking

    def _give_up(self, attempt: Attempt, rows: Sequence[Request | Refusal]) -> None:
        for row in attempt.past.given_up:
            read = rows[row] if row < len(rows) else None
            if isinstance(read, Request):
                attempt.collect(
                    lines.not_done(
                        attempt.job.id, row, read.line, read, kind="failed", reason=lines.CRASHED
                    )
                )

    async def _asked(self, attempt: Attempt, asking: Asking, left: Sequence[Asked]) -> None:
        if not attempt.past.suspect:
            await asking.all_at_once(left)
            return
        log.warning(
            "shard %s of %s crashed %s workers: its rows are asked one by one",
            attempt.planned.shard,
            attempt.job.id,
            attempt.past.crashes,
        )
        await asking.one_by_one(left, attempt.journal.begin, lambda: self._flush(attempt))

    async def _attended(self, attempt: Attempt, asked: Coroutine[Any, Any, None]) -> None:
        """Ask, while the lease is kept, the journal written and the job's state watched."""
        try:
            async with asyncio.TaskGroup() as group:
                attendants = [
                    group.create_task(self._keep_lease(attempt)),
                    group.create_task(self._keep_journal(attempt)),
                ]
                work = group.create_task(asked)
                self._asking.add(work)
                work.add_done_callback(self._asking.discard)
                await asyncio.wait([work])
                for attendant in attendants:
                    attendant.cancel()
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors
        if work.cancelled():
            await self._flush(attempt, end=True)
            raise Draining

    async def _keep_lease(self, attempt: Attempt) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if not await attempt.lease.renew():
                attempt.gate.close("lease")
                return
            attempt.gate.until = attempt.lease.until

    async def _keep_journal(self, attempt: Attempt) -> None:
        while True:
            await asyncio.sleep(self._settings.journal_seconds)
            # A storage outage is no reason to stop asking: what is pending is written later.
            with contextlib.suppress(Unavailable):
                if not attempt.past.suspect:
                    await self._flush(attempt)
                await self._watch(attempt)

    async def _watch(self, attempt: Attempt) -> None:
        """Stop asking when the job is ending, paused or over; tell what it waits for."""
        held = await self._records.state(attempt.job.id)
        if held is None or attempt.gate.closed is not None:
            return
        state = held.state
        if state.ending is not None or state.state != "in_progress":
            attempt.ending, attempt.reason = state.ending, state.reason
            attempt.gate.close("ending")
        elif state.paused:
            attempt.gate.close("paused")
        else:
            waiting = self._dispatcher.waiting(attempt.job.id)
            if waiting is not None and self._clock() - waiting.since >= WORTH_TELLING_SECONDS:
                await self._tell_waiting(attempt.job, waiting)

    async def _tell_waiting(self, job: Job, waiting: Waiting) -> None:
        def waits(state: JobState | None, _again: bool) -> lifecycle.Change:
            return lifecycle.NOTHING if state is None else lifecycle.wait(state, waiting)

        await self._steps.take(job, waits)

    # -- leaving

    async def _flush(self, attempt: Attempt, *, end: bool = False) -> None:
        pending, attempt.pending = attempt.pending, []
        try:
            await attempt.journal.write(pending)
            if end:
                await attempt.journal.end()
        except BaseException:
            attempt.pending = pending + attempt.pending
            raise

    async def _hand_back(self, attempt: Attempt, message: ShardMessage, asking: Asking) -> None:
        """Keep what is done and put the rest of the shard back on the queue."""
        await self._flush(attempt, end=True)
        if attempt.gate.closed == "paused":
            return  # resuming sends every shard that is out
        # A row that needs no more than a turn must not wait for one that needs tomorrow's quota.
        waits = sorted(asking.handed_back, key=lambda wait: wait.delay)
        if waits and waits[-1].delay >= WORTH_TELLING_SECONDS:
            now, longest = self._clock(), waits[-1]
            waiting = _waiting(longest, now)
            if waiting is not None:
                await self._tell_waiting(attempt.job, waiting)
        await self._send_copy(message, waits[0].delay if waits else 0.0)

    async def _send_copy(self, message: ShardMessage, delay: float) -> None:
        gen = message.gen
        # Out of reach, the message's own will do: were it too old, the sweeper sends a newer one.
        with contextlib.suppress(Unavailable):
            held = await self._records.state(message.job)
            gen = gen if held is None else held.state.gen
        at = self._clock() + min(delay, LONGEST_DELAY_SECONDS) if delay > 0 else None
        await self._steps.send_shards(message.job, [message.shard], gen, at=at)

    def _write_off(self, attempt: Attempt, rows: Sequence[Request | Refusal]) -> None:
        """Give every row that was not answered the ending's reason."""
        ending = attempt.ending or "failed"
        reason = attempt.reason or lines.default_reason(ending)
        for row in range(attempt.planned.rows):
            if row in attempt.results:
                continue
            read = rows[row] if row < len(rows) else None
            line = read.line if read else None
            if line is None and not attempt.planned.gaps:
                line = attempt.planned.line + row
            request = read if isinstance(read, Request) else None
            result = lines.not_done(attempt.job.id, row, line, request, kind=ending, reason=reason)
            attempt.results.add(result)

    async def _write(self, attempt: Attempt) -> Receipt:
        """Write output and errors, in input order; gives the receipt that names them."""
        results = list(attempt.results.results())
        sums = lines.sums_of(results)
        good = [result.row for result in results if result.kind == "succeeded"]
        bad = [result.row for result in results if result.kind != "succeeded"]
        return Receipt(
            shard=attempt.planned.shard,
            attempt=attempt.lease.attempt,
            counts=sums.counts,
            tokens=sums.tokens,
            output=await self._write_part(attempt, "output", good),
            errors=await self._write_part(attempt, "errors", bad),
            use=sums.use,
        )

    async def _write_part(self, attempt: Attempt, kind: str, rows: Sequence[int]) -> Part | None:
        if not rows:
            return None
        name = f"{attempt.planned.shard}.{attempt.lease.attempt}"
        ref = self._records.ref(attempt.job.id, kind, name)
        data, length, digest = attempt.results.part(rows)
        with data:
            await self._records.create_once(ref, data, content_type="application/jsonl")
        return Part(name=ref.name, length=length, rows=len(rows), sha256=digest)

    async def drain(self) -> None:
        """Stop asking at once and journal what is there: the process is about to end."""
        self._draining = True
        for task in tuple(self._asking):
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
        since=now,
        until=now + wait.delay,
    )


def _refusal(request: Request, code: str, message: str) -> Refusal:
    return Refusal(
        request.line,
        request.custom_id,
        code,
        f"line {request.line}: {message}",
        request=request.as_batch_row(),
    )
