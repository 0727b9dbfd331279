"""How a job that stands still is helped to go on, and when.

The functions that help are transitions as those of `lifecycle`.
"""

from math import inf

from schemas.jobs import JobState
from workers.jobs.lifecycle import NOTHING, Change, moved, nothing_left, waited

RETRY_DELAY = 4.0
"""Seconds: twice the time in which a process with an open breaker looks for a wish to try."""


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
    An outage is waited for until then: where the try was in vain, it goes on from when it began.
    Around that moment nobody has to bring them back once more, be it an earlier retry's or the end
    that was told of the outage; raising `gen` would have what is under way die at its delivery, and
    whoever asks every few seconds would keep the job from ever being tried.
    """
    if state.state != "in_progress" or state.paused:
        return NOTHING
    waiting, sent = state.waiting, Change(None, state.out, delay=RETRY_DELAY)
    outage = waiting is not None and waiting.reason == "outage"
    until = waiting.until if waiting and outage else None
    if waiting is None or (until is not None and abs(until - now) <= RETRY_DELAY):
        return sent if repeated else NOTHING
    tried = waiting.model_copy(update={"until": now + RETRY_DELAY}) if outage else None
    retried = moved(state, gen=state.gen + 1, waiting=tried, **waited(state, now))
    return Change(retried, retried.out, delay=RETRY_DELAY)


def overdue(state: JobState | None, age: float, look: float, since: float = inf) -> bool:
    """Whether a job that has not moved for `age` seconds is to be helped, at a look every `look`.

    It is helped after one look, then after 2, 4, 8 and every 12 of them, so that copies stay few
    however long an outage lasts. `since` is the time since the last look at it: looks come late, or
    not at all, and whoever has not looked before cannot know that somebody has helped.
    """
    if state is not None and state.nudges:
        # Looks come to a job sooner or later after they begin, by what lies before it, so that as
        # many of them may be a bit less. Half a look tells them from one fewer.
        return age + look / 2 >= look * int(min(2**state.nudges, 12))
    looks = max(0, int(age // look))  # a clock that is behind sees it move in the future
    due = looks - looks % 12 if looks >= 12 else max(n for n in (0, 1, 2, 4, 8) if n <= looks)
    return due > 0 and age - since < due * look


def stands_since(state: JobState | None, modified: float) -> float:
    """When a job moved last, whose state was modified then.

    Shards that wait for what another holds of the cap say so in the state again and again, and
    nothing moves where that other's message is lost.
    """
    waiting = None if state is None or state.paused else state.waiting
    return min(modified, waiting.since) if waiting and waiting.reason == "budget" else modified
