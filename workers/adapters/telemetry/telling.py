"""The port of telemetry over spans and meters: what happens is counted, and told of at its end.

No text that comes from a file, an endpoint's answer or a client goes in: of a message its own id is
told where this service has made it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from schemas.deployments import Deployment, Task
from schemas.jobs import Job, JobState
from schemas.money import Cost
from schemas.outcomes import Outcome
from schemas.results import CallRecord, Counts
from workers.adapters.telemetry import names, traces
from workers.adapters.telemetry.meters import Attributes, Meters
from workers.adapters.telemetry.spans import (
    CLIENT,
    CONSUMER,
    INTERNAL,
    PRODUCER,
    Spans,
    Value,
    context_of,
)
from workers.adapters.telemetry.traces import Place
from workers.ports import BlobInfo, Received
from workers.ports.errors import Draining
from workers.ports.telemetry import Errand, Handling, ProcessReading, Telemetry, Trail

SLOW_SECONDS: Final = 60.0
"""Calls from which on have a span, as those have that fail."""
MOST_CALLS: Final = 20
"""Calls of one attempt that have spans."""
SHARDS: Final = "shards"
BAD_ENDS: Final = frozenset({"lease", "failed", "crashed"})
COUNTED: Final = ("succeeded", "failed", "invalid", "cancelled", "expired")

Clock = Callable[[], float]


class TelemetryTeller(Telemetry):
    """Telemetry by OpenTelemetry. `clock` gives seconds since the epoch."""

    def __init__(
        self, spans: Spans, meters: Meters, clock: Clock, flush: Callable[[], Awaitable[None]]
    ) -> None:
        self._spans = spans
        self._meters = meters
        self._clock = clock
        self._flush = flush
        self.read: Callable[[], ProcessReading] | None = None

    def trace_of(self, job: str, asked: str | None) -> str | None:
        """See `Telemetry`: the place of the job's own span."""
        return traces.written(traces.of_job(job, asked))

    @contextmanager
    def handling(self, queue: str, received: Received) -> Iterator[Handling]:
        """See `Telemetry`. The span is a part of the job's, or of the sender's."""
        began, note, error = self._clock(), Handling(), None
        self._received(queue, received, began)
        try:
            yield note
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            ended = self._clock()
            job = note.job
            told = _of_message(queue, received, job) | _failed(error)
            if job is not None:
                told[names.JOB] = job.id
            parent = _place(job) if job else traces.parent(received.traceparent)
            self._spans.tell(f"process {queue}", CONSUMER, (began, ended), told, parent=parent)
            of = {names.DESTINATION: queue} | ({names.ERROR: error} if error else {})
            self._meters.record(names.PROCESS_DURATION, ended - began, of, context_of(None))

    def _received(self, queue: str, received: Received, now: float) -> None:
        of = ((names.DESTINATION, queue),)
        if received.enqueued is not None:
            delay = max(0.0, now - received.enqueued)
            self._meters.record(names.QUEUE_DELAY, delay, dict(of), context_of(None))
        if received.repeated:
            self._meters.add(names.REPEATS, 1, of)

    @contextmanager
    def attempt(
        self, job: Job, shard: int, attempt: str, *, shards: int, received: Received
    ) -> Iterator[Trail]:
        """See `Telemetry`. The span is a part of the job's, however its message came."""
        began = self._clock()
        self._received(SHARDS, received, began)
        looked_at = traces.looked_at(job.id, shard, shards)
        place = Place(_place(job).trace, traces.of_attempt(attempt))
        trail = AttemptTrail(self._spans, self._meters, self._clock, place if looked_at else None)
        error: str | None = None
        try:
            yield trail
        except BaseException as raised:
            # A host that stops drains its process, and cancels what does not end in time.
            drained = isinstance(raised, Draining | asyncio.CancelledError)
            trail.end, error = ("drained", None) if drained else ("failed", type(raised).__name__)
            raise
        finally:
            self._crashed(job, shard, trail.crashed)
            self._meters.add(names.ATTEMPTS, 1, ((names.END, trail.end),))
            errors = trail.counts.errors if trail.counts else 0
            if looked_at or errors or trail.end in BAD_ENDS:
                told = _of_message(SHARDS, received, job) | _of_attempt(job, shard, trail.end)
                told |= _failed(error or (trail.end if trail.end in BAD_ENDS else None))
                told |= {names.FOUND: trail.found, names.ERRORS: errors}
                if trail.counts:
                    told[names.ROWS] = trail.counts.done
                times = (began, self._clock())
                parent = _place(job)
                self._spans.tell("process shards", CONSUMER, times, told, parent=parent, own=place)

    def _crashed(self, job: Job, shard: int, journal: BlobInfo | None) -> None:
        """An attempt that died left its journal: it tells when, by the clock of the storage."""
        if journal is None:
            return
        self._meters.add(names.ATTEMPTS, 1, ((names.END, "crashed"),))
        name = journal.ref.name.rsplit("/", 1)[-1][len("000000-") :]
        own = Place(_place(job).trace, traces.of_attempt(name))
        told = _of_attempt(job, shard, "crashed") | _failed("crashed")
        # The storage tells whole seconds, and no attempt began before its job.
        began = max(journal.created, job.created)
        times = (began, max(began, journal.last_modified))
        self._spans.tell("process shards", CONSUMER, times, told, parent=_place(job), own=own)

    @contextmanager
    def errand(self, errand: Errand, trace: str | None) -> Iterator[None]:
        """See `Telemetry`."""
        began, error = self._clock(), None
        try:
            yield
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            kind = INTERNAL if errand == "plan" else PRODUCER
            told: dict[str, Value] = {names.ERRAND: errand} | _failed(error)
            if kind is PRODUCER:
                queue = names.ERRANDS[errand].removeprefix("send ")
                told |= {names.SYSTEM: names.SERVICE_BUS, names.DESTINATION: queue}
                told |= {names.OPERATION_TYPE: "send", names.OPERATION_NAME: "send"}
            place = traces.read(trace)
            parent = place[0] if place else None
            self._spans.tell(
                names.ERRANDS[errand], kind, (began, self._clock()), told, parent=parent
            )

    def moved(self, job: Job, before: JobState | None, after: JobState, cost: Cost | None) -> None:
        """See `Telemetry`. Whoever closes a job tells of its span."""
        was = before.counts if before else Counts()
        for outcome in COUNTED:
            if more := getattr(after.counts, outcome) - getattr(was, outcome):
                self._meters.add(names.ROWS_DONE, more, ((names.OUTCOME, outcome),))
        if after.nudges > (before.nudges if before else 0):
            self._meters.add(names.NUDGES)
        if cost is not None:
            self._meters.add(names.COST, float(cost.counted), ((names.CURRENCY, cost.currency),))
        if after.terminal:
            self._ended(job, after)

    def _ended(self, job: Job, state: JobState) -> None:
        of: Attributes = ((names.STATE, state.state), (names.DOOR, job.door))
        self._meters.add(names.JOBS_ENDED, 1, of)
        ended, place = state.ended or self._clock(), _place(job)
        self._meters.record(names.JOB_DURATION, ended - job.created, dict(of), context_of(place))
        self.end_found(job, state)

    def end_found(self, job: Job, state: JobState) -> None:
        """See `Telemetry`."""
        of: dict[str, Value] = {names.STATE: state.state, names.DOOR: job.door}
        told: dict[str, Value] = {names.JOB: job.id, **of, names.ROWS: state.counts.total}
        told[names.ERRORS] = state.counts.errors
        if state.state == "failed":
            told[names.ERROR] = state.state
        parent = traces.parent(job.asked.traceparent)
        times = (job.created, state.ended or self._clock())
        self._spans.tell(names.JOB_SPAN, INTERNAL, times, told, parent=parent, own=_place(job))

    def conflict(self) -> None:
        """See `Telemetry`."""
        self._meters.add(names.CONFLICTS, 1, ((names.DOCUMENT, "state"),))

    def dead_letter(self, queue: str) -> None:
        """See `Telemetry`."""
        self._meters.add(names.DEAD_LETTERS, 1, ((names.DESTINATION, queue),))

    def watch(self, read: Callable[[], ProcessReading]) -> None:
        """See `Telemetry`."""
        self.read = read

    async def flush(self) -> None:
        """See `Telemetry`."""
        await self._flush()


class AttemptTrail(Trail):
    """The calls of one attempt, as spans and numbers; without a place, as numbers alone."""

    def __init__(self, spans: Spans, meters: Meters, clock: Clock, place: Place | None) -> None:
        self._spans = spans
        self._meters = meters
        self._clock = clock
        self._place = place
        self._within = context_of(place)
        self._left = MOST_CALLS if place else 0

    def called(
        self,
        deployment: Deployment,
        task: Task,
        outcome: Outcome,
        made: CallRecord,
        *,
        retried: bool,
    ) -> None:
        """See `Trail`."""
        name = names.EMBEDDING_DURATION if "embeddings" in task else names.INFERENCE_DURATION
        of = {names.OPERATION: names.OPERATIONS[task], **_of_deployment(deployment)}
        if outcome.kind != "ok":
            of[names.ERROR] = outcome.kind
        self._meters.record(name, made.seconds, of, self._within)
        waited = {
            names.DEPLOYMENT: deployment.name,
            names.REASON: made.waited_for or "none",
        }
        self._meters.record(names.CALL_WAIT, made.waited, waited, self._within)
        self._meters.add(names.CALLS, 1, _of_call(deployment.name, outcome))
        if retried:
            self._meters.add(names.RETRIES, 1, ((names.DEPLOYMENT, deployment.name),))
        if self._left and (outcome.kind != "ok" or made.seconds >= SLOW_SECONDS):
            self._left -= 1
            self._told(of, outcome, made)

    def _told(self, of: dict[str, str], outcome: Outcome, made: CallRecord) -> None:
        told: dict[str, Value] = {**of, names.WAITED: made.waited}
        if outcome.status is not None:
            told[names.STATUS] = outcome.status
        if outcome.usage is not None:
            told[names.INPUT_USAGE] = outcome.usage.prompt_tokens
            told[names.OUTPUT_USAGE] = outcome.usage.completion_tokens
        ended = self._clock()
        name = f"{of[names.OPERATION]} {of[names.REQUEST_MODEL]}"
        self._spans.tell(name, CLIENT, (ended - made.seconds, ended), told, parent=self._place)

    def journaled(self, seconds: float, lag: float) -> None:
        """See `Trail`."""
        self._meters.record(names.JOURNAL_WRITE, seconds, {}, self._within)
        self._meters.record(names.JOURNAL_LAG, lag, {}, self._within)


def _place(job: Job) -> Place:
    """A job's own place, also where it was pinned while nobody watched."""
    return traces.of_job(job.id, job.asked.traceparent)


def _failed(error: str | None) -> dict[str, Value]:
    return {} if error is None else {names.ERROR: error}


def _of_message(queue: str, received: Received, job: Job | None) -> dict[str, Value]:
    told: dict[str, Value] = {
        names.SYSTEM: names.SERVICE_BUS,
        names.DESTINATION: queue,
        names.OPERATION_TYPE: "process",
        names.OPERATION_NAME: "process",
        names.DELIVERIES: received.deliveries,
    }
    if received.enqueued is not None:
        told[names.ENQUEUED] = round(received.enqueued)
    # What somebody else has called his message may be anything.
    if job is not None and (received.message_id or "").startswith(f"{job.id}:"):
        told[names.MESSAGE_ID] = received.message_id or ""
    return told


def _of_attempt(job: Job, shard: int, end: str) -> dict[str, Value]:
    return {names.JOB: job.id, names.SHARD: shard, names.END: end}


def _of_deployment(deployment: Deployment) -> dict[str, str]:
    return {
        names.PROVIDER: names.PROVIDERS[deployment.kind],
        names.REQUEST_MODEL: deployment.model,
        names.DEPLOYMENT: deployment.name,
    }


def _of_call(deployment: str, outcome: Outcome) -> Attributes:
    of: Attributes = ((names.DEPLOYMENT, deployment), (names.OUTCOME, outcome.kind))
    return (*of, (names.LIMIT, outcome.limit)) if outcome.limit else of
