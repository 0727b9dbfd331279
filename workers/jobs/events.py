"""What a job's events and its status say of it."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from schemas.jobs import Asked, Ending, Job, JobState, Reason
from schemas.listing import IndexEntry, Rejection
from schemas.messages import EventType, StatusEvent
from schemas.status import JobStatus
from workers.jobs import budget
from workers.jobs.costs import cost_so_far, projected_cost, projected_tokens
from workers.jobs.pace import at_risk, pace, seconds_left

OVER_SECONDS = 15.0
"""Seconds after the told end of a wait in which one that goes on is told anew."""


def iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC, to the millisecond."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def status(job: Job, state: JobState | None, results_container: str, now: float) -> JobStatus:
    """A job's status; without a state it is being validated."""
    told = _validating(job, results_container)
    if state is None:
        return told.model_copy(update={"cost": cost_so_far(job, None) if job.prices else None})
    money, going = _money(job, state), pace(state)
    left = seconds_left(job, state, going, now)
    return told.model_copy(
        update={
            "state": state.shown,
            "counts": state.counts,
            "tokens": state.told_tokens,
            "codes": state.codes,
            "use": state.use,
            **money,
            "running": None if state.terminal else state.running_rows,
            "rate": None if going is None else round(going.rate, 3),
            "basis": None if going is None else going.basis,
            "seconds_left": None if left is None else round(left, 1),
            "at_risk": at_risk(job, state, left, now),
            "waiting": _waiting(state, now),
            "reason": state.reason,
            "manifest": state.manifest,
            "started": None if state.started is None else iso(state.started),
            "ended": None if state.ended is None else iso(state.ended),
        }
    )


def _validating(job: Job, results_container: str) -> JobStatus:
    """What is told of a job whatever its state."""
    return JobStatus(
        job=job.id,
        state="validating",
        tenant=job.tenant,
        created=iso(job.created),
        expires=iso(job.expires),
        input=job.input,
        filename=job.filename,
        door=job.door,
        priority=job.priority,
        results=f"{results_container}/{job.results}",
        message_id=job.asked.message_id,
        correlation_id=job.asked.correlation_id,
        metadata=job.metadata,
    )


def _money(job: Job, state: JobState) -> dict[str, object]:
    """What a status tells of money: no cost where no price is known, no budget without a cap."""
    cost, held = cost_so_far(job, state) if job.prices else None, state.budget
    return {
        "cost": cost,
        "projected_cost": None if cost is None else projected_cost(cost, state),
        "projected_tokens": None if held is None else projected_tokens(held, state),
        "budget": None if held is None else budget.status(held, job.options),
    }


def _waiting(state: JobState, now: float) -> dict[str, str] | None:
    if state.waiting is None or state.terminal:
        return None
    if state.waiting.until is not None and now > state.waiting.until + OVER_SECONDS:
        return None  # it is over, or it would have been renewed
    told = {"reason": str(state.waiting.reason), "since": iso(state.waiting.since)}
    if state.waiting.deployment is not None:
        told["deployment"] = state.waiting.deployment
    if state.waiting.message is not None:
        told["message"] = state.waiting.message
    if state.waiting.until is not None:
        told["until"] = iso(state.waiting.until)
    return told


def event(
    kind: EventType, job: Job, state: JobState | None, results_container: str, now: float
) -> StatusEvent:
    """The event of a state: its sequence is the state's revision, its id job:sequence:type."""
    sequence = state.revision if state else 0
    return StatusEvent(
        id=f"{job.id}:{sequence}:{kind}",
        type=kind,
        subject=job.id,
        time=iso(now),
        traceparent=job.trace,
        sequence=f"{sequence:010d}",
        data=status(job, state, results_container, now),
    )


def known(told: JobStatus, asked: Asked, revision: int, now: float) -> StatusEvent:
    """The answer to a request for what is a job already: as the job stands, to whoever asked."""
    asking = asked.message_id or f"{asked.correlation_id or ''} {now}"
    return StatusEvent(
        id=f"{told.job}:{hashlib.sha256(asking.encode()).hexdigest()[:16]}:job.known",
        type="job.known",
        subject=told.job,
        time=iso(now),
        traceparent=asked.traceparent,
        sequence=f"{revision:010d}",
        data=told.model_copy(
            update={
                "message_id": asked.message_id,
                "correlation_id": asked.correlation_id,
                "metadata": {**told.metadata, **asked.metadata},
            }
        ),
    )


def unread(entry: IndexEntry, tenant: str, why: Reason) -> JobStatus:
    """What can be told of a job whose documents this version cannot read."""
    return JobStatus(
        job=None if entry.rejected else entry.id,
        rejection=entry.id if entry.rejected else None,
        tenant=tenant,
        input=entry.input,
        door=entry.door,
        reason=why,
        created=iso(entry.created),
        metadata=entry.metadata,
    )


def rejected(rejection: Rejection) -> JobStatus:
    """The status of what yielded no job."""
    asked = rejection.asked
    return JobStatus(
        rejection=rejection.id,
        tenant=rejection.tenant,
        state="rejected",
        input=rejection.input,
        door=rejection.door,
        reason=rejection.reason,
        created=iso(rejection.created),
        message_id=asked.message_id,
        correlation_id=asked.correlation_id,
        metadata=asked.metadata,
    )


def rejection_event(rejection: Rejection, repeated_at: float | None = None) -> StatusEvent:
    """The event of what yields no job; a repeat has the same id, and is dropped.

    `repeated_at` is when what may be another message, word for word the same, was rejected.
    """
    anew = "" if repeated_at is None else f":{repeated_at}"
    return StatusEvent(
        id=f"{rejection.id}{anew}:{rejection.type}",
        type=rejection.type,
        time=iso(rejection.created if repeated_at is None else repeated_at),
        traceparent=rejection.asked.traceparent,
        sequence=f"{0:010d}",
        data=rejected(rejection),
    )


def event_type(before: JobState | None, after: JobState) -> EventType:
    """What a consumer is to be told of a change."""
    if after.terminal or after.state == "finalizing":
        return _EVENT_OF_STATE[after.state]
    if after.ending and (before is None or before.ending is None):
        return _EVENT_OF_ENDING[after.ending]
    if after.paused and before is None:
        return "job.paused"
    if before is None or before.state != after.state:
        return _EVENT_OF_STATE[after.state]
    if after.paused and not after.next and before.waiting != after.waiting:
        return "job.paused"  # by hand, or to wait for its month again
    if before.paused != after.paused and not after.ending:
        return "job.paused" if after.paused else "job.resumed"
    return "job.progress"


def standing_event(state: JobState) -> EventType:
    """What a consumer is to be told where an earlier event may have been lost."""
    if state.terminal or state.state == "finalizing":
        return _EVENT_OF_STATE[state.state]
    if state.ending:
        return _EVENT_OF_ENDING[state.ending]
    if state.paused:
        return "job.paused"
    return "job.progress" if state.counts.done else _EVENT_OF_STATE[state.state]


_EVENT_OF_STATE: Final[Mapping[str, EventType]] = {
    "validating": "job.validating",
    "in_progress": "job.in_progress",
    "finalizing": "job.finalizing",
    "completed": "job.completed",
    "failed": "job.failed",
    "expired": "job.expired",
    "cancelled": "job.cancelled",
}
_EVENT_OF_ENDING: Final[Mapping[Ending, EventType]] = {
    "cancelled": "job.cancelling",
    "expired": "job.expiring",
    "failed": "job.failing",
}
