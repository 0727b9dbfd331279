"""Does what a file is reckoned to take fit the caps of its job?"""

from collections.abc import Sequence

from schemas.estimates import TokenRange
from schemas.estimating import CapFit, Fits
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
    """
    found = []
    if max_cost is not None:
        money = micros(max_cost)
        fits = _fits(None if cost is None else (micros(cost[0]), micros(cost[1])), money)
        found.append(CapFit(cap="max_cost", limit=amount(money), left=amount(money), fits=fits))
    if max_total_tokens is not None:
        least, most = map(sum, zip(*tokens, strict=True))
        fits, of = _fits((least, most), max_total_tokens), max_total_tokens
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
    """What is told of a cap on cost where the job would fail by it; another cap stays as it is."""
    if told.cap == "max_total_tokens":
        return told
    return told.model_copy(update={"fits": "no", "reason": f"{told.cap} {reason}"})


def _fits(needs: tuple[float, float] | None, left: int | None) -> Fits:
    if needs is None or left is None:
        return "perhaps"
    least, most = needs
    if most <= left:
        return "yes"
    return "no" if least > left else "perhaps"
