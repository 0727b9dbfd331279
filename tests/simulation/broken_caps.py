"""The rules by which a cap is held, each broken: for `mutations`."""

from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from schemas.budgets import NOTHING_SPENT, JobBudget, MonthBudget, Spend, total
from schemas.jobs import Job, JobState, Reason, Waiting
from schemas.outcomes import Outcome
from schemas.results import Receipt
from workers.jobs import budget, lifecycle, pauses
from workers.jobs.months import MonthlyBudgets
from workers.shards import journal
from workers.shards.journal import JournalLine
from workers.shards.purse import ShardPurse

Broken = AbstractContextManager[Any]


async def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing at all."""


def no_lot() -> Broken:
    return patch.object(ShardPurse, "secure", _nothing)


def no_pledge() -> Broken:
    return patch.object(ShardPurse, "fits", lambda *_: True)


def lots_forgotten() -> Broken:
    def note(lot: Any, line: JournalLine) -> None:
        if line.used is not None:
            lot.used = Spend(*line.used)

    return patch.object(journal.Lot, "note", note)


def late_line_makes_smaller() -> Broken:
    def note(lot: Any, line: JournalLine) -> None:
        if line.lot is not None:
            lot.level = Spend(*line.lot)
        if line.used is not None:
            lot.used = Spend(*line.used)

    return patch.object(journal.Lot, "note", note)


def unknown_costs_nothing() -> Broken:
    cost = ShardPurse.charge

    def known(own: ShardPurse, need: Spend, deployment: str, outcome: Outcome | None) -> Spend:
        told = outcome is not None and outcome.usage is not None
        return cost(own, need, deployment, outcome) if told else NOTHING_SPENT

    return patch.object(ShardPurse, "charge", known)


def allotments_not_seen() -> Broken:
    return patch.object(budget, "taken", lambda held: held.spent)


def own_receipt_believed() -> Broken:
    def count(held: JobBudget, receipt: Receipt) -> JobBudget:
        known = budget.allotment(held, receipt.shard)
        if known is None:
            return held
        return counted(held, receipt.model_copy(update={"attempt": known.attempt}))

    counted = budget.count
    return patch.object(budget, "count", count)


def given_back_by_anybody() -> Broken:
    def give_back(held: JobBudget, shard: int, attempt: str, spent: Spend) -> JobBudget:
        known = budget.allotment(held, shard)
        return given(held, shard, attempt if known is None else known.attempt, spent)

    given = budget.give_back
    return patch.object(budget, "give_back", give_back)


def returned_twice() -> Broken:
    def settle(own: ShardPurse, need: Spend, deployment: str, outcome: Outcome | None) -> None:
        settled(own, need, deployment, outcome)
        own._used = own._used.minus(need.minus(own.charge(need, deployment, outcome)))

    settled = ShardPurse.settle
    return patch.object(ShardPurse, "settle", settle)


def counted_by_nobody() -> Broken:
    def count(held: JobBudget, receipt: Receipt) -> JobBudget:
        return counted(held, receipt).model_copy(update={"spent": held.spent})

    counted = budget.count
    return patch.object(budget, "count", count)


def others_not_waited_for() -> Broken:
    return patch.object(budget, "held_by_others", lambda *_: False)


def crash_begins_anew() -> Broken:
    allotted = budget.allot

    def allot(
        held: JobBudget, *who: Any, charged: dict[str, Spend] | None, **what: Any
    ) -> JobBudget:
        nothing = None if charged is None else dict.fromkeys(charged, NOTHING_SPENT)
        return allotted(held, *who, charged=nothing, **what)

    return patch.object(budget, "allot", allot)


def stale_reading_believed() -> Broken:
    return patch.object(
        budget, "_by_others", lambda known, charged: total(charged.values()).least(known.whole)
    )


def paused_by_nobody() -> Broken:
    return patch.object(ShardPurse, "pause", _nothing)


def month_not_asked() -> Broken:
    async def fits(*_: Any) -> None:
        return None

    return patch.object(MonthlyBudgets, "reserve", fits)


def month_never_returned() -> Broken:
    return patch.object(MonthlyBudgets, "settle", _nothing)


def month_counts_reservations_alone() -> Broken:
    def settled(month: MonthBudget, job: str, _spent: int) -> MonthBudget:
        others = {name: cost for name, cost in month.reserved.items() if name != job}
        return month.model_copy(update={"reserved": others})

    return patch.object(budget, "settled", settled)


def room_not_looked_for() -> Broken:
    reserve, refused = MonthlyBudgets.reserve, dict[str, Reason | Waiting | None]()

    async def first_of_all(own: MonthlyBudgets, job: Job, *how: Any) -> Reason | Waiting | None:
        refused[job.id] = refused.get(job.id) or await reserve(own, job, *how)
        return refused[job.id]

    return patch.object(MonthlyBudgets, "reserve", first_of_all)


def begun_by_hand() -> Broken:
    resume = pauses.resume

    def resumed(state: JobState | None, **how: Any) -> lifecycle.Change:
        if state is None or not budget.awaits_room(state):
            return resume(state, **how)
        return lifecycle.sent(lifecycle.moved(state, paused=False, waiting=None))

    return patch.object(pauses, "resume", resumed)
