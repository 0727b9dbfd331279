"""Is a deployment out of order, or do the rows fail by themselves? A call of our own tells.

Where all that is asked fails with a fault that a row can cause, nothing else could tell an outage
from a job whose every row is at fault. So the deployment is asked for the least that it can be, one
token or one vector, at most once a minute by all processes: an answer shows that it is in order.
"""

import asyncio
import base64
import logging
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final

from schemas.deployments import Task
from schemas.outcomes import Outcome
from schemas.results import CallRecord
from workers.dispatch.breaker import OWN, PROBE_EVERY
from workers.dispatch.call import Gate
from workers.dispatch.lane import Lane, Ticket
from workers.dispatch.spending import Pledge
from workers.ports import Endpoint
from workers.ports.errors import WorkerError
from workers.quota.claims import ProbeClaims
from workers.rows.sizes import measure

log = logging.getLogger(__name__)


def _blank_png(side: int) -> str:
    """A black square as the data URL of a PNG; `side` in pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sum_ = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", sum_)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(3 * side)) * side, 9)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


# Not of one or three pixels: some models take such an image's height for its number of colours.
_IMAGE: Final = _blank_png(32)


def smallest(task: Task) -> Mapping[str, Any]:
    """The smallest request of a task: of the same one, for a deployment may do another still."""
    match task:
        case "chat":
            return {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        case "completions":
            return {"prompt": "Hi", "max_tokens": 1}
        case "embeddings":
            return {"input": "Hi"}
        case "image-embeddings":
            return {"input": [{"image": _IMAGE}]}


async def probe(
    lane: Lane, endpoint: Endpoint, task: Task, gate: Gate, claims: ProbeClaims | None
) -> CallRecord | None:
    """Ask a deployment for one token, within its quota, and let its lane learn from the answer.

    `claims` are as in `Dispatcher`. The result is the call as it is recorded, or None where no call
    can be made now.
    """
    body = smallest(task)
    clock, size = asyncio.get_running_loop().time, measure(task, body)
    admitted = await _admitted(lane, task, body, gate, claims)
    if admitted is None:
        return None
    ticket, pledge = admitted
    outcome: Outcome | None = None
    gate.unkept += 1
    try:
        outcome = await endpoint.ask(task, body)
    finally:
        if pledge is not None:
            pledge.settle(lane.name, outcome)
        # A refusal of the request tells of the request, and nothing of rows or deployment.
        if outcome is None or outcome.kind in ("bad_request", "content_filter"):
            lane.abandon(ticket, clock())
        else:
            lane.settle(ticket, outcome, job=OWN, size=size, row=OWN, now=clock())
    made = _record(lane, outcome, clock() - ticket.sent)
    gate.unkept -= not (made.billed or made.tokens)
    return made


def _record(lane: Lane, outcome: Outcome, seconds: float) -> CallRecord:
    return CallRecord(
        deployment=lane.name,
        kind="probe",
        status=outcome.status,
        waited=0.0,
        waited_for=None,
        seconds=round(seconds, 3),
        tokens=outcome.usage.total_tokens if outcome.usage is not None else 0,
        billed=outcome.billed,
    )


async def _admitted(
    lane: Lane, task: Task, body: Mapping[str, Any], gate: Gate, claims: ProbeClaims | None
) -> tuple[Ticket, Pledge | None] | None:
    """The call's ticket, with what it may cost set aside; None where none can be made now."""
    clock, tokens = asyncio.get_running_loop().time, lane.tokens(OWN, measure(task, body))
    if not lane.may_probe(tokens, clock()):
        return None
    pledge = None
    if gate.purse is not None:
        pledge = gate.purse.spare(task, body, [lane.name])
        if pledge is None:
            return None
    ticket: Ticket | None = None
    try:
        if await _may(lane, pledge, gate, claims):
            ticket = lane.probe(tokens, clock())
    finally:
        if ticket is None and pledge is not None:
            pledge.drop()
    return None if ticket is None else (ticket, pledge)


async def _may(lane: Lane, pledge: Pledge | None, gate: Gate, claims: ProbeClaims | None) -> bool:
    """Whether the call may be made, once what it may cost is durable and the minute is claimed."""
    clock, breaker = asyncio.get_running_loop().time, lane.breaker
    breaker.put_off(clock() + PROBE_EVERY)  # for the other calls that fail meanwhile
    try:
        if pledge is not None:
            await pledge.secure()
        left = 0.0 if claims is None else await claims.claim(lane.name, PROBE_EVERY)
    except WorkerError as error:
        log.debug("no call of our own to %s: %s", lane.name, error)
        return False
    if left > 0.0:
        breaker.put_off(clock() + left)
        return False
    return gate.closed is None and clock() < gate.until
