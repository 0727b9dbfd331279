"""What a job's calls cost, of their tokens and the prices that were pinned with it."""

from collections.abc import Iterable, Mapping

from schemas.budgets import JobBudget
from schemas.jobs import Job, JobState
from schemas.money import MILLION, Cost, PinnedPrice, amount, micros
from schemas.results import NOTHING_LOST, CodeCount, Lost, ShardTokens, Use
from workers.jobs import budget


def cost_so_far(job: Job, state: JobState | None) -> Cost | None:
    """What the calls of a job with prices cost up to now; None where none that was told has one.

    Shards that are out may have asked more than was told of them: at most it costs what a cap
    leaves for it, and nobody knows where there is none.
    """
    if state is None:
        return cost_of({}, job.prices)
    cost = _told(job, state)
    if cost.unpriced_calls and not micros(cost.counted):
        return None
    told = None if state.budget is None else budget.status(state.budget, job.options)
    if told is not None and told.cost_spent is not None and told.cost_reserved is not None:
        most = micros(told.cost_spent) + micros(told.cost_reserved)
        return cost.model_copy(update={"at_most": amount(max(micros(cost.counted), most))})
    asked = state.next > 0 and not state.terminal
    return cost.model_copy(update={"at_most": None}) if asked else cost


def _told(job: Job, state: JobState) -> Cost:
    """What is told of calls, in shards that are out too."""
    out = state.running_tokens
    cost = cost_of(state.use, job.prices, state.lost, sum(each.cost for each in out))
    unpriced = sum(_in_part_unpriced(each, job.prices) for each in out)
    return cost.model_copy(update={"unpriced_calls": cost.unpriced_calls + unpriced})


def _in_part_unpriced(told: ShardTokens, prices: Mapping[str, PinnedPrice]) -> bool:
    """Whether tokens cost less than at the cheapest prices: some call at least had none."""
    read = min(price.input for price in prices.values())
    written = min(price.output for price in prices.values())
    return told.cost < told.prompt * read + told.completion * written


def cost_of(
    use: Mapping[str, Use],
    prices: Mapping[str, PinnedPrice],
    lost: Lost = NOTHING_LOST,
    more: int = 0,
) -> Cost:
    """The cost of calls by deployment, at one price at least; where none is known, nobody asks.

    `lost` and `more`, in millionths of a millionth, are what is not among them.
    """
    # Millionths for a million tokens, times tokens: divided once, at the end.
    total, unmetered, unpriced, unknown = more, lost.calls, 0, lost.crashes > 0
    for name, used in use.items():
        price = prices.get(name)
        if price is None:
            answered = used.outcomes.get("ok", 0) or int(used.tokens > 0)
            unpriced += max(answered, used.unmetered_calls)
            continue
        # What 0.1.0 counted is not told apart: it counts as what costs more.
        rest = used.tokens - used.prompt_tokens - used.completion_tokens
        total += price.of(used.prompt_tokens, used.completion_tokens)
        total += max(0, rest) * max(price.input, price.output)
        unknown |= rest > 0  # nor does 0.1.0 tell of calls without tokens
        unmetered += used.unmetered_calls
    counted = -(-total // MILLION)
    unknown |= unmetered > lost.bounded or unpriced > 0
    most = None if unknown else counted + lost.most
    return Cost(
        currency=next(iter(prices.values())).currency,
        counted=amount(counted),
        at_most=None if most is None else amount(most),
        unmetered_calls=unmetered,
        unpriced_calls=unpriced,
        crashes=lost.crashes,
    )


def projected_cost(cost: Cost, state: JobState) -> str | None:
    """What a job will have cost once all its rows are asked, if they go on as they did.

    No cap is looked at: where it is lower, that is what people are to see. The result is None
    before a row has been asked to its end, where nothing is left to be asked, and where a price is
    missing.
    """
    if cost.unpriced_calls:
        return None
    whole = _projected(micros(cost.counted), state)
    return None if whole is None else amount(whole)


def projected_tokens(held: JobBudget, state: JobState) -> int | None:
    """The tokens that count against the cap of a job once all its rows are asked, likewise."""
    if held.max_tokens is None:
        return None
    running = sum(each.prompt + each.completion for each in state.running_tokens)
    return _projected(held.spent.tokens + running, state)


def _projected(so_far: int, state: JobState) -> int | None:
    """What all rows take of something of which those that were asked took so much."""
    out = {each.shard for each in state.running_tokens}
    running = sum(rows for shard, rows in state.running if shard in out)
    asked, left = state.counts.asked + running, state.counts.total - state.counts.done - running
    if not asked or left <= 0 or state.ending is not None:
        return None
    # Rows for which the cap had no room would have been asked like the others.
    short = state.codes.get("budget_exceeded", CodeCount()).rows
    return so_far + -(-so_far * (left + short) // asked)


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
        crashes=one.crashes + other.crashes,
    )
