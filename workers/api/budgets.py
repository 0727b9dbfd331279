"""What of each tenant's cap by month is spent, reserved and left; which jobs hold and await it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from schemas.budgets import MonthBudget, MonthJob, MonthStatus
from schemas.listing import month_of
from schemas.money import MILLION, Amount, amount
from schemas.tenants import Tenant
from workers.api.answering import unknown_tenant
from workers.api.http import JsonReply
from workers.api.routing import ReadBudgets
from workers.jobs import budget
from workers.jobs.months import read_month
from workers.jobs.store import JobStore
from workers.ports.errors import NewerVersion, Unreadable, first_of

MOST_TOLD: Final = 50
"""Jobs that are named of those that hold what is reserved of a month: each is read."""
MOST_LOOKED: Final = 200
"""Open jobs without a reservation that are looked at: the others wait, if they do, unnamed."""
_AT_ONCE: Final = 16

Item = TypeVar("Item")
Known = TypeVar("Known")


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
        tenants: Mapping[str, Tenant],
        currency: str | None,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
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
        months = await _each(lambda name: self._held(name, month), caps)
        held = dict(zip(caps, months, strict=True))
        reserved = {job for each in months if each is not None for job in each.reserved}
        waiting = await self._waiting(reserved)

        async def told(name: str) -> MonthStatus:
            fresh = MonthStatus(
                tenant=name,
                month=month,
                currency=self._currency,
                max_cost=amount(caps[name] // MILLION),
                waiting=tuple(
                    each.job for each in waiting if each.tenant == name and each.month == month
                ),
            )
            return await self._with_amounts(fresh, held[name], caps[name])

        return await _each(told, caps)

    async def _held(self, tenant: str, month: str) -> MonthBudget | None:
        """A month as it is stored; None where this version cannot read it."""
        try:
            return await read_month(self._store, tenant, month)
        except (NewerVersion, Unreadable):
            return None

    async def _with_amounts(
        self, told: MonthStatus, held: MonthBudget | None, cap: int
    ) -> MonthStatus:
        if held is None:
            where = f"{self._store.state_container}/budgets/{told.tenant}/{told.month}"
            message = f"{where} cannot be read: restore it, or see docs/runbook.md"
            return told.model_copy(update={"message": message})
        largest = sorted(held.reserved.items(), key=lambda each: (-each[1], each[0]))[:MOST_TOLD]
        return told.model_copy(
            update={
                "cost_spent": _amount(held.spent),
                "cost_reserved": _amount(sum(held.reserved.values())),
                "cost_left": amount(held.left(cap) // MILLION),
                "reserving_jobs": len(held.reserved),
                "reserving": tuple(await _each(self._named, largest)),
            }
        )

    async def _named(self, reserved: tuple[str, int]) -> MonthJob:
        job, cost = reserved
        try:
            found = await self._store.job(job)
        except (NewerVersion, Unreadable):
            found = None
        return MonthJob(job=job, input=found and found.input, max_cost=_amount(cost))

    async def _waiting(self, reserved: set[str]) -> list[WaitingJob]:
        """The jobs that wait for room in any month, those first that are open longest."""
        marked = [(at, job) async for job, at in self._store.open_jobs() if job not in reserved]
        looked = [job for _, job in sorted(marked)[:MOST_LOOKED]]
        return [each for each in await _each(self._awaiting, looked) if each is not None]

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
        told = held.state.budget and budget.status(held.state.budget).max_cost
        named = MonthJob(job=job.id, input=job.input, max_cost=told)
        return WaitingJob(job.tenant, month_of(job.created), named)


def _amount(picos: int) -> Amount:
    return amount(-(-picos // MILLION))


async def _each(do: Callable[[Item], Awaitable[Known]], items: Iterable[Item]) -> list[Known]:
    """What is found for each, in their order; some at a time."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Item) -> Known:
        async with room:
            return await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    except BaseExceptionGroup as errors:
        raise first_of(errors) from errors
    return [task.result() for task in tasks]
