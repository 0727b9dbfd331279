"""What the jobs of a month cost, summed by tenant or by a name of their metadata."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from schemas.listing import created_of, index_name, month_of, span_of
from schemas.money import CostSum
from schemas.status import JobStatus
from workers.api.answering import unknown_tenant
from workers.api.http import JsonReply
from workers.api.routing import ReadCosts
from workers.jobs.costs import summed
from workers.jobs.index import JobIndex
from workers.ports.errors import NewerVersion, Unreadable
from workers.ports.together import all_of

MOST_SUMMED: Final = 2000
"""Jobs of one answer: each is read."""
BY_TENANT: Final = "tenant"
"""Whose a job is, whatever its metadata may say under the same name."""
_AT_ONCE: Final = 32


class CostsApi:
    """Sums what each job says of its cost, by the prices that were pinned with it."""

    def __init__(
        self, index: JobIndex, tenants: Collection[str], *, clock: Callable[[], float]
    ) -> None:
        self._index = index
        self._tenants = tenants
        self._clock = clock

    async def of(self, asked: ReadCosts) -> JsonReply:
        """The sums of a month's jobs, the newest first; `after` goes on behind those of before."""
        begin, end = span_of(asked.month or month_of(self._clock()))
        behind = index_name(end, "") if asked.after is None else asked.after
        names, more = await self._index.names(asked.tenant, MOST_SUMMED, behind)
        if not names and asked.after is None and asked.tenant not in self._tenants:
            raise unknown_tenant(asked.tenant, self._tenants)
        within = [name for name in names if begin <= created_of(name) < end]
        found = await all_of(self._status, within, at_once=_AT_ONCE)
        told = [status for status in found if status is not None]
        more = more and len(within) == len(names)
        data = [group.model_dump(mode="json") for group in sums(told, asked.by)]
        last = within[-1] if within and more else None
        return JsonReply(200, {"object": "list", "data": data, "last_id": last, "has_more": more})

    async def _status(self, name: str) -> JobStatus | None:
        """A job's status; None where there is no job, or this version cannot read it."""
        try:
            found = await self._index.status(name.partition("-")[2], self._clock())
        except (NewerVersion, Unreadable):
            return None
        return found[0] if found is not None and found[0].job is not None else None


def sums(jobs: Iterable[JobStatus], by: str | None) -> Sequence[CostSum]:
    """The jobs' costs by one value of each, the most jobs first."""
    groups: dict[str | None, list[JobStatus]] = {}
    for job in jobs:
        value = job.tenant if by in (None, BY_TENANT) else job.metadata.get(by)
        groups.setdefault(value, []).append(job)
    ordered = sorted(groups.items(), key=lambda each: (-len(each[1]), each[0] or ""))
    return [
        CostSum(
            by=by or BY_TENANT,
            value=value,
            jobs=len(found),
            unpriced_jobs=sum(each.cost is None for each in found),
            prompt_tokens=sum(each.tokens.prompt for each in found if each.tokens),
            completion_tokens=sum(each.tokens.completion for each in found if each.tokens),
            costs=summed(each.cost for each in found if each.cost is not None),
        )
        for value, found in ordered
    ]
