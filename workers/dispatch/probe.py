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
from workers.quota.claims import Finding, ProbeClaims, Turn
from workers.rows.sizes import measure

_OF_THE_REQUEST: Final = ("bad_request", "content_filter")
"""Refusals that tell of the request, and nothing of rows or deployment."""
LOOK_AGAIN: Final = 10.0
"""Seconds between looks for what the call of another process came to."""

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

    `claims` are as in `Dispatcher`: what another process was answered the lane learns instead. The
    result is the call as it is recorded, or None where none was made.
    """
    return await _Probe(lane, endpoint, task, gate, claims).made()


class _Probe:
    """One such call, from the look whose turn it is until the others are told of its answer."""

    def __init__(
        self, lane: Lane, endpoint: Endpoint, task: Task, gate: Gate, claims: ProbeClaims | None
    ) -> None:
        self._lane = lane
        self._endpoint = endpoint
        self._task = task
        self._gate = gate
        self._claims = claims
        self._body = smallest(task)
        self._size = measure(task, self._body)
        self._clock = asyncio.get_running_loop().time
        self._etag = ""
        """That of the claim."""

    async def made(self) -> CallRecord | None:
        """The call as it is recorded, or None where none can be made now."""
        turn = await self._turn()
        admitted = None if turn is None else await self._admitted(turn)
        if admitted is None:
            return None
        ticket, pledge = admitted
        lane, gate = self._lane, self._gate
        outcome: Outcome | None = None
        gate.unkept += 1
        try:
            outcome = await self._endpoint.ask(self._task, self._body)
        finally:
            if pledge is not None:
                pledge.settle(lane.name, outcome)
            now = self._clock()
            if outcome is None or outcome.kind in _OF_THE_REQUEST:
                lane.abandon(ticket, now)
            else:
                lane.settle(ticket, outcome, job=OWN, size=self._size, row=OWN, now=now)
        made = _record(lane, outcome, now - ticket.sent)
        await self._tell(outcome, ticket.sent)
        gate.unkept -= not (made.billed or made.tokens)
        return made

    async def _turn(self) -> Turn | None:
        """The turn to ask, if it is ours; else the lane learns what another was answered."""
        if self._claims is None:
            return Turn(0.0)
        breaker = self._lane.breaker
        breaker.put_off(self._clock() + LOOK_AGAIN)  # for the other calls that fail meanwhile
        try:
            turn = await self._claims.look(self._lane.deployment, self._task, PROBE_EVERY)
        except WorkerError as error:
            log.debug("whose turn it is to ask %s is not known: %s", self._lane.name, error)
            return None
        if turn.finding is not None:
            breaker.heard(turn.finding.answered, turn.finding.sent, self._clock())
        wait = turn.left if turn.finding is not None else min(turn.left, LOOK_AGAIN)
        breaker.put_off(self._clock() + wait)
        return None if turn.left > 0.0 else turn

    async def _admitted(self, turn: Turn) -> tuple[Ticket, Pledge | None] | None:
        """The call's ticket, with what it may cost set aside; None where none can be made now."""
        lane, gate, pledge = self._lane, self._gate, None
        tokens = lane.tokens(OWN, self._size)
        lane.breaker.put_off(self._clock() + LOOK_AGAIN)  # or each row that fails would look
        if not lane.may_probe(tokens, self._clock()):
            return None
        if gate.purse is not None:
            pledge = gate.purse.spare(self._task, self._body, [lane.name])
            if pledge is None:
                return None
        ticket: Ticket | None = None
        try:
            if await self._claimed(turn, pledge):
                ticket = lane.probe(tokens, self._clock())
        finally:
            if ticket is None and pledge is not None:
                pledge.drop()
        return None if ticket is None else (ticket, pledge)

    async def _claimed(self, turn: Turn, pledge: Pledge | None) -> bool:
        """Whether the call may go, once what it may cost is durable and the minute is claimed."""
        lane, gate = self._lane, self._gate
        lane.breaker.put_off(self._clock() + PROBE_EVERY)
        try:
            if pledge is not None:
                await pledge.secure()
            if self._claims is not None:
                self._etag = await self._claims.claim(lane.deployment, turn)
        except WorkerError as error:
            log.debug("no call of our own to %s: %s", lane.name, error)
            lane.breaker.put_off(self._clock() + LOOK_AGAIN)
            return False
        return gate.closed is None and self._clock() < gate.until

    async def _tell(self, outcome: Outcome, sent: float) -> None:
        """Tell the other processes what the call came to, if it says anything of the deployment."""
        if self._claims is None or outcome.kind in ("throttled", *_OF_THE_REQUEST):
            return
        finding = Finding(outcome.kind == "ok", sent)
        if not finding.answered and outcome.status is None:
            # Its way to the endpoint may be to blame, so that others come to their turn first.
            self._lane.breaker.put_off(self._clock() + 2.0 * PROBE_EVERY)
        try:
            await self._claims.tell(self._lane.deployment, self._task, self._etag, finding)
        except WorkerError as error:
            log.debug("what %s answered to our own call is not told: %s", self._lane.name, error)


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
