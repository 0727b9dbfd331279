"""What a job's calls cost, of their tokens and the prices that were pinned with it."""

from collections.abc import Iterable, Mapping

from schemas.money import MILLION, Cost, PinnedPrice, amount, micros
from schemas.results import Counts, Use


def cost_of(use: Mapping[str, Use], prices: Mapping[str, PinnedPrice], succeeded: int = 0) -> Cost:
    """The cost of calls by deployment, at one price at least; where none is known, nobody asks.

    `succeeded` are the rows that those calls answered: each took a call that went well.
    """
    # Millionths for a million tokens, times tokens: divided once, at the end.
    total, unmetered, unpriced = 0, 0, 0
    for name, used in use.items():
        price = prices.get(name)
        if price is None:
            unpriced += used.outcomes.get("ok", 0) or int(used.tokens > 0)
            continue
        # What 0.1.0 counted is not told apart: it counts as what costs more.
        rest = used.tokens - used.prompt_tokens - used.completion_tokens
        total += price.of(used.prompt_tokens, used.completion_tokens)
        total += max(0, rest) * max(price.input, price.output)
        unmetered += used.unmetered_calls
    # A swap by 0.1.0 empties what a state knows of calls: those are missing here.
    unmetered += max(0, succeeded - sum(used.outcomes.get("ok", 0) for used in use.values()))
    counted = amount(-(-total // MILLION))
    return Cost(
        currency=next(iter(prices.values())).currency,
        counted=counted,
        at_most=None if unmetered or unpriced else counted,
        unmetered_calls=unmetered,
        unpriced_calls=unpriced,
    )


def projected(cost: Cost, counts: Counts) -> str | None:
    """What a job will have cost once all its rows are asked, if they go on as they did.

    None before a row has been asked to its end, or where nothing is left to be asked.
    """
    left = counts.total - counts.done
    if not counts.asked or left <= 0:
        return None
    counted = micros(cost.counted)
    return amount(counted + -(-counted * left // counts.asked))


def summed(costs: Iterable[Cost]) -> tuple[Cost, ...]:
    """Costs as one for each currency."""
    found: dict[str, Cost] = {}
    for cost in costs:
        known = found.get(cost.currency)
        found[cost.currency] = cost if known is None else _both(known, cost)
    return tuple(found[currency] for currency in sorted(found))


def _both(one: Cost, other: Cost) -> Cost:
    bound = (one.at_most, other.at_most)
    return Cost(
        currency=one.currency,
        counted=amount(micros(one.counted) + micros(other.counted)),
        at_most=None if None in bound else amount(sum(micros(each) for each in bound if each)),
        unmetered_calls=one.unmetered_calls + other.unmetered_calls,
        unpriced_calls=one.unpriced_calls + other.unpriced_calls,
    )
