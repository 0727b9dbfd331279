"""What a tenant's jobs of one month may cost together: each reserves its most before it asks."""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

from schemas.budgets import MonthBudget
from schemas.jobs import Job, JobState
from workers.jobs import budget
from workers.jobs.store import JobStore
from workers.ports import BlobRef
from workers.ports.errors import Unavailable

_PATIENCE: Final = 12


class MonthlyBudgets:
    """The documents `budgets/{tenant}/{month}`, changed by compare-and-swap. A job's month is that
    of its creation. Errors are those of storage.
    """

    def __init__(self, store: JobStore, *, rng: random.Random) -> None:
        self._store = store
        self._rng = rng

    async def reserve(self, job: Job, cost: int, cap: float | None) -> bool:
        """Reserve what a job may cost, once; whether it has a part of its tenant's month then.

        `cap` is what the tenant's jobs of a month may cost; None: any.
        """
        most = budget.picos(cap)
        month = await self._swap(job, lambda held: budget.reserved(held, job.id, cost, most))
        if job.id in month.reserved:
            return True
        # Whoever reserved when its job had ended already may not have lived to return it.
        ended = [name for name in month.reserved if await self._store.done(name) is not None]
        if not ended:
            return False
        for name in ended:
            await self._swap(job, partial(budget.settled, job=name, spent=0))
        month = await self._swap(job, lambda held: budget.reserved(held, job.id, cost, most))
        return job.id in month.reserved

    async def release(self, job: Job) -> None:
        """Return what was reserved for a job that had been settled: what it spent is counted."""
        await self._swap(job, lambda held: budget.settled(held, job.id, 0))

    async def settle(self, job: Job, state: JobState) -> None:
        """Return what an ended job did not spend. Doing it again changes nothing."""
        spent = state.budget.spent.cost if state.budget is not None else 0
        await self._swap(job, lambda held: budget.settled(held, job.id, spent))

    async def _swap(self, job: Job, becomes: Callable[[MonthBudget], MonthBudget]) -> MonthBudget:
        month = datetime.fromtimestamp(job.created, UTC).strftime("%Y-%m")
        ref = BlobRef(self._store.state_container, f"budgets/{job.tenant}/{month}")
        for attempt in range(_PATIENCE):
            held = await self._store.held(MonthBudget, ref)
            if held is None:
                await self._store.create_document(ref, MonthBudget())
                continue
            after = becomes(held.document)
            if after is held.document or await self._store.replace(ref, after, held.etag):
                return after
            await asyncio.sleep(self._rng.uniform(0, min(2.0, 0.02 * 2**attempt)))
        raise Unavailable(f"the budget of {job.tenant!r} could not be changed: too many are at it")
