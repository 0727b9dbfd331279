"""How a job is paused, and how one that stands still is helped to go on.

The functions are transitions as those of `lifecycle`, but for two that tell when to help.
"""

from math import inf
from typing import Final

from schemas.jobs import JobState, Waiting
from schemas.pauses import PauseChange
from workers.jobs import budget
from workers.jobs.lifecycle import NOTHING, Change, moved, nothing_left, waited

RETRY_DELAY = 4.0
"""Seconds: twice the time in which a process with an open breaker looks for a wish to try."""


MOST_CHANGES: Final = 20
"""Times of pauses and of their ends that a state remembers."""


def noted(
    state: JobState, now: float, *, paused: bool, waiting: Waiting | None = None
) -> tuple[PauseChange, ...]:
    """The `pauses` of a state that is paused, or not, from now on."""
    reason = None if waiting is None else waiting.reason
    changes = (*state.pauses, PauseChange(at=now, paused=paused, reason=reason))
    return changes[-MOST_CHANGES:]


def pause(state: JobState | None, waiting: Waiting | None = None, *, now: float) -> Change:
    """Pause a job; shards that are out come back by themselves. `waiting` says why, if not asked
    for. One that waits for its tenant's month does not begin any more when there is room.
    """
    if state is None or state.state != "in_progress" or state.ending:
        return NOTHING
    if state.paused and (waiting is not None or budget.awaits_room(state) is None):
        return NOTHING
    pauses = noted(state, now, paused=True, waiting=waiting)
    spent = waited(state, now)
    return Change(moved(state, paused=True, waiting=waiting, pauses=pauses, **spent))


def resume(state: JobState | None, *, repeated: bool = False, now: float) -> Change:
    """End a pause: all shards that are out are sent again.

    One that waits for its tenant's month begins by itself, and only so; one that was paused while
    it did waits again.
    """
    if state is None or state.state != "in_progress" or budget.awaits_room(state):
        return NOTHING
    if not state.paused:
        return Change(None, state.out if repeated else ())
    if budget.never_sent(state):
        waiting = budget.waits_again(now)
        pauses = noted(state, now, paused=True, waiting=waiting)
        return Change(moved(state, waiting=waiting, **waited(state, now), pauses=pauses))
    going = {"paused": False, "gen": state.gen + 1, "waiting": None, **waited(state, now)}
    resumed = moved(state, **going, pauses=noted(state, now, paused=False))
    return Change(resumed, resumed.out, nothing_left(resumed))


def nudge(state: JobState, seen_revision: int, *, repeated: bool = False) -> Change:
    """Send all that is out again, as nothing moves; older copies die at their next delivery."""
    if repeated and state.nudges and state.revision == seen_revision + 1 and not state.paused:
        return Change(None, state.out)
    if state.revision != seen_revision or state.state != "in_progress":
        return NOTHING
    if nothing_left(state):
        return Change(finish=True)
    if state.paused:
        return NOTHING
    # What it waits for from now on is told anew: see `stands_since`.
    waiting = None if state.waiting and state.waiting.reason == "budget" else state.waiting
    nudged = moved(state, gen=state.gen + 1, nudges=state.nudges + 1, waiting=waiting)
    return Change(nudged, nudged.out)


def retry(state: JobState, *, repeated: bool = False, now: float) -> Change:
    """What the job waited for may be there again: its shards come back at once, not when they said.

    The delay leaves the processes time to hear of it, or they would hand the shards back again.
    """
    if state.state != "in_progress" or state.paused:
        return NOTHING
    if repeated and state.waiting is None:
        return Change(None, state.out, delay=RETRY_DELAY)
    if state.waiting is None:
        return NOTHING
    retried = moved(state, gen=state.gen + 1, waiting=None, **waited(state, now))
    return Change(retried, retried.out, delay=RETRY_DELAY)


def overdue(state: JobState | None, age: float, look: float, since: float = inf) -> bool:
    """Whether a job that has not moved for `age` seconds is to be helped, at a look every `look`.

    It is helped after one look, then after 2, 4, 8 and every 12 of them, so that copies stay few
    however long an outage lasts. `since` is the time since the last look at it: looks come late, or
    not at all, and whoever has not looked before cannot know that somebody has helped.
    """
    looks = max(0, int(age // look))  # a clock that is behind sees it move in the future
    if state is not None and state.nudges:
        return looks >= int(min(2**state.nudges, 12))
    due = looks - looks % 12 if looks >= 12 else max(n for n in (0, 1, 2, 4, 8) if n <= looks)
    return due > 0 and age - since < due * look


def stands_since(state: JobState | None, modified: float) -> float:
    """When a job moved last, whose state was modified then.

    Shards that wait for what another holds of the cap say so in the state again and again, and
    nothing moves where that other's message is lost.
    """
    waiting = None if state is None or state.paused else state.waiting
    return min(modified, waiting.since) if waiting and waiting.reason == "budget" else modified
