"""What may calls have cost at the most that were billed, perhaps, and told no tokens?

Their requests bound it as those of a job with a cap bound what it pledges (`check_bounded`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from schemas.deployments import Task
from schemas.money import MILLION, PinnedPrice
from workers.rows.capped import check_bounded
from workers.rows.dialects import WrongRow
from workers.rows.packing import PACKED
from workers.rows.reading import Refusal, Request
from workers.rows.writing import RowResult, is_unmetered

Serving = Callable[[Task, str], Iterable[str]]
"""The names of the deployments that may be asked for a model's task."""


class Bounded(NamedTuple):
    """How many of them have a bound, and all bounds together, in millionths of the unit."""

    calls: int
    most: int


def bounded(
    results: Iterable[RowResult],
    rows: Sequence[Request | Refusal],
    prices: Mapping[str, PinnedPrice],
    *,
    cut_off: int,
    serving: Serving,
) -> Bounded:
    """Of what a shard's results tell of calls to deployments with a price, and of those cut off.

    Of the latter no result tells: each may have been any of the shard's, so that all of them have a
    bound or none has.
    """
    requests = {row: read for row, read in enumerate(rows) if isinstance(read, Request)}
    tokens = _most_tokens(requests)
    calls = most = 0
    for result in results:
        for call in filter(is_unmetered, result.use):
            price, bound = prices.get(call.deployment), tokens.get(result.row)
            if price is not None and bound is not None:
                calls += 1
                most += price.of(*bound)
    dearest = _dearest(requests, tokens, prices, serving) if cut_off else None
    if dearest is not None:
        calls += cut_off
        most += cut_off * dearest
    return Bounded(calls, -(-most // MILLION))


def _most_tokens(requests: Mapping[int, Request]) -> dict[int, tuple[int, int] | None]:
    """Of prompt and answer, by row; None where nothing bounds them.

    A call of packed rows is counted with one of them, and may have held all that can be packed.
    """
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
    requests: Mapping[int, Request],
    tokens: Mapping[int, tuple[int, int] | None],
    prices: Mapping[str, PinnedPrice],
    serving: Serving,
) -> int | None:
    """What any call of a shard may cost; None where one has no bound, or may have no price."""
    costs = []
    for row, request in requests.items():
        asked = serving(request.task, request.model or "")
        found, bound = [prices.get(name) for name in asked], tokens[row]
        if bound is None or None in found:
            return None
        costs += [price.of(*bound) for price in found if price is not None]
    return max(costs, default=None)
