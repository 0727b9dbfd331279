"""What does a batch cost, what will it come to, and what of its caps is left?"""

from collections.abc import Iterator

from schemas.budgets import BudgetStatus
from schemas.jobs import TERMINAL
from schemas.money import Cost
from schemas.openai import Batch, RequestCounts


def in_short(cost: Cost) -> str:
    """By the tokens that were told, and up to what calls may have cost that told none."""
    if cost.at_most is None:
        return f"at least {cost.counted} {cost.currency}"
    upto = "" if cost.at_most == cost.counted else f" to {cost.at_most}"
    return f"{cost.counted}{upto} {cost.currency}"


def money_lines(batch: Batch) -> Iterator[tuple[str, str]]:
    """Lines of a name and a text, by the names that the status of its job has."""
    more, ended = batch.phi3, batch.status in TERMINAL
    if more.cost is not None:
        yield "cost", _cost(more.cost, batch.request_counts, ended=ended)
    if more.cost is not None and more.projected_cost is not None and not ended:
        told = "in the end, if its other rows cost as much as those that are counted"
        yield "projected_cost", f"{more.projected_cost} {more.cost.currency} {told}"
    if more.budget is not None:
        yield from _caps(more.budget)
        if _stands_at_cap(batch, more.budget):
            yield (
                "to go on",
                (
                    f"phi3batch cancel {batch.id}, which keeps what is done, then phi3batch retry "
                    f"{batch.id}, which asks the other rows with the same caps anew"
                ),
            )


def _cost(cost: Cost, rows: RequestCounts, *, ended: bool) -> str:
    counted = f"{cost.counted} {cost.currency}"
    if not ended:
        counted += f" for the {rows.completed + rows.failed:,} rows that are counted"
    if cost.at_most is not None:
        return f"{counted}, at most {cost.at_most} for all calls"
    if not ended:
        return f"{counted}; what all calls cost at most is known at the end (with max_cost, always)"
    return f"{counted}; what all calls cost at most is not known: some told none of their tokens"


def _caps(budget: BudgetStatus) -> Iterator[tuple[str, str]]:
    if budget.max_cost is not None:
        cap = f"{budget.max_cost} {budget.currency or ''}".rstrip()
        yield "max_cost", _cap(cap, budget.cost_spent, budget.cost_reserved)
    if budget.max_total_tokens is not None:
        told = (
            f"{each:,}"
            for each in (budget.max_total_tokens, budget.tokens_spent, budget.tokens_reserved)
        )
        yield "max_total_tokens", _cap(*told)


def _cap(cap: str, spent: str | None, reserved: str | None) -> str:
    return f"{cap}, of which {spent} are spent and {reserved} reserved for calls that are made now"


def _stands_at_cap(batch: Batch, budget: BudgetStatus) -> bool:
    """Whether its own cap has paused it. One that waits for its tenant's month has asked nothing,
    and begins by itself.
    """
    waiting = batch.phi3.waiting or {}
    return batch.phi3.paused and waiting.get("reason") == "budget" and budget.tokens_spent > 0
