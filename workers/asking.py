"""Asks the rows of one shard: alone or packed, all at once or, in suspect mode, one by one."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from schemas.jobs import Job
from schemas.outcomes import Outcome
from schemas.results import Attempt
from workers.core import lines
from workers.core.lines import RowResult
from workers.core.packing import Limits, Pack, blames_a_row, pack, unpack
from workers.core.packing import Request as Packable
from workers.core.rows import Request
from workers.dispatcher import Answer, Call, Gate
from workers.errors import HandBack

WEIGHT_OF_PRIORITY = {"high": 4.0, "normal": 1.0, "low": 0.1}

Asked = tuple[int, Request]
Attempts = tuple[Attempt, ...]
Collect = Callable[[RowResult], None]


class Dispatch(Protocol):
    """What asking needs of the dispatcher."""

    async def ask(self, call: Call, *, job: str, weight: float, gate: Gate) -> Answer:
        """One call, when its turn comes. Raises HandBack where that is not in time."""


class Asking:
    """Asks rows and collects their results; rows that have to wait are left out.

    `handed_back` holds why, for each call that could not be made in time.
    """

    def __init__(
        self,
        job: Job,
        dispatch: Dispatch,
        gate: Gate,
        collect: Collect,
        *,
        pack_limits: Limits,
    ) -> None:
        self._job = job
        self._dispatch = dispatch
        self._gate = gate
        self._collect = collect
        self._limits = pack_limits
        self._weight = WEIGHT_OF_PRIORITY[job.priority]
        self.handed_back: list[HandBack] = []

    async def all_at_once(self, rows: Sequence[Asked]) -> None:
        """Ask all rows; the dispatcher bounds what is in flight."""
        by_row = dict(rows)
        async with asyncio.TaskGroup() as group:
            for row, request in rows:
                if request.task not in ("embeddings", "image-embeddings"):
                    group.create_task(self._alone(row, request))
            for task in ("embeddings", "image-embeddings"):
                packable = [
                    Packable(row, request.model or "", request.body)
                    for row, request in rows
                    if request.task == task
                ]
                for packed in pack(packable, self._limits):
                    group.create_task(self._packed(packed, by_row))

    async def one_by_one(
        self,
        rows: Sequence[Asked],
        begin: Callable[[int], Awaitable[None]],
        done: Callable[[], Awaitable[None]],
    ) -> None:
        """Ask a row at a time, each marked as begun before, so that a crash names its row."""
        for row, request in rows:
            if self._gate.closed is not None or self.handed_back:
                return
            await begin(row)
            await self._alone(row, request)
            await done()

    async def _alone(self, row: int, request: Request, spent: Attempts = ()) -> None:
        answer = await self._ask(Call(request.task, request.model or "", request.body))
        if answer is not None:
            use = (*spent, *answer.attempts)
            self._answered(row, request, answer.outcome, answer.attempts, use)

    async def _packed(
        self, packed: Pack, by_row: Mapping[int, Request], spent: Attempts = ()
    ) -> None:
        """One call for several rows; `spent` are calls that were refused on the way to it."""
        rows = [request.row for request in packed.requests]
        first = by_row[rows[0]]
        if len(rows) == 1:
            await self._alone(rows[0], first, spent)
            return
        answer = await self._ask(Call(first.task, packed.model, packed.body, rows=len(rows)))
        if answer is None:
            return
        spent = (*spent, *answer.attempts)
        outcomes = _outcomes(packed, answer.outcome)
        if outcomes is None:
            for half in packed.halve():
                await self._packed(half, by_row, spent)
                spent = ()
            return
        for row in rows:
            self._answered(row, by_row[row], outcomes[row], answer.attempts, spent)
            spent = ()

    def _answered(
        self, row: int, request: Request, outcome: Outcome, attempts: Attempts, use: Attempts
    ) -> None:
        self._collect(
            lines.answered(self._job.id, row, request, outcome, attempts=attempts, use=use)
        )

    async def _ask(self, call: Call) -> Answer | None:
        try:
            return await self._dispatch.ask(
                call, job=self._job.id, weight=self._weight, gate=self._gate
            )
        except HandBack as wait:
            self.handed_back.append(wait)
            return None


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
