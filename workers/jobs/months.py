"""What a tenant's jobs of one month may cost together: each reserves its most before it asks."""

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import Final

from schemas.budgets import MonthBudget
from schemas.jobs import Job, JobState, Reason, Waiting
from schemas.listing import Done, month_of
from schemas.money import MILLION, micros
from workers.jobs import budget
from workers.jobs.store import JobStore
from workers.ports import BlobRef
from workers.ports.errors import NewerVersion, Unavailable, Unreadable
from workers.ports.together import all_of

_PATIENCE: Final = 12
_AT_ONCE: Final = 16

log = logging.getLogger(__name__)


async def read_month(store: JobStore, tenant: str, month: str) -> MonthBudget:
    """What a tenant's jobs of a month (2026-11, in UTC) have spent and reserved of its cap.

    Raises NewerVersion, and Unreadable where it is damaged; errors are those of storage besides.
    """
    held = await store.find(MonthBudget, _ref(store, tenant, month))
    return MonthBudget() if held is None else held


class MonthlyBudgets:
    """The documents `budgets/{tenant}/{month}`, changed by compare-and-swap. A job's month is that
    of its creation. Errors are those of storage, but for a document that cannot be read.

    A job that has ended is given no part any more, so that what is reserved for it was never
    settled: whoever returns it, however late, counts what it spent once.
    """

    def __init__(self, store: JobStore, *, rng: random.Random) -> None:
        self._store = store
        self._rng = rng

    async def reserve(
        self, job: Job, cost: int, cap: float | None, now: float
    ) -> Reason | Waiting | None:
        """Reserve what a job may cost, once; what becomes of it where there is no room for that.

        `cap` is what the tenant's jobs of a month may cost, or None where that is not limited.
        """
        most = budget.picos(cap)
        try:
            month = await self._reserve(job, cost, most)
            if job.id in month.reserved:
                return None
            if await self._return_ended(job, month, month.taken + cost - most):
                month = await self._reserve(job, cost, most)
        except Unreadable:
            message = f"{self._unread(job)}: the job begins when it can be, and has room for it"
            return Waiting(reason="budget", message=message, since=now)
        return None if job.id in month.reserved else budget.no_room(month, job, cost, most, now)

    async def settle(self, job: Job, state: JobState) -> None:
        """Return what an ended job did not spend. Doing it again changes nothing."""
        spent = state.budget.spent.cost if state.budget is not None else 0
        try:
            await self._swap(job, lambda held: budget.settled(held, job.id, spent))
        except Unreadable:
            self._unread(job)  # the job has ended all the same, and who waits for that is told

    async def _reserve(self, job: Job, cost: int, most: int) -> MonthBudget:
        return await self._swap(
            job, lambda held: budget.reserved(held, job.id, cost, most), open_only=True
        )

    async def _return_ended(self, job: Job, month: MonthBudget, need: int) -> bool:
        """Return what is reserved for jobs that have ended, until there is as much room as needed;
        whether something was. Who reserved may not have lived to hear that its job had ended.
        """
        if need > sum(month.reserved.values()):
            return False
        marked = {name async for name, _ in self._store.open_jobs()}
        costs = {name: cost for name, cost in month.reserved.items() if name not in marked}
        names, returned = sorted(costs, key=costs.__getitem__, reverse=True), False
        for start in range(0, len(names), _AT_ONCE):
            if not 0 < need <= sum(costs[name] for name in names[start:]):
                break
            for done in await self._ended(names[start : start + _AT_ONCE]):
                await self._swap(job, partial(budget.settled, job=done.id, spent=_spent(done)))
                need, returned = need - costs[done.id], True
        return returned

    async def _ended(self, names: list[str]) -> list[Done]:
        return [done for done in await all_of(self._done, names) if done is not None]

    async def _done(self, name: str) -> Done | None:
        try:
            return await self._store.done(name)
        except (NewerVersion, Unreadable):
            return None  # what it spent is for others to count

    async def _swap(
        self, job: Job, becomes: Callable[[MonthBudget], MonthBudget], *, open_only: bool = False
    ) -> MonthBudget:
        ref = self._ref(job)
        for attempt in range(_PATIENCE):
            held = await self._store.held(MonthBudget, ref)
            if held is None:
                await self._store.create_document(ref, MonthBudget())
                continue
            after = becomes(held.document)
            if after is held.document or (open_only and await self._has_ended(job)):
                return held.document
            if await self._store.replace(ref, after, held.etag):
                return after
            await asyncio.sleep(self._rng.uniform(0, min(2.0, 0.02 * 2**attempt)))
        raise Unavailable(f"the budget of {job.tenant!r} could not be changed: too many are at it")

    async def _has_ended(self, job: Job) -> bool:
        """Looked at after the month was read: had it been settled since, the swap would fail."""
        held = await self._store.state(job.id)
        return held is not None and held.state.terminal

    def _ref(self, job: Job) -> BlobRef:
        return _ref(self._store, job.tenant, month_of(job.created))

    def _unread(self, job: Job) -> str:
        ref = self._ref(job)
        log.warning("[MONTH_UNREAD] %s/%s is damaged: restore it", ref.container, ref.name)
        return f"{ref.container}/{ref.name}, the budget of its tenant's month, cannot be read"


def _ref(store: JobStore, tenant: str, month: str) -> BlobRef:
    return BlobRef(store.state_container, f"budgets/{tenant}/{month}")


def _spent(done: Done) -> int:
    told = done.status.budget
    return 0 if told is None or told.cost_spent is None else micros(told.cost_spent) * MILLION
