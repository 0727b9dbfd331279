"""What does a batch cost, what will it come to, and what of its caps is left?"""

from collections.abc import Iterator

from schemas.budgets import BudgetStatus
from schemas.jobs import TERMINAL
from schemas.money import Cost
from schemas.openai import Batch


def in_short(cost: Cost) -> str:
    """By the tokens that were told, and up to what calls may have cost that told none."""
    if cost.at_most is None:
        more = " and calls without a price" if cost.unpriced_calls else ""
        return f"at least {cost.counted} {cost.currency}{more}"
    upto = "" if cost.at_most == cost.counted else f" to {cost.at_most}"
    return f"{cost.counted}{upto} {cost.currency}"


def money_lines(batch: Batch) -> Iterator[tuple[str, str]]:
    """Lines of a name and a text, by the names that the status of its job has."""
    more, ended = batch.phi3, batch.status in TERMINAL
    if more.cost is not None:
        yield "cost", _cost(more.cost, batch)
    elif batch.usage.total_tokens:
        yield "cost", "not known: no deployment that answered has a price in DEPLOYMENTS"
    if more.cost is not None and more.projected_cost is not None and not ended:
        told = "in the end, if its other rows cost as much as those that are done"
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


def _cost(cost: Cost, batch: Batch) -> str:
    counted, ended = f"{cost.counted} {cost.currency}", batch.status in TERMINAL
    if not ended:
        counted += f" for the {rows_done(batch):,} rows that are done"
    why = [
        f"{f'{calls:,}' if ended else 'some'} {words}"
        for calls, words in (
            (cost.unmetered_calls, "calls may have been billed and told no tokens"),
            (cost.unpriced_calls, "calls were to deployments without a price"),
            (
                cost.crashes,
                "attempts at shards ended with their worker, and what they asked last is not known",
            ),
        )
        if calls
    ]
    if cost.at_most is not None:
        return f"{counted}, at most {cost.at_most} for all calls"
    if why:
        return f"{counted}, and more: {'; '.join(why)}"
    if not ended:
        return f"{counted}; what all calls cost at most is known at the end (with max_cost, always)"
    return f"{counted}; what all calls cost at most is not known"


def rows_done(batch: Batch) -> int:
    """Rows with an answer or an error, in shards that are being asked too."""
    running = 0 if batch.status in TERMINAL else batch.phi3.running or 0
    return batch.request_counts.completed + batch.request_counts.failed + running


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
    of = f"{cap}, of which {spent} are spent"
    if not reserved or not float(reserved.replace(",", "")):
        return of
    return f"{of} and {reserved} spent, or set aside, for shards that are being asked"


def _stands_at_cap(batch: Batch, budget: BudgetStatus) -> bool:
    """Whether its own cap has paused it. One that waits for its tenant's month has asked nothing,
    and begins by itself.
    """
    waiting = batch.phi3.waiting or {}
    return batch.phi3.paused and waiting.get("reason") == "budget" and budget.tokens_spent > 0
