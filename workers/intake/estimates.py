"""What a file is reckoned to take, by the quotas as they are shared now."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Protocol

from schemas.deployments import prices_of
from schemas.estimates import JobEstimate
from schemas.estimating import MOST_ASKED, CapFit, Estimate, EstimateCreate, EstimateGroup
from schemas.hours import Hours
from schemas.jobs import Job, Priority
from schemas.listing import month_of
from schemas.money import MILLION, CostRange, amount, micros
from schemas.tenants import Tenant
from workers.intake.estimating import QuotaEstimator, Terms, job_estimate
from workers.intake.fitting import doubted, failing, month_cap, own_caps
from workers.intake.scanning import Planned
from workers.intake.verdicts import Preflight, needs_price, without_price
from workers.jobs import budget
from workers.jobs.months import read_month
from workers.jobs.store import JobStore
from workers.ports.errors import NewerVersion, Unreadable
from workers.ports.together import all_of
from workers.rows.token_ranges import MOST, groups_of, pledged, reserved, summed

_UNKNOWN: Final = Tenant()


class Sharing(Protocol):
    """What tells how the quotas are shared now."""

    async def part(
        self, deployment: str, weight: float, tenant: tuple[str, float], now: float
    ) -> tuple[float, int]:
        """The part of a quota that would fall to one more job of this weight, above 0; and how many
        requests of this day (UTC) have been given out.
        """


@dataclass(frozen=True, slots=True)
class Estimates:
    """The maker of estimates. Errors are those of storage.

    `weights` are those of jobs, `hours` those to which they are limited, by priority.
    """

    store: JobStore
    routes: Preflight
    estimator: QuotaEstimator
    sharing: Sharing
    tenants: Mapping[str, Tenant]
    weights: Mapping[str, float]
    hours: Mapping[str, Hours]
    clock: Callable[[], float]

    async def told(self, asked: EstimateCreate, tenant: str) -> Estimate:
        """What a file would take as a job of a tenant."""
        month = await self._month(tenant)
        priced = frozenset(prices_of(self.estimator.deployments))
        costs_capped = asked.max_cost is not None or month is not None
        kinds = [
            (each.task, self.estimator.model(each.task, each.model)) for each in asked.requests
        ]
        unpriced = without_price(kinds, priced, self.routes) if costs_capped else None
        # With a cap on cost it asks what has a price alone, or nothing where that does not do.
        estimator = self.estimator.among(priced if costs_capped and unpriced is None else None)
        names, priority = estimator.limited(asked.requests), asked.priority
        terms = await self._terms(names, tenant, priority, self.hours.get(priority))
        told = estimator.told(asked.requests, terms)
        caps = _own_caps(estimator, asked, told.cost)
        if month is not None:
            caps.append(month_cap(_reserves(estimator, asked, told.cost), *month))
        if any(each.model is None for each in told.unserved):
            # Whoever sends more kinds than a request may name puts the rest together like that.
            caps = doubted(caps, asked.max_cost)
        if unpriced is not None:
            caps = [failing(each, needs_price(unpriced)) for each in caps]
        return told.model_copy(update={"caps": tuple(caps)})

    async def of_job(self, job: Job, planned: Planned) -> JobEstimate:
        """What a job will take, of what a scan of its file has seen."""
        groups = groups_of(planned.sizes, planned.survey.asked)
        estimator = self.estimator.among(job.askable)
        names = estimator.limited(groups)
        terms = await self._terms(names, job.tenant, job.priority, job.hours)
        told = job_estimate(estimator.told(groups, terms)).model_copy(
            update={"bounds": estimator.minute_bounds(reserved(groups, planned.sizes))}
        )
        if not job.monthly or job.options.max_cost is not None:
            return told
        may_cost = self.estimator.may_cost(planned.most.items(), job.prices)
        return told.model_copy(update={"may_cost": amount(-(-may_cost // MILLION))})

    async def _month(self, tenant: str) -> tuple[int, int | None] | None:
        """A tenant's cap for this month and what is left of it, in millionths, or None without one.

        What is left is None where this version cannot read the month.
        """
        cap = self.tenants.get(tenant, _UNKNOWN).max_cost_per_month
        if cap is None:
            return None
        most = budget.picos(cap)
        try:
            month = await read_month(self.store, tenant, month_of(self.clock()))
        except (NewerVersion, Unreadable):
            return most // MILLION, None
        return most // MILLION, month.left(most) // MILLION

    async def _terms(
        self, names: Sequence[str], tenant: str, priority: Priority, hours: Hours | None
    ) -> Terms:
        """The terms on which deployments of these names would serve one more job."""
        of = (tenant, self.tenants.get(tenant, _UNKNOWN).weight)
        now, weight = self.clock(), self.weights[priority]
        parts = await all_of(lambda name: self.sharing.part(name, weight, of, now), names)
        told = dict(zip(names, parts, strict=True))
        shares = {name: share for name, (share, _) in told.items()}
        return Terms(now, shares, {name: given for name, (_, given) in told.items()}, hours)


def _own_caps(
    estimator: QuotaEstimator, asked: EstimateCreate, cost: CostRange | None
) -> list[CapFit]:
    pledges = pledged(asked.requests)
    most = amount(_may_cost(estimator, [(each, each.tokens(MOST)) for each in pledges]))
    range_ = None if cost is None else (cost.least, most)
    return own_caps(asked.max_cost, asked.max_total_tokens, summed(pledges), range_)


def _reserves(
    estimator: QuotaEstimator, asked: EstimateCreate, cost: CostRange | None
) -> tuple[float, float] | None:
    """What a job reserves in its month, at least and at most, in millionths; None: nobody knows.

    It is its `max_cost`, or else the most that its rows can cost.
    """
    if asked.max_cost is not None:
        return micros(asked.max_cost), micros(asked.max_cost)
    if cost is None:
        return None
    told = [
        (each, pledge)
        for each in asked.requests
        if (pledge := each.pledged_tokens) and max(pledge) < MOST_ASKED
    ]
    if len(told) < len(asked.requests):
        return micros(cost.most), inf
    pledges = [(each, each.tokens(MOST)) for each in pledged(asked.requests)]
    return _may_cost(estimator, told), _may_cost(estimator, pledges)


def _may_cost(
    estimator: QuotaEstimator, billed: Iterable[tuple[EstimateGroup, tuple[float, float]]]
) -> int:
    """The most that groups with so many tokens can be billed for, in millionths."""
    most = [((group.task, group.model), tokens) for group, tokens in billed]
    return -(-estimator.may_cost(most, prices_of(estimator.deployments)) // MILLION)
