"""What one process tells of the deployments that it asks, and what it is told to try.

A word for each deployment in use: at each change of its breaker, else every 10 s; for all of them
while one of the process's own tasks keeps failing. Instances that
answer HTTP see no breaker of those that ask; what is written here is all that they know.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Final

from schemas.health import DeploymentHealth
from workers.dispatch.lane import Lane
from workers.ports.errors import Outage, WorkerError, being_cancelled
from workers.quota.health import HealthBoard

TELL_SECONDS: Final = 10.0
"""Seconds between words about a deployment that is in use."""
LOOK_SECONDS: Final = 1.0
"""Seconds between looks at whether a breaker has changed."""
PROBE_SECONDS: Final = 2.0
"""Seconds between looks for a wish to try, while a breaker is open."""
MEASURED_SECONDS: Final = 60.0
"""Seconds after which a word is too old to tell what is used now."""
CLOCKS_SECONDS: Final = 3.0
"""Seconds by which a wish may seem older than the breaker's opening and yet be of after it: the
service tells whole seconds, and its clock is another."""

log = logging.getLogger(__name__)


class Reporter:
    """Report this process's lanes. `moved` is called with the name of one that may go on.

    `failing` names the process's background tasks that keep failing.
    """

    def __init__(
        self,
        board: HealthBoard,
        process: str,
        *,
        wall: Callable[[], float],
        lanes: Callable[[], Iterable[Lane]],
        moved: Callable[[str], None],
        failing: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._board = board
        self._process = process
        self._wall = wall
        self._lanes = lanes
        self._moved = moved
        self._failing = failing

    async def run(self) -> None:
        """Tell, until cancelled. Storage that is out of reach is told of later."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes():
                group.create_task(self._kept(lane), name=f"health of {lane.name}")

    async def _kept(self, lane: Lane) -> None:
        try:
            await self._attend(lane)
        except asyncio.CancelledError as error:
            if being_cancelled():
                raise
            # A TaskGroup would take a task that ended so for one that is done.
            raise RuntimeError(f"telling of {lane.name} was cancelled from within") from error

    async def _attend(self, lane: Lane) -> None:
        told: DeploymentHealth | None = None
        outage = Outage(log, f"deployment {lane.name}")
        acted: str | None = None
        while True:
            await asyncio.sleep(LOOK_SECONDS if lane.breaker.state == "closed" else PROBE_SECONDS)
            _note(outage, lane)
            try:
                if self._waits(lane):
                    acted = await self._try(lane, acted)
                if self._due(lane, told):
                    health = self._health(lane, told)
                    if told is None:
                        await self._board.forget(lane.name, self._wall())
                    await self._board.tell(lane.name, self._process, health)
                    if told is not None and told.breaker != "closed" == health.breaker:
                        # The others would find out at the end of their own pauses.
                        await self._board.ask_probe(lane.name, self._wall())
                    told = health
            except WorkerError as error:
                log.debug("nothing is told of %s: %s", lane.name, error)

    def _due(self, lane: Lane, told: DeploymentHealth | None) -> bool:
        failing = tuple(self._failing())
        if told is None:
            return lane.calls > 0 or bool(failing)
        if told.breaker != lane.breaker.state or told.failing != failing:
            return True
        in_use = lane.calls > told.calls or self._waits(lane) or bool(failing)
        return in_use and self._wall() - told.at >= TELL_SECONDS

    def _waits(self, lane: Lane) -> bool:
        """Whether a breaker keeps calls away; one whose time is over lets the next one probe."""
        now = asyncio.get_running_loop().time()
        return lane.breaker.state == "open" and lane.breaker.open_until > now

    async def _try(self, lane: Lane, acted: str | None) -> str | None:
        """Let the open breaker take a call, if somebody wished so since it opened."""
        wish = await self._board.probe_asked(lane.name)
        if wish is None or wish[0] == acted:
            return acted
        now = asyncio.get_running_loop().time()
        opened = self._wall() - (now - lane.breaker.opened_at)
        if wish[1] > opened - CLOCKS_SECONDS and self._waits(lane):
            lane.breaker.retry(now)
            self._moved(lane.name)
        return wish[0]

    def _health(self, lane: Lane, told: DeploymentHealth | None) -> DeploymentHealth:
        now, breaker, at = asyncio.get_running_loop().time(), lane.breaker, self._wall()
        requests, tokens = used_since(told, lane, at)
        return DeploymentHealth(
            at=at,
            breaker=breaker.state,
            message=None if breaker.state == "closed" else breaker.said,
            until=at + breaker.open_until - now if self._waits(lane) else None,
            in_flight=lane.in_flight,
            guard=lane.guard.limit,
            calls=lane.calls,
            tokens=lane.tokens_used,
            requests_used=requests,
            tokens_used=tokens,
            refusals=lane.refusals,
            failing=tuple(self._failing()),
        )


def used_since(
    told: DeploymentHealth | None, lane: Lane, now: float
) -> tuple[float | None, float | None]:
    """Calls let through, and tokens, in a minute since a word was told; None where it is too old.

    A word that comes soon after another, because a breaker has changed, tells what that one did:
    a few calls in a moment are no rate.
    """
    seconds = now - told.at if told is not None else inf
    if told is None or seconds > MEASURED_SECONDS:
        return None, None
    if seconds < TELL_SECONDS / 2:
        return told.requests_used, told.tokens_used
    passed = lane.calls - lane.refusals - (told.calls - told.refusals)
    used = (passed, lane.tokens_used - told.tokens)
    requests, tokens = (round(60.0 * each / seconds, 1) for each in used)
    return requests, tokens


def _note(outage: Outage, lane: Lane) -> None:
    now = asyncio.get_running_loop().time()
    if lane.breaker.state == "closed":
        outage.passed(now)
    else:
        outage.failed(lane.breaker.said, now)
