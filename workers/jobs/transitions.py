"""The one way a job's state changes: swap, then send, then publish."""

import asyncio
import logging
import random
import uuid
from collections.abc import Callable, Sequence
from typing import Final

import orjson

from schemas.jobs import Job, JobState
from schemas.messages import Announcement, EventType, Expire, Finish, ShardMessage, StatusEvent
from workers.errors import Unavailable
from workers.jobs import events, lifecycle
from workers.jobs.lifecycle import Change
from workers.jobs.store import Records
from workers.ports import AGAIN, TRACE, Bus, OutMessage

JOBS: Final = "jobs"
SHARDS: Final = "shards"
STATUS: Final = "job-status"

PROGRESS_SECONDS: Final = 2.0
_PATIENCE: Final = 12
_TOLD_JOBS: Final = 1024

log = logging.getLogger(__name__)

Transition = Callable[[JobState | None, bool], Change]


class Steps:
    """Takes a job from state to state.

    The order is what survives a crash: what follows from a state is a function of it, so whoever
    finds the state stored can send and publish again.
    """

    def __init__(
        self, records: Records, bus: Bus, *, clock: Callable[[], float], rng: random.Random
    ) -> None:
        self.records = records
        self.bus = bus
        self.clock = clock
        self._rng = rng
        self._progress_told: dict[str, float] = {}

    async def take(
        self, job: Job, transition: Transition, *, again: bool = False
    ) -> JobState | None:
        """Make one transition durable and do what it asks for; gives the state that stands then.

        Errors: `Unavailable` when storage or bus stay out of reach.
        """
        before, after, change, again = await self._swap(job, transition, again)
        if after is None:
            return None
        if after.terminal and change.state is None:
            await self.tell_end(job, after)
            return after
        trace = job.asked.traceparent
        await self.send_shards(job.id, change.shards, after.gen, trace=trace)
        if change.finish:
            await self.send_jobs(Finish(job=job.id), trace=trace)
        if change.state is not None:
            await self._tell(job, lifecycle.event_type(before, after), after)
        elif again:
            await self._tell(job, lifecycle.standing_event(after), after)
        if after.terminal:
            await self.records.close(job.id)
        return after

    async def _swap(
        self, job: Job, transition: Transition, again: bool
    ) -> tuple[JobState | None, JobState | None, Change, bool]:
        for attempt in range(_PATIENCE):
            held = await self.records.state(job.id)
            before = held.state if held else None
            change = transition(before, again)
            if change.state is None:
                return before, before, change, again
            try:
                if await self.records.swap(job.id, held, change.state):
                    return before, change.state, change, again
            except Unavailable:
                if attempt == _PATIENCE - 1:
                    raise
            # It may have been our own success, so from here on this is a repeat.
            again = True
            await asyncio.sleep(self._rng.uniform(0, min(2.0, 0.02 * 2**attempt)))
        raise Unavailable(f"the state of {job.id} could not be changed: too many are at it")

    async def tell_end(self, job: Job, state: JobState) -> None:
        """Whatever comes to an ended job: make sure that its last event was sent."""
        if await self.records.is_open(job.id):
            await self.publish(self._event(job, lifecycle.standing_event(state), state))
            await self.records.close(job.id)

    async def _tell(self, job: Job, kind: EventType, state: JobState) -> None:
        now = asyncio.get_running_loop().time()
        if kind == "job.progress":
            if now - self._progress_told.get(job.id, -PROGRESS_SECONDS) < PROGRESS_SECONDS:
                return
            if len(self._progress_told) >= _TOLD_JOBS:
                self._progress_told.clear()
            self._progress_told[job.id] = now
        await self.publish(self._event(job, kind, state))

    def _event(self, job: Job, kind: EventType, state: JobState) -> StatusEvent:
        return events.event(kind, job, state, self.records.results_container, self.clock())

    async def publish(self, event: StatusEvent) -> None:
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
        await self.bus.send(STATUS, [message])

    async def send_shards(
        self,
        job: str,
        shards: Sequence[int],
        gen: int,
        *,
        at: float | None = None,
        again: bool = False,
        trace: str | None = None,
    ) -> None:
        """Put shards on their queue, now or at a time; `again` as in `Received`."""
        messages = [
            self._message(ShardMessage(job=job, shard=shard, gen=gen), at, again=again, trace=trace)
            for shard in shards
        ]
        if messages:
            await self.bus.send(SHARDS, messages)

    async def send_jobs(
        self,
        message: Announcement | Finish | Expire,
        *,
        at: float | None = None,
        again: bool = False,
        trace: str | None = None,
    ) -> None:
        """Put a job or a step of one on the queue `jobs`, now or at a time; `again` as above."""
        await self.bus.send(JOBS, [self._message(message, at, again=again, trace=trace)])

    def _message(
        self,
        message: ShardMessage | Announcement | Finish | Expire,
        at: float | None,
        *,
        again: bool,
        trace: str | None,
    ) -> OutMessage:
        unique = uuid.UUID(int=self._rng.getrandbits(128), version=4)
        body = orjson.dumps(message.model_dump(mode="json"))
        return OutMessage(
            body=body,
            message_id=f"{message.job}:{message.type}:{unique}",
            properties=({AGAIN: "true"} if again else {}) | _traced(trace),
            at=at,
            correlation_id=message.job,
        )


def _traced(trace: str | None) -> dict[str, str]:
    return {} if trace is None else {TRACE: trace}
