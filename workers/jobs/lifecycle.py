"""State x happening -> state, and what is to be sent. Everything that moves a job lives here.

Each function takes the stored state and gives a `Change`; a state of None means that nothing is to
be stored. `repeated` says that somebody may have died between storing and sending: this message is
delivered again, or an earlier swap met a conflict that may have been its own success.
The rules are those of docs/protocol.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf

from schemas.budgets import JobBudget
from schemas.history import Sample
from schemas.jobs import Ending, Job, JobState, Reason, Waiting
from schemas.results import Counts, Lost, Receipt, Use
from workers.jobs import budget
from workers.jobs.pace import done_before, marked, report_due, sample, sample_due
from workers.rows.writing import add_codes, add_totals, added_use

WORTH_RENEWING = 10.0
"""Seconds by which a wait has to last longer than was told, to be told again."""
RETRY_DELAY = 4.0
"""Seconds: twice the time in which a process with an open breaker looks for a wish to try."""


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a happening: the new state (None: as it was), and what is to be sent.

    `delay` is seconds for which the shards are held back. `told` says whether a repeat tells the
    event of the state that stands, where there is no new one. `sample` is to be remembered.
    """

    state: JobState | None = None
    shards: tuple[int, ...] = ()
    finish: bool = False
    delay: float = 0.0
    told: bool = True
    sample: Sample | None = None


Becomes = Callable[[JobBudget, int], JobBudget]
"""From a budget, and how many shards are out, to the one that follows."""

NOTHING = Change()
UNTOLD = Change(told=False)
"""For what a consumer misses nothing of: rows that are done so far, and what a job waits for."""


def _moved(state: JobState, /, **fields: object) -> JobState:
    return state.model_copy(update={"revision": state.revision + 1, **fields})


def _sampled(change: Change, now: float, receipt: Receipt | None = None) -> Change:
    """A change with a sample of what comes of it, where one is due.

    A state without the time of the last one has none yet, or was changed by the release 0.1.0.
    """
    state = change.state
    if state is None or not sample_due(state, now):
        return change
    taken = None if state.sampled is None else sample(state, now, receipt)
    return replace(change, state=state.model_copy(update={"sampled": now}), sample=taken)


def _filled(state: JobState) -> tuple[JobState, tuple[int, ...]]:
    """Move shards that were never sent into `out` while there is room."""
    room = state.window - len(state.out)
    fresh = tuple(range(state.next, min(state.next + max(room, 0), state.shards)))
    filled = state.model_copy(update={"out": state.out + fresh, "next": state.next + len(fresh)})
    return filled, fresh


def _closed(state: JobState, now: float) -> float:
    """Seconds for which the job has waited for its hours, with the wait that ends now."""
    waiting = state.waiting
    if waiting is None or waiting.reason != "hours":
        return state.closed_seconds
    return state.closed_seconds + max(0.0, min(now, waiting.until or now) - waiting.since)


def _nothing_left(state: JobState) -> bool:
    return not state.out and state.next >= state.shards and state.state == "in_progress"


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
    started = _moved(
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
    )
    return Change(started) if started.paused else _sent(started)


def _begun_before(
    state: JobState, waiting: Waiting | None, ending: Reason | None, now: float
) -> Change:
    known = budget.awaits_room(state)
    if known is not None and ending is not None:
        # Two planned it, and the later one found that it has to fail.
        return end(state, "failed", ending, now=now)
    if known is not None and waiting is None:
        return _sent(_moved(state, paused=False, waiting=None, started=now, marks=((now, 0),)))
    if known is not None and waiting is not None and known.message != waiting.message:
        return Change(_moved(state, waiting=waiting.model_copy(update={"since": known.since})))
    if state.terminal or state.paused:
        return NOTHING
    return Change(None, state.out, _nothing_left(state))


def _sent(state: JobState) -> Change:
    filled, sends = _filled(state)
    return Change(filled, sends, _nothing_left(filled))


def advance(
    state: JobState, receipt: Receipt, *, repeated: bool, now: float, found: int = 0
) -> Change:
    """A shard's receipt stands: count it once, send what comes next.

    `found` are the rows that were done when the attempt that tells of it began.
    """
    if state.terminal:
        return NOTHING
    shard = receipt.shard
    if shard not in state.out:
        # On a first delivery this is a left-over copy: were it to send, copies would breed copies.
        # A paused job's copies would be dropped; resuming sends them.
        resend = state.out if repeated and not state.paused else ()
        return Change(None, resend, _nothing_left(state))
    counts, tokens = state.counts.plus(receipt.counts), state.tokens.plus(receipt.tokens)
    running = tuple(each for each in state.running if each[0] != shard)
    out = sum(rows for _, rows in running)
    asked = receipt.counts.asked
    before = done_before(state.running_rows - out, found, asked)
    counted = _moved(
        state,
        out=tuple(other for other in state.out if other != shard),
        counts=counts,
        tokens=tokens,
        codes=add_codes(state.codes, receipt.codes),
        use=added_use(state.use, receipt.use, add_totals, Use()),
        lost=state.lost.plus(receipt.lost),
        running=running,
        # Rows that nobody was asked for say nothing of how fast the others will be.
        marks=marked(state, out, counts.asked, now, before),
        waiting=None,
        closed_seconds=_closed(state, now),
        nudges=0,
        budget=state.budget and budget.count(state.budget, receipt),
    )
    return _sampled(_sent(counted), now, receipt)


def report(
    state: JobState, journaled: Mapping[int, int], now: float, found: Mapping[int, int] = {}
) -> Change:
    """Rows are done in shards that are out; the numbers are of this process's shards alone.

    Receipts count them for good. A number falls where a crash lost what was not journaled. `found`
    are those of them that were done when the attempts began.
    """
    if state.state != "in_progress" or not report_due(state, now):
        return UNTOLD
    known = dict(state.running)
    fresh = known | {shard: rows for shard, rows in journaled.items() if shard in state.out}
    if fresh == known:
        return UNTOLD
    running = tuple(sorted(fresh.items()))
    done = state.counts.asked
    before = sum(
        done_before(known.get(shard, 0), found.get(shard, 0), rows) for shard, rows in running
    )
    marks = marked(state, sum(fresh.values()), done, now, before)
    return _sampled(Change(_moved(state, running=running, marks=marks)), now)


def spend(state: JobState, shard: int, becomes: Becomes) -> Change:
    """What an attempt at a shard that is out may spend, or has spent, becomes another."""
    if state.budget is None or shard not in state.out:
        return UNTOLD
    after = becomes(state.budget, len(state.out))
    return UNTOLD if after is state.budget else Change(_moved(state, budget=after))


def end(
    state: JobState | None,
    ending: Ending,
    reason: Reason | None,
    *,
    repeated: bool = False,
    now: float | None = None,
) -> Change:
    """End a job before its time: the first ending counts, and none does once it is finalizing."""
    if state is None:
        # A cancel may come before the plan: intake then plans, and the rows flow to their ends.
        return Change(
            JobState(revision=1, state="validating", ending=ending, reason=reason, ending_since=now)
        )
    if state.terminal or state.state == "finalizing":
        return NOTHING
    if state.ending is not None:
        return Change(None, state.out if repeated else (), repeated and _nothing_left(state))
    ended = _moved(
        state,
        ending=ending,
        reason=reason,
        ending_since=now,
        paused=False,
        gen=state.gen + 1,
        waiting=None,
        closed_seconds=state.closed_seconds if now is None else _closed(state, now),
    )
    filled, _ = _filled(ended)  # of one that waited to begin nothing was out
    return Change(filled, filled.out, _nothing_left(filled))


def pause(state: JobState | None, waiting: Waiting | None = None) -> Change:
    """Pause a job; shards that are out come back by themselves. `waiting` says why, if not asked
    for. One that waits for its tenant's month does not begin any more when there is room.
    """
    if state is None or state.state != "in_progress" or state.ending:
        return NOTHING
    if state.paused and (waiting is not None or budget.awaits_room(state) is None):
        return NOTHING
    return Change(_moved(state, paused=True, waiting=waiting))


def resume(state: JobState | None, *, repeated: bool = False, now: float = 0.0) -> Change:
    """End a pause: all shards that are out are sent again.

    One that waits for its tenant's month begins by itself, and only so; one that was paused while
    it did waits again.
    """
    if state is None or state.state != "in_progress" or budget.awaits_room(state):
        return NOTHING
    if not state.paused:
        return Change(None, state.out if repeated else ())
    if budget.never_sent(state):
        return Change(_moved(state, waiting=budget.waits_again(now)))
    resumed = _moved(state, paused=False, gen=state.gen + 1, waiting=None)
    return Change(resumed, resumed.out, _nothing_left(resumed))


def wait(state: JobState, waiting: Waiting) -> Change:
    """Note what the job waits for, when that has changed or lasts longer than was told.

    Until a receipt clears it, the same reason at the same deployment is the same wait.
    """
    if state.state != "in_progress" or state.ending or state.paused:
        return UNTOLD
    known = state.waiting
    if known and (known.reason, known.deployment) == (waiting.reason, waiting.deployment):
        if waiting.until is None or waiting.until < (known.until or 0.0) + WORTH_RENEWING:
            return UNTOLD
        waiting = waiting.model_copy(update={"since": min(known.since, waiting.since)})
    elif known and waiting.reason == "latency":
        return UNTOLD  # of one worker; others know of what can be mended
    closed = _closed(state, waiting.since) if waiting.reason != "hours" else state.closed_seconds
    return Change(_moved(state, waiting=waiting, closed_seconds=closed))


def finalize(state: JobState, *, repeated: bool = False, now: float | None = None) -> Change:
    """Every shard has its receipt: assemble, paused or not, for there is nothing left to ask.

    Where something is left, a repeat comes from who asked for an ending or a resume, and may have
    died before anything was sent.
    """
    if not _nothing_left(state):
        going = state.state == "in_progress" and not state.paused
        return Change(None, state.out if repeated and going else ())
    return Change(_moved(state, state="finalizing", paused=False, finalizing_since=now))


def stage(state: JobState, staged: int, *, repeated: bool = False) -> Change:
    """The parts of the first `staged` shards are staged; the next slice goes on from there."""
    if state.state != "finalizing":
        return NOTHING
    if staged <= state.staged:
        return Change(finish=repeated)
    return Change(_moved(state, staged=staged), finish=True)


def close(
    state: JobState,
    *,
    use: Mapping[str, Use],
    lost: Lost,
    now: float,
    manifest: str | None = None,
) -> Change:
    """The manifest stands, under the usual name or that one: the terminal state.

    `use` and `lost` are those of all receipts: a swap by the release 0.1.0 empties the state's.
    """
    if state.state != "finalizing":
        return NOTHING
    ended = _moved(
        state,
        state=state.ending or "completed",
        use=dict(use),
        lost=lost,
        manifest=manifest,
        ended=now,
        sampled=now,
    )
    return Change(ended, sample=sample(ended, now, None))


def nudge(state: JobState, seen_revision: int, *, repeated: bool = False) -> Change:
    """Send all that is out again, as nothing moves; older copies die at their next delivery."""
    if repeated and state.nudges and state.revision == seen_revision + 1 and not state.paused:
        return Change(None, state.out)
    if state.revision != seen_revision or state.state != "in_progress":
        return NOTHING
    if _nothing_left(state):
        return Change(finish=True)
    if state.paused:
        return NOTHING
    # What it waits for from now on is told anew: see `stands_since`.
    waiting = None if state.waiting and state.waiting.reason == "budget" else state.waiting
    nudged = _moved(state, gen=state.gen + 1, nudges=state.nudges + 1, waiting=waiting)
    return Change(nudged, nudged.out)


def retry(state: JobState, *, repeated: bool = False) -> Change:
    """What the job waited for may be there again: its shards come back at once, not when they said.

    The delay leaves the processes time to hear of it, or they would hand the shards back again.
    """
    if state.state != "in_progress" or state.paused:
        return NOTHING
    if repeated and state.waiting is None:
        return Change(None, state.out, delay=RETRY_DELAY)
    if state.waiting is None:
        return NOTHING
    retried = _moved(state, gen=state.gen + 1, waiting=None)
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


def runs(state: JobState, gen: int) -> bool:
    """Whether a shard message of this generation is to be run."""
    return state.state == "in_progress" and not state.paused and gen >= state.gen
