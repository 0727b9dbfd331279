"""How a cap is never exceeded: what an attempt may spend is taken from it in a swap before it asks.

`docs/protocol.md` tells the whole of it. Each function gives the budget that follows; the same one
where nothing changes.
"""

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Final

from schemas.budgets import (
    NOTHING_SPENT,
    Allotment,
    BudgetStatus,
    JobBudget,
    MonthBudget,
    Spend,
    total,
)
from schemas.jobs import Job, JobOptions, JobState, Reason, Waiting
from schemas.listing import month_of
from schemas.money import MILLION, Amount, PinnedPrice, amount, micros
from schemas.results import Receipt

_UNLIMITED: Final = 2**62
_LOWER: Final = "name a max_cost, lower max_tokens"
_TO_BEGIN: Final = "To begin now: cancel it, and send it with a"


def may_cost(options: JobOptions, reckoned: Amount | None) -> int | None:
    """The most that a job may cost: what it names, or what its rows were reckoned to need."""
    most = options.max_cost or reckoned
    return None if most is None else micros(most) * MILLION


def budget_of(
    options: JobOptions, prices: Mapping[str, PinnedPrice], cost: int | None
) -> JobBudget | None:
    """The budget that a job begins with, which may cost so much; None where nothing caps it."""
    if cost is None and options.max_total_tokens is None:
        return None
    return JobBudget(
        max_tokens=options.max_total_tokens,
        max_cost=cost,
        currency=next((price.currency for price in prices.values()), None),
    )


def left(budget: JobBudget) -> Spend:
    """What of the cap is neither spent nor allotted."""
    cap = Spend(
        _UNLIMITED if budget.max_tokens is None else budget.max_tokens,
        _UNLIMITED if budget.max_cost is None else budget.max_cost,
    )
    return cap.minus(taken(budget))


def allotment(budget: JobBudget, shard: int) -> Allotment | None:
    """What is allotted to a shard."""
    return next((each for each in budget.allotted if each.shard == shard), None)


def held_by_others(budget: JobBudget, shard: int) -> bool:
    """Whether attempts at other shards may still give back what they do not need."""
    return any(each.shard != shard and each.open != NOTHING_SPENT for each in budget.allotted)


def exhausted(budget: JobBudget, out: Collection[int]) -> bool:
    """Whether each of the shards that are out has looked for room, and none holds any."""
    looked = {each.shard for each in budget.allotted if each.open == NOTHING_SPENT}
    return looked.issuperset(out)


def allot(
    budget: JobBudget,
    shard: int,
    attempt: str,
    *,
    charged: Mapping[str, Spend] | None,
    want: Spend,
    need: Spend,
    ample: Spend = NOTHING_SPENT,
    sharers: int = 1,
) -> JobBudget:
    """Let an attempt spend `want`, or its part of what is left where that is enough for `need`.

    Each of `sharers` shards has an equal part: what one does not use comes back late, if its worker
    dies. Where parts would be too small to work with, the first get what is `ample`. `charged` is
    what the journals of earlier attempts come to, by attempt: they could not spend more than they
    were allotted, whatever one of them wrote after its lease. Of an attempt that is not among them
    all that it may spend counts: it began later, and who takes its place here has lost the lease.
    Without `charged` the attempt began before, and wants more: once another has its place, it gets
    none, for its receipt would not tell what the other has spent.
    """
    known = allotment(budget, shard)
    if known is None and want == NOTHING_SPENT:
        return budget
    if known is None or known.attempt != attempt:
        if charged is None:
            return budget
        spent = NOTHING_SPENT if known is None else _by_others(known, charged)
        known = Allotment(shard=shard, attempt=attempt, spent=spent, open=NOTHING_SPENT)
    without = _with(budget, shard, None)
    room = left(without).minus(known.spent)
    part = Spend(room.tokens // sharers, room.cost // sharers).most(ample).most(need)
    granted = want.least(room).least(part).most(known.open)
    if need.within(granted):
        known = known.model_copy(update={"open": granted})
    return _with(budget, shard, known)


def _by_others(known: Allotment, charged: Mapping[str, Spend]) -> Spend:
    """The most that all attempts up to the last one have spent."""
    return total(charged.values()).least(known.whole) if known.attempt in charged else known.whole


def give_back(budget: JobBudget, shard: int, attempt: str, spent: Spend) -> JobBudget:
    """An attempt asks no more: all attempts up to it have spent so much, and nothing is open.

    One that heard nothing of its allotment does not know all that was counted of those before it.
    """
    known = allotment(budget, shard)
    if known is None or known.attempt != attempt:
        return budget
    closed = known.model_copy(update={"spent": known.spent.most(spent), "open": NOTHING_SPENT})
    return _with(budget, shard, closed)


def count(budget: JobBudget, receipt: Receipt) -> JobBudget:
    """A shard is done. What the receipt tells counts where its attempt was the last that could ask;
    else all that was allotted does: somebody was asking while another wrote the receipt.
    """
    known = allotment(budget, receipt.shard)
    if known is None:
        return budget
    told = receipt.spent if receipt.attempt == known.attempt else None
    spent = known.whole if told is None else told
    counted = _with(budget, receipt.shard, None)
    return counted.model_copy(update={"spent": budget.spent.plus(spent)})


def picos(cost: float | None) -> int:
    """An amount in millionths of a millionth; where there is none, more than any job has."""
    return 2**64 if cost is None else int(Decimal(str(cost)) * MILLION * MILLION)


def reserved(month: MonthBudget, job: str, cost: int, cap: int) -> MonthBudget:
    """Keep what a job may cost for it, if it fits; a job that has its part keeps that."""
    if job in month.reserved or month.taken + cost > cap:
        return month
    return month.model_copy(update={"reserved": {**month.reserved, job: cost}})


def no_room(month: MonthBudget, job: Job, cost: int, cap: int, now: float) -> Reason | Waiting:
    """What becomes of a job that does not fit what its tenant's month has left: it fails, or waits
    for others to end. One that never could have fitted does not wait.
    """
    named = job.options.max_cost is not None
    currency = next((price.currency for price in job.prices.values()), "")
    what = f"max_cost {_told(cost)}"
    if not named:
        what = f"the most that its rows can cost, {_told(cost)} {currency},"
    lower = "lower it" if named else _LOWER
    whole = f"{job.tenant}'s {_told(cap)} {currency} for {month_of(job.created)}"
    if cost > cap:
        message = f"{what} is more than all of {whole}: {lower}, and drop the file again"
        return Reason(code="budget_exceeded", message=message)
    if job.options.on_budget != "pause":
        left, held = max(0, cap - month.taken), sum(month.reserved.values())
        told = f"the {_told(left, floor=True)} {currency} left of {whole}"
        message = f"{what} is more than {told} ({_told(held)} reserved by open jobs)"
        then = "drop the file again when other jobs have ended"
        return Reason(code="budget_exceeded", message=f"{message}: {lower}, or {then}")
    begins = "when others have ended and there is room, or at a higher cap"
    if month.spent + cost > cap:
        begins = "at a higher cap only, for what other jobs have spent leaves too little"
    smaller = "lower max_cost" if named else "max_cost"
    # No figure that changes from look to look: each would be news.
    found = (
        f"At the last look {what} was more than what was left of {whole}: the next one is within "
    )
    message = f"{found}five minutes, or at once when it is resumed. It begins by itself {begins}"
    return Waiting(reason="budget", message=f"{message}. {_TO_BEGIN} {smaller}", since=now)


def _told(picos: int, *, floor: bool = False) -> str:
    """An amount of a month for people, without zeros at its end."""
    millionths = picos // MILLION if floor else -(-picos // MILLION)
    return amount(millionths).rstrip("0").rstrip(".")


def never_sent(state: JobState) -> bool:
    """Whether a job was made paused for want of room, and nothing of it was sent yet."""
    return state.state == "in_progress" and state.paused and state.next == 0 < state.shards


def awaits_room(state: JobState) -> Waiting | None:
    """What a job waits for that begins once it has its part of its tenant's month.

    The result is None for any other job, also for one that was paused by hand while it waited.
    """
    return state.waiting if never_sent(state) else None


def waits_again(now: float) -> Waiting:
    """What a job waits for that was paused by hand while it had no room, and is resumed."""
    message = "whether its month has room for the job is looked at now, and every five minutes"
    return Waiting(reason="budget", message=message, since=now)


def settled(month: MonthBudget, job: str, spent: int) -> MonthBudget:
    """A job has ended: what it spent counts in the place of what it might have.

    It is rounded up to the millionth, as it is told of the job: else months and costs would differ.
    """
    if job not in month.reserved:
        return month
    others = {name: cost for name, cost in month.reserved.items() if name != job}
    told = -(-spent // MILLION) * MILLION
    return month.model_copy(update={"reserved": others, "spent": month.spent + told})


def status(budget: JobBudget, options: JobOptions) -> BudgetStatus:
    """What users are told of the budget of a job with such options."""
    spent = budget.spent.plus(total(each.spent for each in budget.allotted))
    reserved = total(each.open for each in budget.allotted)
    money = budget.max_cost is not None
    # Rounded up together: each by itself, they may come to more than the cap.
    cost, whole = -(-spent.cost // MILLION), -(-(spent.cost + reserved.cost) // MILLION)
    return BudgetStatus(
        max_total_tokens=budget.max_tokens,
        max_cost=None if budget.max_cost is None else amount(-(-budget.max_cost // MILLION)),
        currency=budget.currency if money else None,
        tokens_spent=spent.tokens,
        tokens_reserved=reserved.tokens,
        cost_spent=amount(cost) if money else None,
        cost_reserved=amount(whole - cost) if money else None,
        on_budget=options.on_budget,
        of_month=money and options.max_cost is None,
    )


def taken(budget: JobBudget) -> Spend:
    """What others may not have: spent, or allotted to shards that are out."""
    return budget.spent.plus(total(each.whole for each in budget.allotted))


def _with(budget: JobBudget, shard: int, own: Allotment | None) -> JobBudget:
    others = tuple(each for each in budget.allotted if each.shard != shard)
    allotted = others if own is None else (*others, own)
    ordered = tuple(sorted(allotted, key=lambda each: each.shard))
    if ordered == budget.allotted:
        return budget
    return budget.model_copy(update={"allotted": ordered})
