"""What comes in on the queue `webhooks`: a job has ended, and its tenant's receiver is told."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from schemas.messages import WebhookMessage
from schemas.webhooks import Reception, Webhook, WebhookEvent
from workers.errors import NewerVersion, StorageError, Unavailable, Unreadable
from workers.jobs.outbox import Outbox
from workers.jobs.store import JobStore, load
from workers.ports import Received, WebhookSender
from workers.webhooks.addresses import ReceiverAddresses
from workers.webhooks.backoff import GivenUp, Later, judge
from workers.webhooks.payload import body_of, event_of
from workers.webhooks.signing import signed

AT_ONCE: Final = 4
"""Webhooks that one receiver is sent at a time by one process."""
TURN_SECONDS: Final = 1.0
"""For which a webhook waits for its turn at a receiver, in a slot that others could use."""
AWAY_SECONDS: Final = (5.0, 60.0)
"""After which one that got no turn comes again: a slow receiver holds up its own tenant alone."""

log = logging.getLogger(__name__)


class Receiver:
    """One tenant's receiver. A few webhooks are sent to it at a time, others have to come again."""

    def __init__(self, hook: Webhook, sender: WebhookSender) -> None:
        self._hook = hook
        self._sender = sender
        self._rule = ReceiverAddresses(hook.private, hook.secure)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def send(self, event: WebhookEvent, clock: Callable[[], float]) -> Reception | None:
        """Send an event, signed now. None where no turn came in time."""
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            return None
        try:
            body = body_of(event)
            headers = signed(event.id, int(clock()), body, self._hook.keys)
            return await self._sender.post(self._hook.url, headers, body, self._rule)
        finally:
            self._turns.release()


class WebhookInbox:
    """The reader of the queue `webhooks`. Handlers raise for bugs only.

    A webhook is told at least once: whoever dies over one is followed by another, who sends the
    same event with the same id.
    """

    def __init__(
        self,
        store: JobStore,
        outbox: Outbox,
        receivers: Mapping[str, Receiver],
        *,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._receivers = receivers
        self._clock = clock
        self._rng = rng

    async def run(self, received: Received) -> None:
        """Tell a receiver, and see to it that it is told again where it does not take it."""
        message = _read(received)
        if message is None:
            return
        try:
            found = await self._ended(message.job)
        except (Unavailable, StorageError, Unreadable, NewerVersion) as error:
            await self._follow(message, Reception(None, why=f"its job cannot be read ({error})"))
            return
        if found is not None:
            await self._tell(message, *found)

    async def dead(self, received: Received) -> None:
        """Take back a webhook over which workers died: it counts as one that was not taken."""
        message = _read(received)
        if message is not None:
            await self._follow(message, Reception(None, why="workers died over it"))

    async def _ended(self, job_id: str) -> tuple[Receiver, WebhookEvent] | None:
        """Who is told of a job, and what; None where one of both was deleted since."""
        job = await self._store.job(job_id)
        held = None if job is None else await self._store.state(job_id)
        event = None if job is None or held is None else event_of(job, held.state)
        receiver = None if job is None else self._receivers.get(job.tenant)
        return None if receiver is None or event is None else (receiver, event)

    async def _tell(self, message: WebhookMessage, receiver: Receiver, event: WebhookEvent) -> None:
        reception = await receiver.send(event, self._clock)
        if reception is None:
            later = self._clock() + self._rng.uniform(*AWAY_SECONDS)
            await self._outbox.repeat_webhook(message, at=later)
            return
        await self._follow(message, reception)

    async def _follow(self, message: WebhookMessage, reception: Reception) -> None:
        now, tries = self._clock(), message.tries + 1
        match judge(reception, tries=tries, since=message.since, now=now, rng=self._rng):
            case Later(at=at):
                log.info("the webhook of %s is tried again: %s", message.job, reception.told)
                again = message.model_copy(update={"tries": tries})
                await self._outbox.repeat_webhook(again, at=at)
            case GivenUp(why=why):
                log.warning(
                    "[WEBHOOK_GIVEN_UP] the webhook of %s is given up: %s", message.job, why
                )


def _read(received: Received) -> WebhookMessage | None:
    """A message on `webhooks`; None, with a word in the log, for anything else."""
    try:
        return load(WebhookMessage, received.body)
    except (Unreadable, NewerVersion) as error:
        log.warning("[WEBHOOK_UNREAD] message %s: %s", received.message_id, error)
        return None
