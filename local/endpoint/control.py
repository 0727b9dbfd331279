"""How is a running simulator looked at and changed? The surface under /simulator/."""

from typing import Any

import orjson
from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from .delivery import whole
from .faults import read_rules
from .limits import Limits
from .simulator import Simulator

PREFIX = "/simulator/"

_CHANGES = TypeAdapter(dict[str, int])
_KEY = TypeAdapter(str | None)


def report(simulator: Simulator, *, rows: bool = False) -> dict[str, Any]:
    """All that is known of a run; `rows` adds the counts of each row by its key."""
    settings = simulator.settings
    limits = {name: getattr(simulator.limits, name) for name in Limits.__slots__}
    told: dict[str, Any] = {
        "profile": settings.profile,
        "seed": settings.seed,
        "elapsed": round(simulator.elapsed, 3),
        "limits": limits,
        **simulator.counts.stats(),
    }
    if rows:
        told["billed"] = simulator.counts.billed()
        told["unanswered"] = simulator.counts.unanswered()
    return told


async def handle(simulator: Simulator, request: web.BaseRequest) -> web.StreamResponse:
    """Answer a request of the control surface; a mistake gets a 400 that names it."""
    match request.method, request.path.removeprefix(PREFIX):
        case "GET", "stats":
            return _json(report(simulator, rows=request.query.get("rows") == "1"))
        case "POST", "reset":
            simulator.reset()
        case "POST", "faults":
            try:
                simulator.set_faults(read_rules(orjson.loads(await request.read())))
            except (orjson.JSONDecodeError, ValidationError) as error:
                return _json({"error": str(error)}, 400)
        case "POST", "limits":
            try:
                changes = _CHANGES.validate_json(await request.read())
                simulator.set_limits(changed(simulator.limits, changes))
            except (ValidationError, ValueError) as error:
                return _json({"error": str(error)}, 400)
        case "POST", "key":
            try:
                simulator.key = _KEY.validate_json(await request.read())
            except ValidationError as error:
                return _json({"error": str(error)}, 400)
        case _:
            return _json({"error": "GET stats; POST faults, key, limits or reset"}, 404)
    return _json({"done": True})


def changed(limits: Limits, changes: dict[str, int]) -> Limits:
    """The limits with some replaced. Raises ValueError for an unknown name or a bad value."""
    own = {name: getattr(limits, name) for name in Limits.__slots__}
    unknown = changes.keys() - own.keys()
    if unknown:
        raise ValueError(f"unknown limits {sorted(unknown)}; there are {sorted(own)}")
    return Limits(**(own | changes))


def _json(value: object, status: int = 200) -> web.Response:
    return whole(orjson.dumps(value), {"x-simulated": "true"}, status)
