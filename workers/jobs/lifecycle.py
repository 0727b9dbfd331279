"""State x happening -> state, and what is to be sent: a job's way through its shards.

All that moves a job lives here, and in `beginning`, `pauses`, `helping` and `endings` beside. Each
function takes the stored state and gives a `Change`; a state of None means that nothing is to be
stored.
`repeated` says that somebody may have died between storing and sending: this message is delivered
again, or an earlier swap met a conflict that may have been its own success.
The rules are those of docs/protocol.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from schemas.budgets import JobBudget
from schemas.history import Sample
from schemas.jobs import JobState, Waiting
from schemas.results import Receipt, ShardTokens, Tokens, Use
from workers.jobs import budget
from workers.jobs.pace import done_before, marked, report_due, sample, sample_due
from workers.rows.writing import add_codes, add_totals, added_use

_SUMMED: Final[Mapping[str, str]] = {"hours": "closed_seconds", "budget": "budget_seconds"}
"""The fields that sum how long the whole job waited, by what it waited for."""
SHARED_BY = 4
"""So many seats at a quota may share a job's window; where there are more it is as much wider."""
WIDEST = 4
"""As many times as wide at most."""
WORTH_RENEWING = 10.0
"""Seconds by which a wait has to last longer than was told, to be told again."""


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


class Progress(NamedTuple):
    """How far a shard is that is out: rows that are done, and what they took, in vain too.

    Earlier attempts did the rows that were `found`. `cost` is as in `ShardTokens`.
    """

    rows: int
    found: int = 0
    tokens: Tokens = Tokens()
    cost: int = 0

    def of_shard(self, shard: int) -> ShardTokens:
        """What is stored of it beside its rows."""
        return ShardTokens(shard, self.tokens.prompt, self.tokens.completion, self.cost)


Becomes = Callable[[JobBudget, int], JobBudget]
"""From a budget, and how many shards are out, to the one that follows."""

NOTHING = Change()
UNTOLD = Change(told=False)
"""For what a consumer misses nothing of: rows that are done so far, and what a job waits for."""


def moved(state: JobState, /, **fields: object) -> JobState:
    """The state with other values, one revision on."""
    return state.model_copy(update={"revision": state.revision + 1, **fields})


def widened(window: int, seats: int) -> int:
    """How many shards of a job may be out, where so many processes have a seat at a quota that is
    asked for it, if not for it alone.

    Each is to have the next one at hand before the one that it asks is through: a share that goes
    elsewhere and comes back lies idle twice.
    """
    return min(max(window, window * seats // SHARED_BY), WIDEST * window)


def filled(state: JobState, seats: int = 1) -> tuple[JobState, tuple[int, ...]]:
    """Move shards that were never sent into `out` while there is room."""
    # Each shard that is out of a capped job holds a part of the cap.
    window = widened(state.window, seats) if state.budget is None else state.window
    room = window - len(state.out)
    fresh = tuple(range(state.next, min(state.next + max(room, 0), state.shards)))
    full = state.model_copy(update={"out": state.out + fresh, "next": state.next + len(fresh)})
    return full, fresh


def waited(state: JobState, now: float) -> Mapping[str, float]:
    """What the state is to say of a wait, or of a pause by hand, that ends now: its seconds, of
    those that are summed.

    A shard waits for what others hold of a cap while those are asked: the job is not waiting then.
    """
    waiting = state.waiting
    if state.paused and waiting is None and state.pauses:
        return {"paused_seconds": round(state.paused_seconds + now - state.pauses[-1].at, 3)}
    name = None if waiting is None else _SUMMED.get(waiting.reason)
    if waiting is None or name is None or (waiting.reason == "budget" and not state.paused):
        return {}
    lasted = max(0.0, min(now, waiting.until or now) - waiting.since)
    return {name: round(getattr(state, name) + lasted, 3)}


def nothing_left(state: JobState) -> bool:
    """Whether every shard of a running job has its receipt."""
    return not state.out and state.next >= state.shards and state.state == "in_progress"


def sent(state: JobState, seats: int = 1) -> Change:
    """The state with all shards out that may be, to be sent."""
    full, sends = filled(state, seats)
    return Change(full, sends, nothing_left(full))


def advance(
    state: JobState, receipt: Receipt, *, repeated: bool, now: float, found: int = 0, seats: int = 1
) -> Change:
    """A shard's receipt stands: count it once, send what comes next.

    `found` are the rows that were done when the attempt that tells of it began, `seats` as for
    `widened`.
    """
    if state.terminal:
        return NOTHING
    shard = receipt.shard
    if shard not in state.out:
        # On a first delivery this is a left-over copy: were it to send, copies would breed copies.
        # A paused job's copies would be dropped; resuming sends them.
        resend = state.out if repeated and not state.paused else ()
        return Change(None, resend, nothing_left(state))
    counts, tokens = state.counts.plus(receipt.counts), state.tokens.plus(receipt.tokens)
    running = tuple(each for each in state.running if each[0] != shard)
    others = tuple(each for each in state.running_tokens if each.shard != shard)
    out = sum(rows for _, rows in running)
    asked = receipt.counts.asked
    before = done_before(state.running_rows - out, found, asked)
    counted = moved(
        state,
        out=tuple(other for other in state.out if other != shard),
        counts=counts,
        tokens=tokens,
        codes=add_codes(state.codes, receipt.codes),
        use=added_use(state.use, receipt.use, add_totals, Use()),
        lost=state.lost.plus(receipt.lost),
        running=running,
        running_tokens=others,
        # Rows that nobody was asked for say nothing of how fast the others will be.
        marks=marked(state, out, counts.asked, now, before),
        # A pause goes on, whatever was on its way when it began.
        **({} if state.paused else {"waiting": None, **waited(state, now)}),
        nudges=0,
        budget=state.budget and budget.count(state.budget, receipt),
    )
    return _sampled(sent(counted, seats), now, receipt)


def _sampled(change: Change, now: float, receipt: Receipt | None = None) -> Change:
    """A change with a sample of what comes of it, where one is due.

    A state without the time of the last one has none yet, or was changed by the release 0.1.0.
    """
    state = change.state
    if state is None or not sample_due(state, now):
        return change
    taken = None if state.sampled is None else sample(state, now, receipt)
    return replace(change, state=state.model_copy(update={"sampled": now}), sample=taken)


def report(
    state: JobState, done: Mapping[int, Progress], now: float, *, at_once: bool = False
) -> Change:
    """Rows are done in shards that are out; the numbers are of this process's shards alone.

    Receipts count them for good. A number falls where a crash lost what was not journaled. It is
    told once in a while, or `at_once` where an attempt is over: nobody may come to tell it later.
    """
    if state.state != "in_progress" or not (at_once or report_due(state, now)):
        return UNTOLD
    done = {shard: each for shard, each in done.items() if shard in state.out}
    known, tokens = dict(state.running), {each.shard: each for each in state.running_tokens}
    rows = known | {shard: each.rows for shard, each in done.items()}
    told = tokens | {shard: each.of_shard(shard) for shard, each in done.items()}
    if rows == known and told == tokens:
        return UNTOLD
    before = sum(
        done_before(known.get(shard, 0), each.found, each.rows) for shard, each in done.items()
    )
    reported = moved(
        state,
        running=tuple(sorted(rows.items())),
        running_tokens=tuple(sorted(told.values())),
        marks=marked(state, sum(rows.values()), state.counts.asked, now, before),
    )
    return _sampled(Change(reported), now)


def spend(state: JobState, shard: int, becomes: Becomes) -> Change:
    """What an attempt at a shard that is out may spend, or has spent, becomes another."""
    if state.budget is None or shard not in state.out:
        return UNTOLD
    after = becomes(state.budget, len(state.out))
    return UNTOLD if after is state.budget else Change(moved(state, budget=after))


def wait(state: JobState, waiting: Waiting) -> Change:
    """Note what the job waits for, when that has changed or lasts longer than was told.

    Until a receipt clears it, the same reason at the same deployment is the same wait.
    """
    if state.state != "in_progress" or state.ending or state.paused:
        return UNTOLD
    known, before = state.waiting, waited(state, waiting.since)
    if known and (known.reason, known.deployment) == (waiting.reason, waiting.deployment):
        told_until = known.until or 0.0
        if waiting.until is None and not 0.0 < told_until < waiting.since:
            return UNTOLD
        if waiting.until is not None and waiting.until < told_until + WORTH_RENEWING:
            return UNTOLD
        waiting, before = waiting.model_copy(update={"since": min(known.since, waiting.since)}), {}
    elif known and waiting.reason == "latency":
        return UNTOLD  # of one worker; others know of what can be mended
    return Change(moved(state, waiting=waiting, **before))


def runs(state: JobState, gen: int) -> bool:
    """Whether a shard message of this generation is to be run."""
    return state.state == "in_progress" and not state.paused and gen >= state.gen
