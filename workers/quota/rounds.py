"""When does a process take, keep and give back its share of each quota?

It takes part in the ledger of a deployment only while it has work for it: the first call starts
the first round at once, rounds follow while there is work, and the share goes back soon after.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from workers.ports.errors import Outage, WorkerError, being_cancelled
from workers.quota.allowance import DAY, Allowance, Grant
from workers.quota.ledger import Ledger
from workers.quota.weights import JobWeights

log = logging.getLogger(__name__)

LINGER = 2.0
"""Seconds without work after which a share is given back."""
PAUSE = 5.0
"""Seconds after a fault that nobody expected."""
LOOK = 0.1
"""Seconds between looks at whether there is still work."""


class Account(Protocol):
    """One deployment as this process uses it: its allowance, and whether it is in use."""

    name: str
    allowance: Allowance
    in_flight: int
    used_at: float

    @property
    def full(self) -> bool:
        """Whether no call may go before one of those in flight has ended."""


class Rounds:
    """Keeps the shares of all accounts.

    `moved` is called with the name of a deployment that may go on; `asked` gives the jobs that this
    process asks there, `queued` how many of their calls wait.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        moved: Callable[[str], None],
        asked: Callable[[str], JobWeights],
        queued: Callable[[str], int],
    ) -> None:
        self._ledger = ledger
        self._moved = moved
        self._asked = asked
        self._queued = queued
        self._accounts: dict[str, tuple[Account, asyncio.Event]] = {}
        self._lately: dict[str, JobWeights] = {}
        self._outages: dict[str, Outage] = {}
        self._running = False

    def add(self, account: Account) -> None:
        """Keep the share of this account from now on."""
        self._accounts[account.name] = (account, asyncio.Event())
        self._outages[account.name] = Outage(log, f"the quota ledger of {account.name}")

    def wanted(self, account: Account) -> None:
        """Note that there is work. While nobody runs the rounds, the safe share is used."""
        kept = self._accounts.get(account.name)
        if kept is None:
            return
        kept[1].set()
        if not self._running:
            account.allowance.ledger_lost(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Keep the shares, until cancelled; then give them back."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                for account, busy in self._accounts.values():
                    group.create_task(self._keep(account, busy), name=f"share of {account.name}")
                await asyncio.Event().wait()
        finally:
            self._running = False

    async def _keep(self, account: Account, busy: asyncio.Event) -> None:
        while True:
            await busy.wait()
            try:
                try:
                    await self._hold(account)
                finally:
                    await self._give_back(account)
            except (Exception, asyncio.CancelledError):
                if being_cancelled():
                    raise
                # Whatever is wrong with one ledger must not end the others' rounds.
                log.exception("[QUOTA_BUG] the rounds for %s failed", account.name)
                account.allowance.ledger_lost(asyncio.get_running_loop().time())
                self._moved(account.name)
                await asyncio.sleep(PAUSE)
            # No await between the last look at the account and this: no call can be overlooked.
            if not self._has_work(account):
                busy.clear()

    async def _hold(self, account: Account) -> None:
        """One round after the other, while there is work."""
        while self._has_work(account):
            told, waited = self._asking(account).weight, self._queued(account.name) > 0
            grant = await self._round(account)
            left = self._ledger.interval(grant)
            while left > 0.0 and self._has_work(account):
                await asyncio.sleep(min(LOOK, left))
                # Neither a job that weighs more than all before, nor a share whose last call has
                # gone, nor calls that come when none waited, need wait for the next round.
                heavier = self._asking(account).weight > 2.0 * told
                turned = waited != (self._queued(account.name) > 0)
                left = 0.0 if heavier or turned else left - LOOK

    def _asking(self, account: Account) -> JobWeights:
        """The jobs that are asked; between two calls those that were asked last."""
        asked = self._asked(account.name)
        if asked.jobs:
            self._lately[account.name] = asked
        return self._lately.get(account.name, asked)

    async def _round(self, account: Account) -> Grant | None:
        loop, mine = asyncio.get_running_loop(), account.allowance
        made = loop.time()
        asked, queued = self._asking(account), self._queued(account.name)
        wish = mine.wish(asked, queued, made, full=account.full)

        def meanwhile(share: float, until: float | None) -> None:
            mine.use_meanwhile(share, until, loop.time())
            self._moved(account.name)

        try:
            done = await self._ledger.renew(account.name, wish, meanwhile)
        except WorkerError as error:
            self._outages[account.name].failed(error, loop.time(), made)
            mine.rounds_failed += 1
            mine.ledger_lost(loop.time())
            self._moved(account.name)
            return None
        now = loop.time()
        self._outages[account.name].passed(now)
        # Where a front end is still before midnight, the ledger may be a day ahead of it.
        date = max(done.server_time // DAY, done.grant.date)
        midnight = now + (date + 1) * DAY - done.server_time
        mine.fund(done.grant, done.told, midnight, now)
        self._moved(account.name)
        return done.grant

    async def _give_back(self, account: Account) -> None:
        mine, now = account.allowance, asyncio.get_running_loop().time()
        wish = mine.wish(self._asking(account), self._queued(account.name), now, leaving=True)
        mine.release()
        try:
            await self._ledger.leave(account.name, wish)
        except WorkerError as error:
            log.info("the share of %s runs out by itself: %s", account.name, error)

    def _has_work(self, account: Account) -> bool:
        now = asyncio.get_running_loop().time()
        return (
            account.in_flight > 0
            or self._queued(account.name) > 0
            or now - account.used_at < LINGER
        )
