"""What comes in on the queues, alive or dead, and who handles it. Handlers raise for bugs,
and where the bus takes no message: then the one in hand comes again.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from schemas.jobs import Asked, Job, JobState, Reason
from schemas.messages import Announcement, Expire, Finish, JobRequest, JobsMessage
from workers.inbox.webhooks import WebhookInbox
from workers.intake import announcements, markers
from workers.intake.doors import Doors
from workers.intake.intake import Intake
from workers.jobs import endings, lifecycle
from workers.jobs.finisher import Finisher
from workers.jobs.outbox import JOBS, SHARDS, WEBHOOKS, Outbox
from workers.jobs.rejections import InputError, Rejections
from workers.jobs.store import JobStore
from workers.jobs.transitions import Transitions
from workers.ports import REPEATED, TRACES, Bus, OutMessage, Received
from workers.ports.errors import NewerVersion, StorageError, Unavailable, Unreadable, WorkerError
from workers.ports.telemetry import Telemetry
from workers.shards.runner import Runner, read_shard_message

RETRY_SECONDS: Final = 30.0
DEAD_RETRY_SECONDS: Final = 60.0
DEAD_TRIES: Final = 3
GIVEN_UP: Final = DEAD_TRIES + 1
MOST_DEAD: Final = 200
_TRIES: Final = "tries"
_COUNT: Final = re.compile(r"[0-9]{1,6}")

__all__ = ["Inbox", "Received"]

log = logging.getLogger(__name__)


class Inbox:
    """The reader of the queues: each message goes to the part that it is for."""

    def __init__(
        self,
        store: JobStore,
        transitions: Transitions,
        outbox: Outbox,
        rejections: Rejections,
        bus: Bus,
        *,
        telemetry: Telemetry,
        doors: Doors,
        intake: Intake,
        runner: Runner,
        finisher: Finisher,
        webhooks: WebhookInbox,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._transitions = transitions
        self._outbox = outbox
        self._rejections = rejections
        self._bus = bus
        self._doors = doors
        self._intake = intake
        self._finisher = finisher
        self._clock = clock
        self._telemetry = telemetry
        self.shards: Callable[[Received], Coroutine[Any, Any, None]] = partial(
            runner.run, refuse=self._refuse
        )
        """Handle a message on `shards`, as `Runner.run` does."""
        self.webhooks = webhooks

    # -- the queue `jobs`

    async def jobs(self, received: Received) -> None:
        """Handle a message on `jobs`: a request, a blob event, or a step of a job."""
        with self._telemetry.handling(JOBS, received) as handling:
            handling.job = await self._job_of(received)

    async def _job_of(self, received: Received) -> Job | None:
        """Do what a message asks for; gives the job that it is about, where there is one."""
        if _tries(received) == GIVEN_UP:
            await self._give_up(received)
            return None
        try:
            message = announcements.read_jobs_message(received.body)
            return await self._do(message, received)
        except InputError as error:
            await self._reject(received, error)
        except NewerVersion as error:
            await self._refuse(received, error)
        except Unavailable as error:
            log.debug("a message on jobs waits: %s", error)
            await self._send_again(received, RETRY_SECONDS, _tries(received))
        return None

    async def _do(
        self, message: JobsMessage | announcements.BlobCreated | None, received: Received
    ) -> Job | None:
        asked, repeated = _asked(received), received.repeated
        match message:
            case JobRequest():
                return await self._doors.requested(message, asked, repeated=repeated)
            case Announcement():
                return await self._intake.run(message, repeated=repeated, marked=received.marked)
            case Finish(job=job):
                return await self._finisher.run(job, repeated=repeated)
            case Expire(job=job):
                return await self._expire(job, repeated)
            case announcements.BlobCreated(container=container, name=name, etag=etag):
                return await self._doors.dropped(
                    container, name, etag=etag, asked=asked, repeated=repeated
                )
            case None:
                return None

    async def _expire(self, job_id: str, repeated: bool) -> Job | None:
        job = await self._store.job(job_id)
        if job is None:
            return None

        def expired(state: JobState | None, repeated: bool) -> lifecycle.Change:
            if state is None:
                return lifecycle.NOTHING  # the sweeper announces it again, then it expires
            return endings.end(state, "expired", None, repeated=repeated, now=self._clock())

        await self._transitions.take(job, expired, repeated=repeated)
        return job

    # -- dead letters

    async def dead_jobs(self, received: Received) -> None:
        """Send a dead letter again a few times; then reject it, or leave its job to the sweeper."""
        self._telemetry.dead_letter(JOBS)
        tries = _tries(received)
        if tries < DEAD_TRIES:
            await self._send_again(received, DEAD_RETRY_SECONDS, tries + 1)
        else:
            await self._give_up(received)

    async def _give_up(self, received: Received) -> None:
        tries = _tries(received)
        try:
            reason = await self._came_to_nothing(received)
            if reason is not None:
                # From here on somebody may have been told: it must not become a job any more.
                tries = GIVEN_UP
                await self._reject(received, reason)
        except NewerVersion as error:
            await self._refuse(received, error)
        except (Unavailable, StorageError, Unreadable) as error:
            # Without a delay the dead letter would come back at once, and for ever.
            log.debug("a dead message of jobs waits: %s", error)
            await self._send_again(received, DEAD_RETRY_SECONDS, tries)

    async def _came_to_nothing(self, received: Received) -> InputError | None:
        """Why a message is to be rejected; None where that is told, or its job is the sweeper's."""
        asked = _asked(received)
        failed = InputError("not_processed", "the request failed every time: see the worker's log")
        try:
            message = announcements.read_jobs_message(received.body)
        except InputError as error:
            await self._refuse(received, error)
            return None
        if isinstance(message, Finish | Expire) or message is None:
            return None  # the job has its marker: the sweeper's
        try:
            if isinstance(message, JobRequest):
                message = await self._doors.announced(message, asked)
        except InputError as error:
            failed = error
        if isinstance(message, Announcement):
            if received.marked and not await self._store.is_open(message.job):
                return None  # told already, or a job that has ended
            if not await markers.withdraw(self._store, message):
                return None  # an earlier delivery made it a job: the sweeper's
        return failed

    async def dead_shards(self, received: Received) -> None:
        """Send a dead letter again, as a repeat: the stored documents decide what comes of it."""
        self._telemetry.dead_letter(SHARDS)
        try:
            message = read_shard_message(received.body)
        except (InputError, NewerVersion) as error:
            await self._refuse(received, error)
            return
        await self._outbox.send_shards([message], delay=DEAD_RETRY_SECONDS, repeated=True)

    async def drain_dead(self) -> None:
        """Handle dead letters that no trigger has come for: their queues start no instance.

        What goes wrong with one queue's does not hide the others'.
        """
        handlers = (
            (JOBS, self.dead_jobs),
            (SHARDS, self.dead_shards),
            (WEBHOOKS, self.webhooks.dead),
        )
        for queue, handle in handlers:
            try:
                taken = await self._bus.take_dead(queue, handle, MOST_DEAD)
            except WorkerError as error:
                log.warning(
                    "[DEAD_LETTERS_LEFT] dead letters of %s were not handled: %s", queue, error
                )
            except Exception:
                log.exception(
                    "[DEAD_LETTERS_BUG] dead letters of %s were not handled: report this", queue
                )
            else:
                if taken:
                    log.warning(
                        "[DEAD_LETTERS_TAKEN] %s dead letters of %s were handled by the timer",
                        taken,
                        queue,
                    )

    # -- any

    async def _send_again(self, received: Received, delay: float, tries: int) -> None:
        kept = {name: received.properties[name] for name in TRACES if name in received.properties}
        properties = {**_own(received), **kept, _TRIES: str(tries), REPEATED: "true"}
        message = OutMessage(
            received.body,
            message_id=received.message_id or _name(received),
            correlation_id=received.correlation_id,
            properties=properties,
            at=self._clock() + delay,
        )
        await self._bus.send(JOBS, [message])

    async def _reject(self, received: Received, error: InputError) -> None:
        origin = announcements.origin_of(received.body)
        await self._rejections.reject(_name(received), error, _asked(received), origin)

    async def _refuse(self, received: Received, error: InputError | NewerVersion) -> None:
        """Keep a message that this version cannot read, and publish an event that says so."""
        code = error.code if isinstance(error, InputError) else "newer_version"
        kept = await self._store.refuse(_name(received), received.body)
        reason = Reason(code=code, message=f"{error}; kept as {kept.container}/{kept.name}")
        origin = announcements.origin_of(received.body)
        await self._rejections.refuse(_name(received), reason, _asked(received), origin)


def _own(received: Received) -> dict[str, str]:
    """The sender's properties, without those that this service has added."""
    added = (_TRIES, REPEATED, "DeadLetterReason", "DeadLetterErrorDescription", *TRACES)
    return {name: value for name, value in received.properties.items() if name not in added}


def _tries(received: Received) -> int:
    """How often a message was taken back from the dead letters."""
    count = received.properties.get(_TRIES, "0")
    return int(count) if _COUNT.fullmatch(count) else 0


def _name(received: Received) -> str:
    """The name of a message that has no job, which is the same at every delivery."""
    digest = hashlib.sha256(received.body).hexdigest()[:16]
    identity = (received.message_id or "")[:64]
    safe = "".join(char if char.isascii() and char.isalnum() else "-" for char in identity)
    return f"{safe}-{digest}" if safe else digest


def _asked(received: Received) -> Asked:
    # Bounded, because it travels with every event of the job.
    told = {name: value[:512] for name, value in _own(received).items() if 0 < len(name) <= 64}
    return Asked(
        message_id=received.message_id,
        correlation_id=received.correlation_id,
        traceparent=received.traceparent,
        metadata=dict(list(told.items())[:16]),
    )
