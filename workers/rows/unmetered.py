"""What may calls have cost at the most that were billed, perhaps, and told no tokens?

Their requests bound it as those of a job with a cap bound what it pledges (`check_bounded`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from schemas.deployments import Task
from schemas.money import MILLION, MOST_CAP, PinnedPrice
from schemas.results import Lost
from workers.rows.capped import check_bounded
from workers.rows.dialects import WrongRow
from workers.rows.packing import PACKED
from workers.rows.reading import Refusal, Request
from workers.rows.writing import RowResult, is_unmetered

Serving = Callable[[Task, str], Iterable[str]]
"""The names of the deployments that may be asked for a model's task."""


MOST_BOUND: Final = MOST_CAP * MILLION
"""Millionths beyond which a bound is none: sums of them have to fit 64 bits, and no cap is more."""


def bounded(
    results: Iterable[RowResult],
    rows: Sequence[Request | Refusal],
    prices: Mapping[str, PinnedPrice],
) -> Lost:
    """What a shard's results tell of calls to deployments with a price: how many have a bound, and
    what all of those come to.
    """
    tokens = _most_tokens(rows)
    calls = most = 0
    for result in results:
        for call in filter(is_unmetered, result.use):
            price, bound = prices.get(call.deployment), tokens.get(result.row)
            if price is not None and bound is not None:
                calls += 1
                most += price.of(*bound)
    return _lost(0, calls, most)


def cut_off(
    calls: int,
    rows: Sequence[Request | Refusal],
    prices: Mapping[str, PinnedPrice],
    serving: Serving,
) -> Lost:
    """Calls of an attempt at a shard of which no result tells, and what they may have cost.

    Each may have been any of the shard's: all of them have a bound, or none has. Only the process
    that made them can tell, for another may know other deployments.
    """
    dearest = _dearest(rows, prices, serving) if calls and prices else None
    return Lost(calls=calls) if dearest is None else _lost(calls, calls, calls * dearest)


def _lost(calls: int, with_bound: int, picos: int) -> Lost:
    most = -(-picos // MILLION)
    if most > MOST_BOUND:
        return Lost(calls=calls)
    return Lost(calls=calls, bounded=with_bound, most=most)


def _most_tokens(rows: Sequence[Request | Refusal]) -> dict[int, tuple[int, int] | None]:
    """Of prompt and answer, by row; None where nothing bounds them.

    A call of packed rows is counted with one of them, and may have held all that can be packed.
    """
    requests = {row: read for row, read in enumerate(rows) if isinstance(read, Request)}
    found = {row: _of_request(request) for row, request in requests.items()}
    packs: dict[tuple[Task, str | None], list[int]] = {}
    for row, request in requests.items():
        if request.task in PACKED:
            packs.setdefault((request.task, request.model), []).append(row)
    for pack in packs.values():
        prompts = [bound[0] for row in pack if (bound := found[row]) is not None]
        whole = (sum(prompts), 0) if len(prompts) == len(pack) else None
        found |= dict.fromkeys(pack, whole)
    return found


def _of_request(request: Request) -> tuple[int, int] | None:
    try:
        return check_bounded(request.task, request.body)
    except WrongRow:
        return None


def _dearest(
    rows: Sequence[Request | Refusal], prices: Mapping[str, PinnedPrice], serving: Serving
) -> int | None:
    """What any call of a shard may cost; None where one has no bound, or may have no price."""
    costs, tokens = [], _most_tokens(rows)
    for row, request in enumerate(rows):
        if isinstance(request, Refusal):
            continue
        found = [prices.get(name) for name in serving(request.task, request.model or "")]
        bound = tokens[row]
        if bound is None or None in found:
            return None
        costs += [price.of(*bound) for price in found if price is not None]
    return max(costs, default=None)
