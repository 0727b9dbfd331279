"""What does a batch cost, what will it come to, and what of its caps is left?"""

from collections.abc import Iterator

from schemas.budgets import BudgetStatus
from schemas.jobs import TERMINAL
from schemas.money import Amount, Cost, micros
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
        yield "cost", "not known: no deployment that answered has a price for tokens in DEPLOYMENTS"
    if more.cost is not None and more.projected_cost is not None and not ended:
        told = f"{more.projected_cost} {more.cost.currency}"
        yield "projected_cost", f"{told} {_outlook(batch, more.projected_cost)}"
    if more.budget is not None:
        most, tokens = more.budget.max_total_tokens, more.projected_tokens
        if most is not None and tokens is not None and tokens > most and not ended:
            told = f"{tokens:,} for all rows, if the others have as many as those that are done"
            yield "projected_tokens", f"{told}; {_beyond(batch, more.budget, f'{most:,}')}"
        yield from _caps(more.budget)
        if stands_at_cap(batch, more.budget):
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
        whose = f": {'; '.join(why)}" if why and ended else ""
        return f"{counted}, at most {cost.at_most} for all calls{whose}"
    if why:
        if not cost.unpriced_calls and not cost.crashes:
            why.append("max_tokens in each row bounds them as a rule, max_cost always")
        return f"{counted}, and more: {'; '.join(why)}"
    if not ended:
        return f"{counted}; what all calls cost at most is known at the end (with max_cost, always)"
    return f"{counted}; what all calls cost at most is not known"


def rows_done(batch: Batch) -> int:
    """Rows with an answer or an error, in shards that are being asked too."""
    running = 0 if batch.status in TERMINAL else batch.phi3.running or 0
    return batch.request_counts.completed + batch.request_counts.failed + running


def _outlook(batch: Batch, projected: Amount) -> str:
    """Of which rows a projection is, and what becomes of those for which there is no room."""
    budget, if_so = batch.phi3.budget, "if the others cost as much as those that are done"
    in_the_end = "in the end, if its other rows cost as much as those that are done"
    if budget is None:
        return in_the_end
    if budget.max_cost is not None and micros(projected) > micros(budget.max_cost):
        told = f"{budget.max_cost} {budget.currency or ''}".rstrip()
        return f"for all rows, {if_so}; {_beyond(batch, budget, told)}"
    if stands_at_cap(batch, budget):
        return f"for all rows, {if_so}, but no further call fits its cap"
    return in_the_end


def _beyond(batch: Batch, budget: BudgetStatus, cap: str) -> str:
    if stands_at_cap(batch, budget):
        return f"its cap is {cap}, and no further call fits"
    then = {
        "pause": ": it pauses when no further call fits",
        "stop": ": rows for which that leaves no room get no answer (budget_exceeded)",
    }
    return f"its cap is {cap}{then.get(budget.on_budget or '', '')}"


def _caps(budget: BudgetStatus) -> Iterator[tuple[str, str]]:
    if budget.max_cost is not None:
        cap = f"{budget.max_cost} {budget.currency or ''}".rstrip()
        name = "max_cost"
        if budget.of_month:
            name, cap = "of its month", f"it holds {cap}, the most that its rows can cost"
        yield name, _cap(cap, budget.cost_spent, budget.cost_reserved)
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


def stands_at_cap(batch: Batch, budget: BudgetStatus) -> bool:
    """Whether its own cap has paused it. One that waits for its tenant's month has asked nothing,
    and begins by itself.
    """
    waiting = batch.phi3.waiting or {}
    return batch.phi3.paused and waiting.get("reason") == "budget" and budget.tokens_spent > 0
