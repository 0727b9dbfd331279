"""What of each tenant's cap by month is spent, reserved and left; which jobs hold and await it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from schemas.budgets import MonthBudget, MonthJob, MonthStatus
from schemas.listing import index_id, month_of
from schemas.money import MILLION, Amount, amount
from schemas.tenants import Tenant
from workers.api.answering import unknown_tenant
from workers.api.http import JsonReply
from workers.api.routing import ReadBudgets
from workers.jobs import budget
from workers.jobs.index import JobIndex
from workers.jobs.months import read_month
from workers.jobs.store import JobStore
from workers.ports.errors import NewerVersion, Unreadable
from workers.ports.together import all_of

MOST_TOLD: Final = 50
"""Jobs that are named of those that hold what is reserved of a month: each is read."""
MOST_LOOKED: Final = 200
"""Open jobs without a reservation that are looked at: the others are counted."""
_AT_ONCE: Final = 16


class WaitingJob(NamedTuple):
    """A job that waits for room in its tenant's month."""

    tenant: str
    month: str
    job: MonthJob


class BudgetsApi:
    """Reads the months of the tenants that have a cap by month; nothing where there is none."""

    def __init__(
        self,
        store: JobStore,
        index: JobIndex,
        tenants: Mapping[str, Tenant],
        currency: str | None,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._index = index
        self._tenants = tenants
        self._currency = currency
        self._clock = clock

    async def of(self, asked: ReadBudgets) -> JsonReply:
        """A month of each tenant with a cap, or of the one that is named."""
        if asked.tenant is not None and asked.tenant not in self._tenants:
            raise unknown_tenant(asked.tenant, self._tenants)
        month = asked.month or month_of(self._clock())
        caps = {
            name: budget.picos(each.max_cost_per_month)
            for name, each in self._tenants.items()
            if each.max_cost_per_month is not None and asked.tenant in (None, name)
        }
        told = await self._statuses(month, caps) if caps else ()
        data = [each.model_dump(mode="json") for each in told]
        return JsonReply(200, {"object": "list", "data": data, "has_more": False})

    async def _statuses(self, month: str, caps: Mapping[str, int]) -> Sequence[MonthStatus]:
        months = await all_of(lambda name: self._held(name, month), caps, at_once=_AT_ONCE)
        held = dict(zip(caps, months, strict=True))
        reserved = {
            job for each in months if isinstance(each, MonthBudget) for job in each.reserved
        }
        looked, not_read = await self._looked(month, caps, reserved)
        found = await all_of(self._awaiting, looked, at_once=_AT_ONCE)
        waiting = [job for job in found if job is not None]

        async def told(name: str) -> MonthStatus:
            fresh = MonthStatus(
                tenant=name,
                month=month,
                currency=self._currency,
                max_cost=amount(caps[name] // MILLION),
                waiting=tuple(
                    each.job for each in waiting if each.tenant == name and each.month == month
                ),
                open_jobs_not_read=not_read[name],
            )
            return await self._with_amounts(fresh, held[name], caps[name])

        return await all_of(told, caps, at_once=_AT_ONCE)

    async def _held(self, tenant: str, month: str) -> MonthBudget | str:
        """A month as it is stored; where this version cannot read it, what to do."""
        where = f"{self._store.state_container}/budgets/{tenant}/{month}"
        try:
            return await read_month(self._store, tenant, month)
        except NewerVersion:
            # An older version of it would have lost what jobs have reserved since.
            return (
                f"{where} was written by a newer release: leave it as it is, and look again once "
                "all instances are upgraded"
            )
        except Unreadable:
            return f"{where} cannot be read: restore it, or see docs/runbook.md"

    async def _with_amounts(
        self, told: MonthStatus, held: MonthBudget | str, cap: int
    ) -> MonthStatus:
        if isinstance(held, str):
            return told.model_copy(update={"message": held})
        largest = sorted(held.reserved.items(), key=lambda each: (-each[1], each[0]))[:MOST_TOLD]
        return told.model_copy(
            update={
                "cost_spent": _amount(held.spent),
                "cost_reserved": _amount(sum(held.reserved.values())),
                "cost_left": amount(held.left(cap) // MILLION),
                "reserving_jobs": len(held.reserved),
                "reserving": tuple(await all_of(self._named, largest, at_once=_AT_ONCE)),
            }
        )

    async def _named(self, reserved: tuple[str, int]) -> MonthJob:
        job, cost = reserved
        try:
            found = await self._store.job(job)
        except (NewerVersion, Unreadable):
            found = None
        return MonthJob(
            job=job,
            input=found and found.input,
            filename=found and found.filename,
            max_cost=_amount(cost),
        )

    async def _looked(
        self, month: str, tenants: Iterable[str], reserved: set[str]
    ) -> tuple[Sequence[str], Counter[str]]:
        """The open jobs to look at, those first that are open longest, and how many others each
        tenant has. Where they are too many, they are jobs of the month, as many of each tenant.
        """
        marked = {job: at async for job, at in self._store.open_jobs() if job not in reserved}
        if len(marked) <= MOST_LOOKED:
            return sorted(marked, key=marked.__getitem__), Counter()

        async def own(tenant: str) -> list[tuple[int, str, str]]:
            names = [index_id(name) async for name in self._index.of_month(tenant, month)]
            jobs = sorted(marked.keys() & names, key=lambda job: (marked[job], job))
            return [(place, tenant, job) for place, job in enumerate(jobs)]

        found = sorted(chain.from_iterable(await all_of(own, tenants, at_once=_AT_ONCE)))
        others = Counter(tenant for _, tenant, _ in found[MOST_LOOKED:])
        return [job for *_, job in found[:MOST_LOOKED]], others

    async def _awaiting(self, job_id: str) -> WaitingJob | None:
        try:
            held = await self._store.state(job_id)
            if held is None or budget.awaits_room(held.state) is None:
                return None
            job = await self._store.job(job_id)
        except (NewerVersion, Unreadable):
            return None
        if job is None:
            return None
        told = held.state.budget and budget.status(held.state.budget, job.options).max_cost
        named = MonthJob(job=job.id, input=job.input, filename=job.filename, max_cost=told)
        return WaitingJob(job.tenant, month_of(job.created), named)


def _amount(picos: int) -> Amount:
    return amount(-(-picos // MILLION))
