"""What comes in on the queue `webhooks`: a job has ended, and its tenant's receiver is told."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Final

from schemas.jobs import Job
from schemas.messages import WebhookMessage
from schemas.webhooks import Reception, WebhookEvent
from workers.inbox.receivers import SILENT_AWAY_SECONDS, Receiver
from workers.jobs.outbox import SINCE, WEBHOOKS, Outbox
from workers.jobs.store import JobStore, load
from workers.ports import Received
from workers.ports.errors import NewerVersion, StorageError, Unavailable, Unreadable
from workers.ports.telemetry import Handling, Telemetry
from workers.webhooks.backoff import GivenUp, Later, judge
from workers.webhooks.payload import event_of

UNSENT_SECONDS: Final = 30.0
"""For which a message that the bus did not take back keeps its handler: it comes again at once."""

log = logging.getLogger(__name__)


class WebhookInbox:
    """The reader of the queue `webhooks`. Handlers raise where the bus takes no message: then the
    one in hand comes again, `UNSENT_SECONDS` after it was told at the soonest. All else is a bug.

    A webhook is told at least once: whoever dies over one is followed by another, who sends the
    same event with the same id.
    """

    def __init__(
        self,
        store: JobStore,
        outbox: Outbox,
        receivers: Mapping[str, Receiver],
        *,
        telemetry: Telemetry,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._receivers = receivers
        self._telemetry = telemetry
        self._clock = clock
        self._rng = rng

    async def run(self, received: Received) -> None:
        """Tell a receiver, and see to it that it is told again where it does not take it."""
        with self._telemetry.handling(WEBHOOKS, received) as handling:
            await self._run(received, handling)

    async def _run(self, received: Received, handling: Handling) -> None:
        message = await self._read(received)
        if message is None:
            return
        receiver = self._receivers.get(message.tenant)
        if receiver is None:
            unknown = Reception(None, why="this worker's WEBHOOKS has none of its tenant")
            await self._follow(received, message, unknown)
            return
        async with receiver.turn() as has_turn:
            reception = await self._told(message, receiver, handling) if has_turn else None
        if not has_turn:
            wait = self._rng.uniform(*receiver.away)
            none = Reception(None, retry_after=wait, why="its receiver is too slow for all of them")
            await self._follow(received, message, none, told=False)
        elif reception is not None:
            await self._follow(received, message, reception)

    async def dead(self, received: Received) -> None:
        """Take back a webhook that nobody could handle: it counts as one that was not taken."""
        self._telemetry.dead_letter(WEBHOOKS)
        message = await self._read(received)
        if message is not None:
            failed = Reception(None, why="it lay too long, or its worker died each time")
            await self._follow(received, message, failed)

    async def _told(
        self, message: WebhookMessage, receiver: Receiver, handling: Handling
    ) -> Reception | None:
        """What a receiver makes of a webhook; None where its job was deleted since."""
        try:
            handling.job = await self._store.job(message.job)
            event = await self._ended(handling.job)
        except (Unavailable, StorageError, Unreadable, NewerVersion) as error:
            return Reception(None, why=f"its job cannot be read ({error})")
        return None if event is None else await receiver.send(event, self._clock)

    async def _ended(self, job: Job | None) -> WebhookEvent | None:
        held = None if job is None else await self._store.state(job.id)
        return None if job is None or held is None else event_of(job, held.state)

    async def _follow(
        self,
        received: Received,
        message: WebhookMessage,
        reception: Reception,
        *,
        told: bool = True,
    ) -> None:
        """Do what follows; `told`: it counts as a try."""
        now, tries = self._clock(), message.tries + told
        match judge(reception, tries=tries, since=message.since, now=now, rng=self._rng):
            case Later(at=at):
                log.info("the webhook of %s is tried again: %s", message.job, reception.told)
                retried = message.model_copy(update={"tries": tries})
                trace = received.traceparent
                await self._kept(self._outbox.put_webhook(retried, at=at, trace=trace))
            case GivenUp(why=why):
                _give_up(f"of {message.job}", why)

    async def _read(self, received: Received) -> WebhookMessage | None:
        """A message on `webhooks`; None for anything else.

        What a newer version has sent is put back for one of its workers, the rest is dropped with
        a line in the log.
        """
        try:
            return load(WebhookMessage, received.body)
        except Unreadable as error:
            log.warning("[WEBHOOK_UNREAD] message %s: %s", received.message_id, error)
        except NewerVersion as error:
            await self._put_back(received, str(error))
        return None

    async def _put_back(self, received: Received, why: str) -> None:
        now = self._clock()
        since = _since(received, now)
        wait = self._rng.uniform(*SILENT_AWAY_SECONDS)
        unread = Reception(None, retry_after=wait, why=why)
        match judge(unread, tries=1, since=since, now=now, rng=self._rng):
            case Later(at=at):
                log.info("the webhook in message %s is put back: %s", received.message_id, why)
                await self._kept(self._outbox.put_back_webhook(received, since=since, at=at))
            case GivenUp(why=why):
                _give_up(f"in message {received.message_id}", why)

    async def _kept(self, sending: Awaitable[None]) -> None:
        try:
            await sending
        except Unavailable:
            # The one in hand comes back at once, and its receiver would be told as often.
            await asyncio.sleep(UNSENT_SECONDS)
            raise


def _give_up(which: str, why: str) -> None:
    log.warning("[WEBHOOK_GIVEN_UP] the webhook %s is given up: %s", which, why)


def _since(received: Received, now: float) -> float:
    """When a message that cannot be read was first put back."""
    try:
        since = float(received.properties.get(SINCE, now))
    except ValueError:
        return now
    return since if 0.0 <= since <= now else now
