"""What does each job weigh, on however many processes it is asked, and each tenant among all?

A tenant's jobs share what the tenant weighs, each by its own weight. A job weighs the same however
many processes ask it: to each of them falls its part, by its calls that wait there.

All processes have to come to the same, in whatever order they have read or added entries: so sums
are those of `fsum`, which are the same in any order.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import fsum
from typing import Protocol

JOBS = 64
"""Jobs that an entry names; the others count together, as one of each tenant's."""
FEWEST = 100
"""As so many count fewer calls that wait, too: a part that is a sliver would move too often."""
STAYS = 4.0
"""Times as many calls have to wait, or as few, as they counted before, to count anew."""
TENANT = ("default", 1.0)
"""Whose a job is, and what its tenant weighs, where nothing is said of it."""

Tenants = Mapping[str, tuple[str, float]]
"""By job: its tenant, and what that one weighs among all tenants."""


@dataclass(frozen=True, slots=True)
class JobWeights:
    """The jobs that one process asks: by their own weights, whose they are, if not the default's,
    and how many calls of each wait.
    """

    jobs: Mapping[str, float] = field(default_factory=dict)
    tenants: Tenants = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """The sum of the jobs' own weights."""
        return sum(self.jobs.values())


class Weighing(Protocol):
    """What weighs by the jobs it asks; `weight` counts where those are not known."""

    @property
    def weight(self) -> float:
        """The sum of the jobs' own weights."""

    @property
    def jobs(self) -> Mapping[str, float]:
        """The jobs by their own weights."""

    @property
    def tenants(self) -> Tenants:
        """Whose they are."""

    @property
    def waiting(self) -> Mapping[str, int]:
        """As how many calls of each count that wait, where that is told."""


def counted(calls: int, before: int | None) -> int:
    """As how many calls those that wait count, which counted as `before`.

    A share that moves lies idle for a round: small changes move none. 0 says that none waits.
    """
    now = max(FEWEST, calls) if calls else 0
    return before if before and calls and before / STAYS <= now <= before * STAYS else now


def named(asked: JobWeights) -> JobWeights:
    """The jobs as an entry holds them: the heaviest, the same ones in all processes."""
    if len(asked.jobs) <= JOBS:
        return asked
    order = sorted(asked.jobs, key=lambda job: (-asked.jobs[job], job))
    kept = {job: asked.jobs[job] for job in order[:JOBS]}
    tenants = {job: asked.tenants[job] for job in kept if job in asked.tenants}
    for job in order[JOBS:]:
        tenant = asked.tenants.get(job, TENANT)
        # Workers of 0.1.0, who know no tenants, call all the others "".
        rest = "" if tenant == TENANT else f"others of {tenant[0]}"
        kept[rest] = kept.get(rest, 0.0) + asked.jobs[job]
        if tenant != TENANT:
            tenants[rest] = tenant
    waiting = {job: calls for job, calls in asked.waiting.items() if job in kept}
    return JobWeights(kept, tenants, waiting)


def weighed(jobs: Mapping[str, float], tenants: Tenants) -> Mapping[str, float]:
    """What each of these jobs weighs among all of them; together they weigh what they did."""
    of_tenant = dict(tenants.get(job, TENANT) for job in jobs)
    if len(of_tenant) < 2:
        return jobs
    own: dict[str, list[float]] = {tenant: [] for tenant in of_tenant}
    for job, weight in jobs.items():
        own[tenants.get(job, TENANT)[0]].append(weight)
    unit = fsum(jobs.values()) / fsum(of_tenant.values())
    factor = {tenant: unit * weight / fsum(own[tenant]) for tenant, weight in of_tenant.items()}
    return {job: weight * factor[tenants.get(job, TENANT)[0]] for job, weight in jobs.items()}


def parts(holders: Mapping[str, Weighing]) -> dict[str, dict[str, float]]:
    """What falls, of each job, to each of those who ask it: by their calls of it that wait.

    Where one does not tell how many wait, or an earlier worker has dropped it, all who ask a job
    have the same: all processes are to find the same parts, and not each by what it knows itself.
    """
    told = all(holder.waiting for holder in holders.values() if holder.jobs)
    calls: Counter[str] = Counter()
    jobs: dict[str, float] = {}
    tenants: dict[str, tuple[str, float]] = {}
    for holder in holders.values():
        tenants |= holder.tenants
        for job, weight in holder.jobs.items():
            # Those who have not yet heard that it weighs more will hear of it.
            jobs[job] = max(weight, jobs.get(job, 0.0))
            calls[job] += _part(holder, job) if told else 1
    each = {job: weight / calls[job] for job, weight in weighed(jobs, tenants).items()}
    return {
        name: {job: each[job] * (_part(holder, job) if told else 1) for job in holder.jobs}
        for name, holder in holders.items()
    }


def within(told: Mapping[str, float], own: Mapping[str, float]) -> dict[str, float]:
    """What each job weighs in one process, of 1: by the parts that a ledger has `told`.

    One of which it tells nothing, as it has just come or is not named, has its `own` weight by the
    measure of the others.
    """
    known = [job for job in own if told.get(job)]
    unit = sum(told[job] for job in known) / sum(own[job] for job in known) if known else 1.0
    weights = {job: told.get(job) or weight * unit for job, weight in own.items()}
    total = sum(weights.values())
    return {job: weight / total for job, weight in weights.items()}


def _part(holder: Weighing, job: str) -> int:
    return max(FEWEST, holder.waiting.get(job, FEWEST))


def effective(holders: Mapping[str, Weighing]) -> dict[str, float]:
    """What each holder weighs among these: of each of its jobs the part that falls to it."""
    part = parts(holders)
    return {name: fsum(part[name].values()) or holder.weight for name, holder in holders.items()}
