"""How a job begins, once or again.

The function is a transition as those of `lifecycle`.
"""

from schemas.jobs import Job, JobState, Reason, Waiting
from schemas.results import Counts
from workers.jobs import budget, endings
from workers.jobs.lifecycle import NOTHING, Change, moved, nothing_left, sent, waited
from workers.jobs.pauses import noted


def begin(
    state: JobState | None,
    job: Job,
    *,
    shards: int,
    rows: int,
    ending: Reason | None,
    now: float,
    least_seconds: float | None = None,
    cost: int | None = None,
    waiting: Waiting | None = None,
) -> Change:
    """The plan stands: send the first shards. A repeated announcement repeats the sends.

    `cost` is the most that the job may cost. Where it is `waiting` for room in its tenant's month,
    it begins paused, and is begun again when there is some.
    """
    if state is not None and state.state != "validating":
        return _begun_before(state, waiting, ending, now)
    fresh = state or JobState(revision=0, state="validating")
    if ending is not None and fresh.ending is None:
        fresh = fresh.model_copy(update={"ending": "failed", "reason": ending})
    waiting = waiting if fresh.ending is None else None
    started = moved(
        fresh,
        schema_version=job.schema_version,
        state="in_progress",
        shards=shards,
        window=job.window,
        counts=Counts(total=rows),
        started=now,
        least_seconds=least_seconds,
        marks=((now, 0),),
        sampled=now,
        budget=budget.budget_of(job.options, job.prices, cost),
        paused=waiting is not None,
        waiting=waiting,
        pauses=noted(fresh, now, paused=True, waiting=waiting) if waiting else (),
    )
    return Change(started) if started.paused else sent(started)


def _begun_before(
    state: JobState, waiting: Waiting | None, ending: Reason | None, now: float
) -> Change:
    known = budget.awaits_room(state)
    if known is not None and ending is not None:
        # Two planned it, and the later one found that it has to fail.
        return endings.end(state, "failed", ending, now=now)
    if known is not None and waiting is None:
        begun = {"paused": False, "waiting": None, "started": now, "marks": ((now, 0),)}
        pauses = noted(state, now, paused=False)
        return sent(moved(state, **begun, **waited(state, now), pauses=pauses))
    if known is not None and waiting is not None and known.message != waiting.message:
        return Change(moved(state, waiting=waiting.model_copy(update={"since": known.since})))
    if state.terminal or state.paused:
        return NOTHING
    return Change(None, state.out, nothing_left(state))
