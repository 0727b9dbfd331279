"""Asks the rows of one shard: alone or packed, all at once or, in suspect mode, group by group."""

import asyncio
import dataclasses
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from typing import Any, Protocol, get_args

from schemas.deployments import Task
from schemas.jobs import Job, Waiting
from schemas.outcomes import Outcome
from schemas.results import CallRecord, WaitReason
from workers.dispatch.call import Answer, Call, Gate, HandBack
from workers.rows import writing
from workers.rows.packing import PACKED, Limits, Pack, Packable, blames_a_row, pack, unpack
from workers.rows.reading import Request
from workers.rows.sizes import USUAL_TOKENS, answer_bytes
from workers.rows.writing import RowResult
from workers.shards.quarantine import Quarantine

WEIGHT_OF_PRIORITY = {"high": 4.0, "normal": 1.0, "low": 0.1}

# A shard's calls that wait or are in flight: with 16 shards of a job out, two thousand.
AT_ONCE = 128

LARGE_BYTES = 1024 * 1024
# Words that are parsed, and once more a line and in the journal, take four times their own bytes.
# Log probabilities take more, but few answers have all the tokens that they may, and a call has its
# room from before it is asked: by max_tokens two would be on their way where eleven can be.
ROOM_BYTES = 24 * 1024 * 1024

NumberedRow = tuple[int, Request]
CallRecords = tuple[CallRecord, ...]
Collect = Callable[[RowResult], None]


class Dispatch(Protocol):
    """What asking needs of the dispatcher."""

    async def ask(self, call: Call, *, job: str, weight: float, gate: Gate) -> Answer:
        """Make a call when its turn comes. Raises HandBack where that is not in time."""

    def pack_limits(self, task: Task, model: str) -> Limits:
        """What a packed call may hold."""


class Room:
    """Room for the large answers that are on their way to a process, in the order of asking.

    An answer that is larger than the room goes alone. Answers of less than 1 MiB need none: their
    number is bounded.
    """

    def __init__(self, size: int = ROOM_BYTES) -> None:
        self._size = size
        self._held = 0
        self._first = asyncio.Lock()
        self._freed = asyncio.Event()

    async def take(self, size: int) -> None:
        """Wait for room for an answer of `size` bytes."""
        async with self._first:
            while self._held and self._held + size > self._size:
                self._freed.clear()
                await self._freed.wait()
            self._held += size

    def leave(self, size: int) -> None:
        """Give back the room of an answer that is not in memory any more."""
        self._held -= size
        self._freed.set()


class ShardCalls:
    """Asks rows and collects their results; rows that have to wait are left out.

    `spend` is told of the calls that were made in vain for a row that has to wait, and `spent` has
    those of earlier attempts. `handed_back` holds why, for each call that was not made in time.
    Large answers need `room`. `keep` is to journal them, and calls what it is given once they are
    in memory no more: then they leave the room.
    """

    def __init__(
        self,
        job: Job,
        dispatch: Dispatch,
        gate: Gate,
        collect: Collect,
        *,
        spend: Callable[[int, CallRecords], None],
        spent: Mapping[int, CallRecords],
        room: Room,
        keep: Callable[[Callable[[], None]], Awaitable[None]],
    ) -> None:
        self._job = job
        self._dispatch = dispatch
        self._gate = gate
        self._collect = collect
        self._spend = spend
        self._spent = spent
        self._room = room
        self._keep = keep
        self._weight = WEIGHT_OF_PRIORITY[job.priority]
        self.handed_back: list[HandBack] = []

    async def all_at_once(self, rows: Sequence[NumberedRow]) -> None:
        """Ask all rows, of which AT_ONCE wait or are in flight at a time."""
        room = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for call in self._calls(rows):
                await room.acquire()
                group.create_task(call()).add_done_callback(lambda _: room.release())

    def _calls(
        self, rows: Sequence[NumberedRow]
    ) -> Iterator[Callable[[], Coroutine[Any, Any, None]]]:
        """What begins each call: a drain may come while the next one waits for room."""
        by_row = dict(rows)
        for row, request in rows:
            if request.task not in PACKED:
                size = answer_bytes(request.task, request.body, listed=USUAL_TOKENS)
                yield partial(self._with_room, size, partial(self._alone, row, request))
        for (task, model), packable in _packable(rows).items():
            for packed in pack(packable, self._dispatch.pack_limits(task, model)):
                size = answer_bytes(task, packed.body)
                yield partial(self._with_room, size, partial(self._packed, packed, by_row))

    async def _with_room(self, size: int, ask: Callable[[], Awaitable[None]]) -> None:
        if size < LARGE_BYTES:
            await ask()
            return
        try:
            # Where storage is away for long, what has the room keeps it.
            async with asyncio.timeout_at(self._gate.deadline):
                await self._room.take(size)
        except TimeoutError:
            self.handed_back.append(HandBack("room", 0.0))
            return
        leave = partial(self._room.leave, size)
        try:
            await ask()
        except BaseException:
            leave()
            raise
        await self._keep(leave)

    async def by_groups(
        self,
        groups: Iterable[Sequence[NumberedRow]],
        begin: Callable[[Sequence[int]], Awaitable[None]],
        quarantine: Quarantine,
    ) -> None:
        """Ask a group at a time, marked as begun before, so that a crash names its rows."""

        async def ask(group: Sequence[NumberedRow]) -> None:
            now = asyncio.get_running_loop().time()
            if self._gate.closed is None and now < self._gate.deadline:
                await begin([row for row, _ in group])
                await self.all_at_once(group)

        for group in groups:
            await quarantine.ask(len(group), partial(ask, group))

    async def _alone(self, row: int, request: Request, wasted: CallRecords = ()) -> None:
        """Ask one row; `wasted` are packed calls that were refused on the way to it."""
        earlier = self._spent.get(row, ())
        call = Call(
            request.task, request.model or "", request.body, line=request.line, earlier=earlier
        )
        answer = await self._ask(call, row, wasted)
        if answer is not None:
            attempts = (*earlier, *answer.attempts)
            self._answered(row, request, answer.outcome, attempts, (*wasted, *attempts))

    async def _packed(
        self, packed: Pack, by_row: Mapping[int, Request], wasted: CallRecords = ()
    ) -> None:
        rows = [request.row for request in packed.requests]
        first = by_row[rows[0]]
        if len(rows) == 1:
            await self._alone(rows[0], first, wasted)
            return
        call = Call(
            first.task,
            packed.model,
            packed.body,
            rows=len(rows),
        )
        answer = await self._ask(call, rows[0], wasted)
        if answer is None:
            return
        wasted = (*wasted, *answer.attempts)
        outcomes = _outcomes(packed, answer.outcome)
        if outcomes is None:
            # At the same time: an answer to one half tells that the other's failure is its own.
            async with asyncio.TaskGroup() as group:
                for half in packed.halve():
                    group.create_task(self._packed(half, by_row, wasted))
                    wasted = ()
            return
        for row in rows:
            earlier = self._spent.get(row, ())
            attempts = (*earlier, *answer.attempts)
            self._answered(row, by_row[row], outcomes[row], attempts, (*wasted, *earlier))
            wasted = ()  # a packed call counts with one of its rows

    def _answered(
        self, row: int, request: Request, outcome: Outcome, attempts: CallRecords, use: CallRecords
    ) -> None:
        self._collect(
            writing.answered(self._job.id, row, request, outcome, attempts=attempts, use=use)
        )

    async def _ask(self, call: Call, row: int, wasted: CallRecords) -> Answer | None:
        try:
            return await self._dispatch.ask(
                call, job=self._job.id, weight=self._weight * self._gate.urgency, gate=self._gate
            )
        except HandBack as wait:
            # Its traceback would hold the call, and whoever keeps the error.
            self.handed_back.append(wait.with_traceback(None))
            # What failed for several rows is held against none of them.
            made = wait.attempts if call.rows == 1 else _uncounted(wait.attempts)
            if vain := (*_uncounted(wasted), *made):
                self._spend(row, vain)
            return None


def _uncounted(attempts: CallRecords) -> CallRecords:
    return tuple(dataclasses.replace(attempt, counted=False) for attempt in attempts)


def _packable(rows: Sequence[NumberedRow]) -> Mapping[tuple[Task, str], Sequence[Packable]]:
    """The rows that may share calls, by task and model."""
    found: dict[tuple[Task, str], list[Packable]] = {}
    for row, request in rows:
        if request.task in PACKED:
            model = request.model or ""
            found.setdefault((request.task, model), []).append(Packable(row, model, request.body))
    return found


def _outcomes(packed: Pack, outcome: Outcome) -> dict[int, Outcome] | None:
    """Each row's own outcome of a packed call; None where the rows have to be asked apart."""
    if blames_a_row(packed, outcome):
        return None
    if outcome.kind != "ok":
        return {request.row: outcome for request in packed.requests}
    try:
        shares = unpack(packed, outcome.body or {}, outcome.usage)
    except ValueError:
        return None  # better asked apart than given another row's vector
    return {
        share.row: dataclasses.replace(outcome, body=share.body, usage=share.usage)
        for share in shares
    }


def waiting_of(wait: HandBack, now: float) -> Waiting | None:
    """What a job is to be told of a wait; None for a reason that is the worker's own."""
    if wait.reason not in (*get_args(WaitReason), "budget"):
        return None
    return Waiting(
        reason=wait.reason,
        deployment=wait.deployment,
        message=wait.said,
        since=now,
        until=now + wait.delay,
    )
