"""What does each job weigh, on however many processes it is asked, and each tenant among all?

A tenant's jobs share what the tenant weighs, each by its own weight. A job weighs the same however
many processes ask it: to each of them falls its part.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

JOBS = 64
"""Jobs that an entry names; the others count together, as one of each tenant's."""
TENANT = ("default", 1.0)
"""Whose a job is, and what its tenant weighs, where nothing is said of it."""

Tenants = Mapping[str, tuple[str, float]]
"""By job: its tenant, and what that one weighs among all tenants."""


@dataclass(frozen=True, slots=True)
class JobWeights:
    """The jobs that one process asks: by their own weights, and whose they are, if not the
    default's.
    """

    jobs: Mapping[str, float] = field(default_factory=dict)
    tenants: Tenants = field(default_factory=dict)

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
    return JobWeights(kept, tenants)


def weighed(jobs: Mapping[str, float], tenants: Tenants) -> Mapping[str, float]:
    """What each of these jobs weighs among all of them; together they weigh what they did."""
    of_tenant = dict(tenants.get(job, TENANT) for job in jobs)
    if len(of_tenant) < 2:
        return jobs
    own: Counter[str] = Counter()
    for job, weight in jobs.items():
        own[tenants.get(job, TENANT)[0]] += weight  # type: ignore[assignment]
    unit = sum(jobs.values()) / sum(of_tenant.values())
    factor = {tenant: unit * weight / own[tenant] for tenant, weight in of_tenant.items()}
    return {job: weight * factor[tenants.get(job, TENANT)[0]] for job, weight in jobs.items()}


def parts(holders: Mapping[str, Weighing]) -> dict[str, float]:
    """What falls, of each job that these ask, to each of those who ask it."""
    asking = Counter(job for holder in holders.values() for job in holder.jobs)
    jobs: dict[str, float] = {}
    tenants: dict[str, tuple[str, float]] = {}
    for holder in holders.values():
        tenants |= holder.tenants
        for job, weight in holder.jobs.items():
            # Those who have not yet heard that it weighs more will hear of it.
            jobs[job] = max(weight, jobs.get(job, 0.0))
    return {job: weight / asking[job] for job, weight in weighed(jobs, tenants).items()}


def effective(holders: Mapping[str, Weighing]) -> dict[str, float]:
    """What each holder weighs among these: of each of its jobs the part that falls to it."""
    part = parts(holders)
    return {
        name: sum(part[job] for job in holder.jobs) or holder.weight
        for name, holder in holders.items()
    }
