"""What a job sends and tells: shards, steps of a job, status events."""

import asyncio
import random
import uuid
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Final

import orjson

from schemas.jobs import Asked, Job, JobState
from schemas.listing import Rejection
from schemas.messages import (
    Announcement,
    EventType,
    Expire,
    Finish,
    ShardMessage,
    StatusEvent,
    WebhookMessage,
)
from schemas.status import JobStatus
from workers.jobs import events
from workers.ports import MARKED, REPEATED, TRACES, Bus, OutMessage, Received

JOBS: Final = "jobs"
SHARDS: Final = "shards"
STATUS: Final = "job-status"
WEBHOOKS: Final = "webhooks"
SINCE: Final = "since"
"""The property of a webhook's message that was put back unread: when it first was."""

PROGRESS_SECONDS: Final = 2.0
_TOLD_JOBS: Final = 1024


class Outbox:
    """Sends to the queues and the topic. Every method raises `Unavailable` where the bus is out of
    reach; what was to be sent may then have been sent. `hooked` are the tenants with a webhook.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        results_container: str,
        clock: Callable[[], float],
        rng: random.Random,
        hooked: Container[str] = (),
    ) -> None:
        self._bus = bus
        self._hooked = hooked
        self._results_container = results_container
        self._clock = clock
        self._rng = rng
        self._progress_told: dict[str, float] = {}

    async def send_shards(
        self,
        shards: Sequence[ShardMessage],
        *,
        delay: float = 0.0,
        repeated: bool = False,
        trace: str | None = None,
    ) -> None:
        """Put shards on their queue, in `delay` seconds; `repeated` as in `Received`."""
        at = self._clock() + delay if delay > 0.0 else None
        messages = [self._message(shard, at, repeated=repeated, trace=trace) for shard in shards]
        if messages:
            await self._bus.send(SHARDS, messages)

    async def send_jobs(
        self,
        message: Announcement | Finish | Expire,
        *,
        at: float | None = None,
        repeated: bool = False,
        marked: bool = False,
        trace: str | None = None,
    ) -> None:
        """Put a job or a step of one on the queue `jobs`, now or at a time.

        `repeated` and `marked` are as in `Received`.
        """
        made = self._message(message, at, repeated=repeated, trace=trace)
        if marked:
            made = replace(made, properties={**made.properties, MARKED: "true"})
        await self._bus.send(JOBS, [made])

    async def tell(self, kind: EventType, job: Job, state: JobState | None) -> None:
        """Publish the event of a state. Progress is told every few seconds at most, but for that
        of a paused job, of which there may be no more to tell.
        """
        paused = state is not None and state.paused
        if kind != "job.progress" or paused or self._due(job.id):
            told = events.event(kind, job, state, self._results_container, self._clock())
            await self._publish(told)

    async def send_webhook(self, job: Job) -> bool:
        """Have a tenant's webhook told that a job has ended; False where there is none."""
        if job.tenant not in self._hooked:
            return False
        message = WebhookMessage(
            schema_version=job.schema_version, job=job.id, tenant=job.tenant, since=self._clock()
        )
        await self.put_webhook(message, trace=job.trace)
        return True

    async def put_webhook(
        self, message: WebhookMessage, *, at: float | None = None, trace: str | None = None
    ) -> None:
        """Put a webhook on its queue, now or at a time."""
        made = self._message(message, at, repeated=False, trace=trace)
        await self._bus.send(WEBHOOKS, [made])

    async def put_back_webhook(self, received: Received, *, since: float, at: float) -> None:
        """Have a webhook come again at a time as it came, with when it was first put back."""
        kept = {n: v for n, v in received.properties.items() if not n.startswith("DeadLetter")}
        put_back = OutMessage(
            received.body,
            message_id=received.message_id or self._unique(),
            properties={**kept, SINCE: str(since)},
            at=at,
            correlation_id=received.correlation_id,
        )
        await self._bus.send(WEBHOOKS, [put_back])

    async def tell_known(self, told: JobStatus, asked: Asked, revision: int) -> None:
        """Answer a request for what is a job already."""
        await self._publish(events.known(told, asked, revision, self._clock()))

    async def tell_rejection(self, rejection: Rejection, repeated_at: float | None = None) -> None:
        """Publish that something yields no job; `repeated_at` is as in `rejection_event`."""
        await self._publish(events.rejection_event(rejection, repeated_at))

    def _due(self, job: str) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._progress_told.get(job, -PROGRESS_SECONDS) < PROGRESS_SECONDS:
            return False
        if len(self._progress_told) >= _TOLD_JOBS:
            self._progress_told.clear()
        self._progress_told[job] = now
        return True

    async def _publish(self, event: StatusEvent) -> None:
        """Send an event to the topic, with the properties that subscriptions filter on."""
        told = event.data
        properties = {
            "job": told.job or "",
            "type": event.type,
            "state": told.state or "",
            "input": told.input or "",
            **{f"metadata_{name}": value for name, value in told.metadata.items()},
            **_traced(event.traceparent),
        }
        message = OutMessage(
            body=orjson.dumps(event.model_dump(mode="json", exclude_none=True)),
            message_id=event.id,
            correlation_id=told.correlation_id or told.message_id or told.job,
            properties=properties,
            content_type="application/cloudevents+json",
        )
        await self._bus.send(STATUS, [message])

    def _message(
        self,
        message: ShardMessage | Announcement | Finish | Expire | WebhookMessage,
        at: float | None,
        *,
        repeated: bool,
        trace: str | None,
    ) -> OutMessage:
        return OutMessage(
            body=orjson.dumps(message.model_dump(mode="json")),
            message_id=f"{message.job}:{message.type}:{self._unique()}",
            properties=({REPEATED: "true"} if repeated else {}) | _traced(trace),
            at=at,
            correlation_id=message.job,
        )

    def _unique(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))


def _traced(trace: str | None) -> dict[str, str]:
    return {} if trace is None else dict.fromkeys(TRACES, trace)
