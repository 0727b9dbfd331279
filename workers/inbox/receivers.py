"""A tenant's receiver of webhooks: what is sent to it, and how many at a time."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from schemas.webhooks import Reception, Webhook, WebhookEvent
from workers.ports import WebhookSender
from workers.ports.errors import Outage
from workers.webhooks.addresses import ReceiverAddresses
from workers.webhooks.payload import body_of
from workers.webhooks.signing import signed

AT_ONCE: Final = 4
"""Webhooks that one receiver is sent at a time by one process."""
TURN_SECONDS: Final = 1.0
"""For which a webhook waits for its turn at a receiver, in a slot that others could use."""
AWAY_SECONDS: Final = (30.0, 300.0)
"""After which one that got no turn comes again: a slow receiver holds up its own tenant alone."""
SILENT_AWAY_SECONDS: Final = (600.0, 1800.0)
"""The same while the receiver does not answer."""


log = logging.getLogger(__name__)


class Receiver:
    """One tenant's receiver. A few webhooks are sent to it at a time, others have to come again.

    After `AT_ONCE` webhooks in a row without an answer it counts as silent. Until it answers, one
    webhook at a time asks whether it is back, and no other waits. The log has a line where it
    begins to fail, for its owner would learn of it a day later, and one where it takes them again.
    """

    def __init__(self, tenant: str, hook: Webhook, sender: WebhookSender) -> None:
        self._outage = Outage(log, f"the receiver of webhooks of tenant {tenant}")
        self._hook = hook
        self._sender = sender
        self._rule = ReceiverAddresses(hook.private, hook.secure)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._has_turn = 0
        self._unanswered = 0

    @property
    def away(self) -> tuple[float, float]:
        """The least and the most seconds after which one that got no turn comes again."""
        return SILENT_AWAY_SECONDS if self._silent else AWAY_SECONDS

    @property
    def _silent(self) -> bool:
        return self._unanswered >= AT_ONCE

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Whether a webhook may be sent while the block runs; False where no turn came in time."""
        if not await self._turn_came():
            yield False
            return
        self._has_turn += 1
        try:
            yield True
        finally:
            self._has_turn -= 1
            self._turns.release()

    async def _turn_came(self) -> bool:
        if self._silent and self._has_turn:
            return False
        try:
            async with asyncio.timeout(TURN_SECONDS):
                return await self._turns.acquire()
        except TimeoutError:
            return False

    async def send(self, event: WebhookEvent, clock: Callable[[], float]) -> Reception:
        """Send an event, signed now."""
        body = body_of(event)
        headers = signed(event.id, int(clock()), body, self._hook.keys)
        reception = await self._sender.post(self._hook.url, headers, body, self._rule)
        self._unanswered = self._unanswered + 1 if reception.status is None else 0
        if reception.taken:
            self._outage.passed(clock())
        else:
            self._outage.failed(reception.told, clock())
        return reception
