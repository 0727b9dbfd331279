"""When does a process take, keep and give back its share of each quota?

It takes part in the ledger of a deployment only while it has work for it: the first call starts
the first round at once, rounds follow while there is work, and the share goes back soon after.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from workers.dispatch.lane import Lane
from workers.errors import WorkerError
from workers.quota.allowance import DAY, Grant
from workers.quota.ledger import Ledger

log = logging.getLogger(__name__)

LINGER = 2.0
"""Seconds without work after which a share is given back."""
PAUSE = 5.0
"""Seconds after a fault that nobody expected."""
LOOK = 0.5
"""Seconds between looks at whether there is still work."""


class Funding:
    """Keeps the shares of all limited lanes. `pump` is called when a lane may go on."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        pump: Callable[[Lane], None],
        jobs: Callable[[Lane], Mapping[str, float]],
        queued: Callable[[Lane], int],
    ) -> None:
        self._ledger = ledger
        self._pump = pump
        self._jobs = jobs
        self._queued = queued
        self._lanes: dict[str, tuple[Lane, asyncio.Event]] = {}
        self._asked: dict[str, Mapping[str, float]] = {}
        self._running = False

    def add(self, lane: Lane) -> None:
        """Share this lane's quota from now on."""
        self._lanes[lane.name] = (lane, asyncio.Event())

    def wanted(self, lane: Lane) -> None:
        """There is work for a lane. While nobody runs the rounds it goes on carefully alone."""
        kept = self._lanes.get(lane.name)
        if kept is None:
            return
        kept[1].set()
        if not self._running:
            lane.ledger_lost(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Keep the shares, until cancelled; then give them back."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                for lane, busy in self._lanes.values():
                    group.create_task(self._keep(lane, busy), name=f"share of {lane.name}")
                await asyncio.Event().wait()
        finally:
            self._running = False

    async def _keep(self, lane: Lane, busy: asyncio.Event) -> None:
        while True:
            await busy.wait()
            try:
                try:
                    await self._hold(lane)
                finally:
                    await self._give_back(lane)
            except Exception:
                # Whatever is wrong with one ledger must not end the others' rounds.
                log.exception("the rounds for %s failed", lane.name)
                lane.ledger_lost(asyncio.get_running_loop().time())
                self._pump(lane)
                await asyncio.sleep(PAUSE)
            # No await between the last look at the lane and this: no call can be overlooked.
            if not self._has_work(lane):
                busy.clear()

    async def _hold(self, lane: Lane) -> None:
        """One round after the other, while there is work."""
        while self._has_work(lane):
            told = sum(self._asking(lane).values())
            grant = await self._round(lane)
            left = self._ledger.interval(grant)
            while left > 0.0 and self._has_work(lane):
                await asyncio.sleep(min(LOOK, left))
                # A job that weighs more than all before need not wait for the next round.
                left = 0.0 if sum(self._asking(lane).values()) > 2.0 * told else left - LOOK

    def _asking(self, lane: Lane) -> Mapping[str, float]:
        """The jobs, by weight; between two calls those that were asked last."""
        jobs = self._jobs(lane)
        if jobs:
            self._asked[lane.name] = jobs
        return self._asked.get(lane.name, jobs)

    async def _round(self, lane: Lane) -> Grant | None:
        loop = asyncio.get_running_loop()
        wish = lane.wish(self._asking(lane), self._queued(lane), loop.time())
        try:
            done = await self._ledger.renew(
                lane.name, wish, lambda share: lane.lower(share, loop.time())
            )
        except WorkerError as error:
            log.warning("no share of %s from the ledger: %s", lane.name, error)
            lane.ledger_lost(loop.time())
            self._pump(lane)
            return None
        now = loop.time()
        # Where a front end is still before midnight, the ledger may be a day ahead of it.
        date = max(done.server_time // DAY, done.grant.date)
        midnight = now + (date + 1) * DAY - done.server_time
        lane.fund(done.grant, done.told, midnight, now)
        self._pump(lane)
        return done.grant

    async def _give_back(self, lane: Lane) -> None:
        loop = asyncio.get_running_loop()
        wish = lane.wish(self._asking(lane), self._queued(lane), loop.time(), leaving=True)
        lane.released()
        try:
            await self._ledger.leave(lane.name, wish)
        except WorkerError as error:
            log.info("the share of %s runs out by itself: %s", lane.name, error)

    def _has_work(self, lane: Lane) -> bool:
        now = asyncio.get_running_loop().time()
        return lane.in_flight > 0 or self._queued(lane) > 0 or now - lane.used_at < LINGER
