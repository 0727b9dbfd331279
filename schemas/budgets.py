"""Caps: what a job may spend, what it has spent, and what those who are asking may spend of it."""

from collections.abc import Iterable
from operator import not_
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from schemas.money import Amount
from schemas.versions import NEWEST_VERSION, Kept, Word


class Spend(NamedTuple):
    """Tokens, and what they cost in millionths of a millionth of the currency's unit.

    A price is millionths for a million tokens, so each token costs a whole number of these.
    """

    tokens: int = 0
    cost: int = 0

    def plus(self, other: Self) -> "Spend":
        """Both together."""
        return Spend(self.tokens + other.tokens, self.cost + other.cost)

    def minus(self, other: Self) -> "Spend":
        """What is left; never less than nothing."""
        return Spend(max(0, self.tokens - other.tokens), max(0, self.cost - other.cost))

    def most(self, other: Self) -> "Spend":
        """The larger one of each kind."""
        return Spend(max(self.tokens, other.tokens), max(self.cost, other.cost))

    def least(self, other: Self) -> "Spend":
        """The smaller one of each kind."""
        return Spend(min(self.tokens, other.tokens), min(self.cost, other.cost))

    def within(self, limit: Self) -> bool:
        """Whether neither kind is above a limit."""
        return self.tokens <= limit.tokens and self.cost <= limit.cost


NOTHING_SPENT = Spend()


def total(spends: Iterable[Spend]) -> Spend:
    """All together."""
    summed = NOTHING_SPENT
    for each in spends:
        summed = summed.plus(each)
    return summed


class Allotment(Kept):
    """What the attempts at one shard have spent and may spend, until its receipt is counted."""

    shard: int
    attempt: str = Field(description="the only one that may spend what is open")
    spent: Spend = Field(description="at most, by those before it")
    open: Spend = Field(description="that it may spend")

    @property
    def whole(self) -> Spend:
        """What counts against the cap."""
        return self.spent.plus(self.open)


class JobBudget(Kept):
    """A capped job's: `spent` and all of `allotted` together are never above the cap."""

    max_tokens: int | None = None
    max_cost: int | None = Field(
        default=None, description="in millionths of a millionth of the currency's unit"
    )
    currency: str | None = None
    spent: Spend = Field(default=NOTHING_SPENT, description="at most, by shards that are done")
    allotted: tuple[Allotment, ...] = ()


class MonthBudget(Kept):
    """`budgets/{tenant}/{month}`: costs of a tenant's jobs by the month of their creation.

    Amounts are millionths of a millionth of the currency's unit.
    """

    schema_version: int = NEWEST_VERSION
    reserved: dict[str, int] = Field(
        default_factory=dict, description="caps of the jobs that have not ended, by their ids"
    )
    spent: int = Field(default=0, description="by those that have")

    @property
    def taken(self) -> int:
        """What counts against the cap."""
        return self.spent + sum(self.reserved.values())

    def left(self, cap: int) -> int:
        """What one more job may reserve; nothing where the cap was lowered below what counts."""
        return max(0, cap - self.taken)


class MonthJob(BaseModel):
    """A job that has its part of its tenant's month, or waits for it."""

    model_config = ConfigDict(frozen=True)

    job: str
    input: str | None = Field(description="container/name; null where its document is not read")
    filename: str | None = Field(
        default=None, exclude_if=not_, description="of an uploaded file, as its user gave it"
    )
    max_cost: Amount | None = Field(
        description="what it may cost: its option, or the most that its rows can cost"
    )


class MonthStatus(BaseModel):
    """An entry of `GET /api/budgets`: what the jobs that a tenant made in a month may cost.

    Where the month cannot be read, `message` says why, and the amounts are null.
    """

    model_config = ConfigDict(frozen=True)

    tenant: str
    month: str = Field(description="2026-11, in UTC, in which the jobs were made")
    currency: str | None = None
    max_cost: Amount = Field(description="the tenant's `max_cost_per_month`")
    cost_spent: Amount | None = Field(default=None, description="by jobs that have ended")
    cost_reserved: Amount | None = Field(
        default=None,
        description="for jobs that have not: all that each may cost, what it has cost by now too",
    )
    cost_left: Amount | None = Field(default=None, description="that further jobs may reserve")
    reserving_jobs: int = Field(default=0, description="how many jobs hold what is reserved")
    reserving: tuple[MonthJob, ...] = Field(default=(), description="those that hold most of it")
    waiting: tuple[MonthJob, ...] = Field(
        default=(), description="jobs that wait for room, those first that are open longest"
    )
    open_jobs_not_read: int = Field(
        default=0,
        description="open jobs that hold nothing and were not looked at: they may wait too",
    )
    message: str | None = None


class BudgetStatus(BaseModel):
    """A job's cap, what is spent of it, and what shards that are being asked have spent or may
    spend, which is reserved for them.

    Spent is what endpoints told, and the most that calls may have cost which told nothing.
    """

    model_config = ConfigDict(frozen=True)

    max_total_tokens: int | None = None
    max_cost: Amount | None = None
    currency: str | None = None
    tokens_spent: int
    tokens_reserved: int
    cost_spent: Amount | None = None
    cost_reserved: Amount | None = None
    on_budget: Literal["stop", "pause"] | Word | None = Field(
        default=None,
        exclude_if=not_,
        description="the job's option: what becomes of it where no room is left for a call",
    )
    of_month: bool = Field(
        default=False,
        exclude_if=not_,
        description="whether the job names no `max_cost`, so that this is what it holds of its "
        "tenant's month: the most that its rows can cost",
    )
