"""Does what a file is reckoned to take fit the caps of its job?"""

from collections.abc import Iterable, Sequence
from math import inf

from schemas.estimates import TokenRange
from schemas.estimating import MOST_ASKED, CapFit, Fits
from schemas.money import Amount, amount, micros


def own_caps(
    max_cost: Amount | None,
    max_total_tokens: int | None,
    tokens: Sequence[TokenRange],
    cost: tuple[Amount, Amount] | None,
) -> list[CapFit]:
    """Whether a file fits the caps that its job is to have.

    `tokens` are those of prompts and of answers, `cost` is the least and the most, or None where it
    is not known; the most is what calls may be pledged for, and not what they are reckoned to take.
    As many tokens as can be told stand for more.
    """
    found, bounded = [], all(each.most < MOST_ASKED for each in tokens)
    if max_cost is not None:
        money = micros(max_cost)
        ends = None if cost is None else (micros(cost[0]), micros(cost[1]) if bounded else inf)
        fits = _fits(ends, money)
        found.append(CapFit(cap="max_cost", limit=amount(money), left=amount(money), fits=fits))
    if max_total_tokens is not None:
        least, most = map(sum, zip(*tokens, strict=True))
        of = max_total_tokens
        fits = _fits((least, most if bounded else inf), of)
        found.append(CapFit(cap="max_total_tokens", limit=of, left=of, fits=fits))
    return found


def month_cap(reserves: tuple[float, float] | None, limit: int, left: int | None) -> CapFit:
    """Whether a month's cap has room for what a job reserves, at least and at most.

    Amounts are in millionths, None where nobody knows them.
    """
    return CapFit(
        cap="max_cost_per_month",
        limit=amount(limit),
        left=None if left is None else amount(left),
        fits=_fits(reserves, left),
    )


def failing(told: CapFit, reason: str) -> CapFit:
    """What is told of a cap where the job would fail by one on cost, by another cap for no room."""
    if told.cap == "max_total_tokens":
        return _doubted(told)
    return told.model_copy(update={"fits": "no", "reason": f"{told.cap} {reason}"})


def doubted(caps: Iterable[CapFit], max_cost: Amount | None) -> list[CapFit]:
    """What is told of caps where the file may hold more than was reckoned.

    In a month a job with a `max_cost` reserves that, whatever its file holds.
    """
    sure = None if max_cost is None else "max_cost_per_month"
    return [each if each.cap == sure else _doubted(each) for each in caps]


def _doubted(told: CapFit) -> CapFit:
    return told.model_copy(update={"fits": "perhaps"}) if told.fits == "yes" else told


def _fits(needs: tuple[float, float] | None, left: int | None) -> Fits:
    if needs is None or left is None:
        return "perhaps"
    least, most = needs
    if most <= left:
        return "yes"
    return "no" if least > left else "perhaps"
