"""How a job is paused, and goes on after it.

The functions are transitions as those of `lifecycle`.
"""

from typing import Final

from schemas.jobs import JobState, Waiting
from schemas.pauses import PauseChange
from workers.jobs import budget
from workers.jobs.lifecycle import NOTHING, Change, moved, nothing_left, waited

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
