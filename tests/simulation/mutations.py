"""Each rule of the protocol, broken: what is worth testing is that the checker can fail.

A mutation is either storage that is used wrongly (`lies`), or one of production's public decisions
made wrongly. Its world catches it; where a change of the worlds has made it harmless there, `find`
looks for another one.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

from schemas.jobs import Ending, Job, JobState, Reason
from schemas.listing import Done
from schemas.messages import Announcement, ShardMessage
from schemas.results import Receipt
from schemas.status import JobStatus
from tests.simulation import broken_caps, lies
from tests.simulation.checker import check
from tests.simulation.scenario import Doing, Mishap, Scenario, Span, version
from tests.simulation.swarm import scenario
from tests.simulation.world import live
from workers import service
from workers.inbox import Inbox
from workers.intake import markers
from workers.jobs import endings, lifecycle, pauses
from workers.jobs.finisher import Finisher
from workers.jobs.history import History
from workers.jobs.index import JobIndex
from workers.jobs.lifecycle import NOTHING, Change
from workers.jobs.outbox import Outbox
from workers.jobs.store import JobStore
from workers.jobs.transitions import Transition, Transitions
from workers.ports import Blobs
from workers.ports.telemetry import Telemetry
from workers.shards import journal, suspicion
from workers.shards.attempt import Attempt
from workers.shards.suspicion import Suspicion, Trace
from workers.sweeper import Sweeper

Patch = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A broken rule, and the world that shows it: mostly a seed's.

    `by_observers`: nobody but those who look at jobs while they run can notice.
    """

    name: str
    rule: str
    world: int | Scenario
    patch: Patch = contextlib.nullcontext
    storage: Callable[[Blobs], Blobs] | None = None
    by_observers: bool = False

    @property
    def scenario(self) -> Scenario:
        """The world that shows it: a seed's, or one made for it."""
        return self.world if isinstance(self.world, Scenario) else _of_seed(self.world)


def _of_seed(seed: int) -> Scenario:
    """The world of a seed; what goes round in it without end is noticed soon."""
    return replace(scenario(seed), most_deliveries=150)


@contextmanager
def _instead(place: object, name: str, other: object) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, other)
    try:
        yield
    finally:
        setattr(place, name, before)


async def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing at all."""


# -- decisions


def counted_again() -> AbstractContextManager[None]:
    def advance(state: JobState, receipt: Receipt, *, repeated: bool, **how: Any) -> Change:
        change = advanced(state, receipt, repeated=repeated, **how)
        if state.terminal or change.state is not None:
            return change
        counts = state.counts.plus(receipt.counts)
        return Change(state.model_copy(update={"counts": counts, "revision": state.revision + 1}))

    advanced = lifecycle.advance
    return _instead(lifecycle, "advance", advance)


@contextmanager
def finished_early() -> Iterator[None]:
    advanced = lifecycle.advance

    def advance(state: JobState, receipt: Receipt, *, repeated: bool, **how: Any) -> Change:
        change = advanced(state, receipt, repeated=repeated, **how)
        after = change.state or state
        return Change(change.state, change.shards, finish=after.next >= after.shards)

    def finalize(state: JobState, **_: Any) -> Change:
        if state.state != "in_progress" or state.next < state.shards:
            return NOTHING
        moved = {"revision": state.revision + 1, "state": "finalizing", "paused": False}
        return Change(state.model_copy(update=moved))

    with _instead(lifecycle, "advance", advance), _instead(endings, "finalize", finalize):
        yield


def last_ending_wins() -> AbstractContextManager[None]:
    ended = endings.end

    def end(state: JobState | None, ending: Ending, reason: Reason | None, **how: Any) -> Change:
        if state is not None and state.state == "in_progress" and state.ending != ending:
            state = state.model_copy(update={"ending": None})
        return ended(state, ending, reason, **how)

    return _instead(endings, "end", end)


def window_ignored() -> AbstractContextManager[None]:
    ended = endings.end

    def end(state: JobState | None, ending: Ending, reason: Reason | None, **how: Any) -> Change:
        return NOTHING if ending == "expired" else ended(state, ending, reason, **how)

    return _instead(endings, "end", end)


def ending_keeps_the_pause() -> AbstractContextManager[None]:
    ended = endings.end

    def end(state: JobState | None, ending: Ending, reason: Reason | None, **how: Any) -> Change:
        change = ended(state, ending, reason, **how)
        if state is None or change.state is None:
            return change
        kept = change.state.model_copy(update={"paused": state.paused})
        return Change(kept, change.shards, change.finish)

    return _instead(endings, "end", end)


def revision_stands_still() -> AbstractContextManager[None]:
    paused = pauses.pause

    def pause(state: JobState | None, **how: Any) -> Change:
        change = paused(state, **how)
        if state is None or change.state is None:
            return change
        return Change(change.state.model_copy(update={"revision": state.revision}))

    return _instead(pauses, "pause", pause)


def copies_breed() -> AbstractContextManager[None]:
    advanced = lifecycle.advance

    def advance(state: JobState, receipt: Receipt, *, repeated: bool, **how: Any) -> Change:
        return advanced(state, receipt, repeated=True, **how)

    return _instead(lifecycle, "advance", advance)


def gen_ignored() -> AbstractContextManager[None]:
    def runs(state: JobState, *_: Any, **__: Any) -> bool:
        return state.state == "in_progress" and not state.paused

    return _instead(lifecycle, "runs", runs)


def ending_drops_rows() -> AbstractContextManager[None]:
    def write_off(attempted: Attempt, ending: Ending) -> None:
        attempted.planned = attempted.planned.model_copy(update={"rows": len(attempted.results)})

    return _instead(Attempt, "write_off", write_off)


class _ForEver(Suspicion):
    """Counts every crash that ever was."""

    def __init__(self, traces: Sequence[Trace]) -> None:
        super().__init__([trace for trace in traces if not trace.ended])


class _Whole(Suspicion):
    """Asks all suspects at the same time, however often that went wrong."""

    def groups(self, left: Sequence[int]) -> list[list[int]]:
        return [list(left)] if left else []


class _GroupGivenUp(Suspicion):
    """Gives rows up that were never alone."""

    def __init__(self, traces: Sequence[Trace]) -> None:
        super().__init__(traces)
        blamed = Counter(row for trace in traces if not trace.ended for row in trace.group)
        self.given_up = frozenset(row for row, times in blamed.items() if times >= 3)


# -- the order of swap, sends and events


class _Ordered(Transitions):
    """Transitions whose store and outbox a mutation can use in another order."""

    def __init__(
        self,
        store: JobStore,
        outbox: Outbox,
        history: History,
        *,
        rng: Random,
        telemetry: Telemetry,
    ) -> None:
        super().__init__(store, outbox, history, rng=rng, telemetry=telemetry)
        self.store = store
        self.outbox = outbox


class _SendsFirst(_Ordered):
    async def take(
        self, job: Job, transition: Transition, *, repeated: bool = False
    ) -> JobState | None:
        held = await self.store.state(job.id)
        change = transition(held.state if held else None, repeated)
        gen = change.state.gen if change.state else 0
        shards = [ShardMessage(job=job.id, shard=shard, gen=gen) for shard in change.shards]
        await self.outbox.send_shards(shards)

        def silent(state: JobState | None, again: bool) -> Change:
            change = transition(state, again)
            return Change(change.state, (), change.finish)

        return await super().take(job, silent, repeated=repeated)


class _TellsOnce(_Ordered):
    async def tell_end(self, job: Job, state: JobState) -> None:
        await self.store.close(job.id)


def withdrawn_blindly() -> AbstractContextManager[None]:
    async def withdraw(store: JobStore, announcement: Announcement) -> bool:
        await store.close(announcement.job)
        return True

    return _instead(markers, "withdraw", withdraw)


def conflict_is_somebody_elses() -> AbstractContextManager[None]:
    ran = Finisher.run

    async def run(finishing: Finisher, job: str, *, repeated: bool) -> None:
        with contextlib.suppress(lies.SomebodyElses):
            await ran(finishing, job, repeated=repeated)

    return _instead(Finisher, "run", run)


def status_remembered() -> AbstractContextManager[None]:
    told = JobIndex.status
    seen: dict[str, list[tuple[JobStatus, int] | None]] = {}

    async def status(index: JobIndex, identity: str, now: float) -> tuple[JobStatus, int] | None:
        answers = seen.setdefault(identity, [])
        answers.append(await told(index, identity, now))
        return answers[-3] if len(answers) % 3 == 0 else answers[-1]

    return _instead(JobIndex, "status", status)


def requests_dropped() -> AbstractContextManager[None]:
    return _instead(Inbox, "dead_jobs", _nothing)


def rejected_in_silence() -> AbstractContextManager[None]:
    return _instead(Outbox, "tell_rejection", _nothing)


def end_forgotten() -> AbstractContextManager[None]:
    async def end(store: JobStore, done: Done) -> None:
        await store.close(done.id)

    return _instead(JobStore, "end", end)


def verdict_not_kept() -> AbstractContextManager[None]:
    return _instead(JobStore, "create_verdict", _nothing)


# How many copies of a message there are shows in no result: each is delivered for nothing.
DOUBLED = Scenario(
    files=(version("a.jsonl", 1, ("chat",) * 20),),
    shard_rows=2,
    window=3,
    workers=2,
    latency=30.0,
    max_concurrency=1,
    chances={"double": 1.0},
    faults_until=4000.0,
    most_deliveries=250,
)
NOBODY_RUNS = Scenario(
    files=(version("a.jsonl", 1, ("chat",) * 20),),
    shard_rows=10,
    window=2,
    workers=2,
    latency=30.0,
    max_concurrency=1,
    no_runs=(Span(0.0, 6 * 3600.0),),
    most_deliveries=100,
)
# A zombie that has all its rows, expired meanwhile and written off by another worker, who dies
# before it counts (DIES), or is slow with the other shard (LINGERS).
_ZOMBIE = Mishap("ask", "a.jsonl/1/3/chat", "freeze after", seconds=50.0)
DIES = Scenario(
    files=(version("a.jsonl", 1, ("chat",) * 3),),
    workers=2,
    journal_seconds=60.0,
    completion_window="20s",
    script=(_ZOMBIE, Mishap("create", "/receipts/0", "kill after")),
)
LINGERS = Scenario(
    files=(version("a.jsonl", 1, ("chat",) * 6),),
    workers=3,
    slots=1,
    shard_rows=3,
    journal_seconds=60.0,
    completion_window="20s",
    script=(
        _ZOMBIE,
        Mishap("ask", "a.jsonl/1/6/chat", "freeze after", seconds=400.0),
        Mishap("create", "/errors/1.", "freeze before", seconds=60.0),
    ),
)
# The race of docs/protocol.md: A pins the job, and dies; B finds the file gone, and is slow.
WITHDRAWN = Scenario(
    files=(version("a.jsonl", 1, ("chat",) * 3),),
    workers=3,
    slots=1,
    doings=(Doing(0.0, "announce"), Doing(10.0, "delete")),
    script=(
        Mishap("create", "/open/", "freeze after", nth=2, seconds=20.0),
        Mishap("create", "/job.json", "freeze before", seconds=40.0),
        Mishap("delete", "/open/", "freeze before", seconds=60.0),
        Mishap("create", "/state.json", "kill after"),
    ),
)

# The worker dies when everything but the manifest stands.
DIES_AT_THE_MANIFEST = Scenario(
    files=(version("a.jsonl", 1, ("chat",) * 3),),
    script=(Mishap("create", "/manifest.json", "kill before"),),
)

# A file that its job's options do not allow, told twice; one that was never there is asked for.
UNFIT = Scenario(
    files=(version("f0.jsonl", 1, ("chat", "invalid", "chat")),),
    options={"on_invalid": "fail"},
)
MISNAMED = Scenario(files=(version("f0.jsonl", 1, ("chat",) * 3),), doings=(Doing(1.0, "misname"),))
# Storage refuses a request until it is among the dead letters.
REFUSED = Scenario(
    files=(version("f0.jsonl", 1, ("chat",) * 3),),
    queued=True,
    max_deliveries=2,
    script=tuple(Mishap("create", "/open/", "refused", nth=nth) for nth in range(1, 4)),
)
# Somebody's own file lies where the results are to be.
# It takes minutes, so that people look at it again and again.
WATCHED = Scenario(
    seed=1,
    files=(version("f0.jsonl", 1, ("chat",) * 20),),
    latency=10.0,
    max_concurrency=1,
    shard_rows=4,
)

# Who has all answers writes the receipt late, while another still asks the same rows.
CAP = {"max_tokens": 20, "max_total_tokens": 1000}
ASKED_BESIDE = Scenario(
    files=(version("a.jsonl", 1, ("chat",) * 3),),
    options=CAP,
    workers=2,
    journal_seconds=60.0,
    script=(
        Mishap("ask", "a.jsonl/1/3/chat", "freeze after", seconds=60.0),
        Mishap("ask", "a.jsonl/1/3/chat", "slow", nth=2, seconds=30.0),
    ),
)
# A first lot that storage takes when larger ones stand; then the worker dies.
LATE_LOT = Scenario(
    seed=6,
    files=(version("a.jsonl", 1, ("chat",) * 12),),
    options={**CAP, "max_total_tokens": 9000},
    workers=2,
    shard_rows=12,
    max_concurrency=1,
    latency=3.0,
    script=(
        Mishap("append", "/journal/", "late", seconds=12.0),
        Mishap("ask", "a.jsonl/1/6/chat", "kill after"),
    ),
)
# A frozen attempt wakes and hands its rows back while another asks them.
WOKEN = Scenario(
    files=(version("a.jsonl", 1, ("chat",) * 8),),
    options={**CAP, "max_total_tokens": 4000},
    workers=2,
    shard_rows=8,
    max_concurrency=1,
    latency=8.0,
    script=(Mishap("ask", "a.jsonl/1/2/chat", "freeze after", seconds=60.0),),
)
# The cap suffices only for those who wait until others give back what they did not need.
WAITED_FOR = Scenario(
    files=(version("a.jsonl", 1, ("chat",) * 12),),
    options={**CAP, "max_total_tokens": 1100},
    workers=2,
    shard_rows=4,
    window=3,
)

# The month has room for one of two jobs at a time; somebody would have the other begin by hand.
ONE_AT_A_TIME = Scenario(
    files=(version("a.jsonl", 1, ("chat",) * 8), version("b.jsonl", 1, ("chat",) * 8)),
    options={"max_tokens": 20, "max_cost": "0.003", "on_budget": "pause"},
    month_cap=0.005,
    latency=10.0,
    max_concurrency=1,
    doings=(Doing(20.0, "resume", 0), Doing(20.0, "resume", 1)),
)
ONE_AFTER_ANOTHER = replace(ONE_AT_A_TIME, doings=())

MUTATIONS: Sequence[Mutation] = (
    Mutation("no_lot", "a lot stands before its calls are made", 13, broken_caps.no_lot),
    Mutation("no_pledge", "a call is made if what it can cost fits", 6, broken_caps.no_pledge),
    Mutation(
        "lots_forgotten", "after a crash a lot counts as spent", 29, broken_caps.lots_forgotten
    ),
    Mutation(
        "late_lot_counts",
        "a line that comes late makes no lot smaller",
        LATE_LOT,
        broken_caps.late_line_makes_smaller,
    ),
    Mutation(
        "unknown_costs_nothing",
        "a call that tells no usage counts in full",
        86,
        broken_caps.unknown_costs_nothing,
    ),
    Mutation(
        "allotments_not_seen",
        "what others may spend is not given away",
        42,
        broken_caps.allotments_not_seen,
    ),
    Mutation(
        "own_receipt_believed",
        "an earlier attempt's receipt counts all of the last one's",
        ASKED_BESIDE,
        broken_caps.own_receipt_believed,
    ),
    Mutation(
        "given_back_by_anybody",
        "an attempt gives back its own allotment alone",
        WOKEN,
        broken_caps.given_back_by_anybody,
    ),
    Mutation("returned_twice", "a pledge comes back once", 13, broken_caps.returned_twice),
    Mutation("counted_by_nobody", "a receipt counts", 13, broken_caps.counted_by_nobody),
    Mutation(
        "others_not_waited_for",
        "who may give back is waited for",
        WAITED_FOR,
        broken_caps.others_not_waited_for,
    ),
    Mutation(
        "crash_begins_anew",
        "what earlier attempts spent counts",
        13,
        broken_caps.crash_begins_anew,
    ),
    Mutation(
        "stale_reading_believed",
        "who has read before another began takes nothing from it",
        525,
        broken_caps.stale_reading_believed,
    ),
    Mutation(
        "month_not_asked",
        "a job asks once it has its part of its month",
        75,
        broken_caps.month_not_asked,
    ),
    Mutation(
        "month_never_returned",
        "what an ended job did not spend is returned",
        ONE_AFTER_ANOTHER,
        broken_caps.month_never_returned,
    ),
    Mutation(
        "month_counts_reservations_alone",
        "what ended jobs spent counts in their month",
        ONE_AFTER_ANOTHER,
        broken_caps.month_counts_reservations_alone,
    ),
    Mutation(
        "room_not_looked_for",
        "what waits for its month begins when there is room",
        ONE_AT_A_TIME,
        broken_caps.room_not_looked_for,
    ),
    Mutation(
        "begun_by_hand",
        "what waits for its month is not begun otherwise",
        ONE_AT_A_TIME,
        broken_caps.begun_by_hand,
    ),
    Mutation("paused_by_nobody", "on_budget pauses", 245, broken_caps.paused_by_nobody),
    Mutation(
        "status_remembered",
        "a status is told from the document that stands",
        WATCHED,
        status_remembered,
        by_observers=True,
    ),
    Mutation("requests_dropped", "a dead letter is tried again", REFUSED, requests_dropped),
    Mutation("rejected_in_silence", "what yields no job is told", MISNAMED, rejected_in_silence),
    Mutation("end_forgotten", "an end outlives its job's folder", WATCHED, end_forgotten),
    Mutation("verdict_not_kept", "the verdict stands before the plan", UNFIT, verdict_not_kept),
    Mutation(
        "others_file_taken",
        "what somebody else wrote is not the results",
        85,
        storage=lies.TakesAnyFile,
    ),
    Mutation(
        "receipt_overwritten",
        "a receipt is created once",
        LINGERS,
        storage=lies.OverwritesReceipts,
    ),
    Mutation(
        "own_counts",
        "count the receipt that stands, not one's own",
        DIES,
        storage=lies.CountsItsOwn,
    ),
    Mutation(
        "receipt_before_its_parts", "parts, then the receipt", 47, storage=lies.ReceiptsBeforeParts
    ),
    Mutation("duplicates_lost", "duplicates are found", 23, storage=lies.NoDuplicates),
    Mutation(
        "swap_without_if_match", "state changes by compare-and-swap", 34, storage=lies.SwapsBlindly
    ),
    Mutation("reads_stale", "a status is read as it stands", 25, storage=lies.ReadsStale),
    Mutation("counted_again", "a shard that is not out is not counted", 1, counted_again),
    Mutation("finished_early", "finish when nothing is out", 0, finished_early),
    Mutation("last_ending_wins", "the first ending wins", 107, last_ending_wins),
    Mutation("ending_keeps_the_pause", "an ending ends the pause", 0, ending_keeps_the_pause),
    Mutation("revision_stands_still", "each change raises the revision", 0, revision_stands_still),
    Mutation("window_ignored", "a completion window ends the job", 41, window_ignored),
    Mutation(
        "sent_before_swap",
        "swap, then send",
        36,
        partial(_instead, service, "Transitions", _SendsFirst),
    ),
    Mutation("copies_breed", "a left-over copy sends nothing", DOUBLED, copies_breed),
    Mutation("gen_ignored", "older copies die", NOBODY_RUNS, gen_ignored),
    Mutation(
        "journals_not_read", "keep what earlier attempts journaled", 1, storage=lies.JournalsUnread
    ),
    Mutation("journal_only_at_the_end", "journal every interval", 6, storage=lies.JournalsAtTheEnd),
    Mutation("end_not_written", "an attempt that lives has an end", 2, storage=lies.NoEndMark),
    Mutation(
        "empty_journals_stay",
        "an end with nothing to say leaves nothing",
        0,
        storage=lies.KeepsEmptyJournals,
    ),
    Mutation("lease_ignored", "one attempt at a time asks", 10, storage=lies.NobodysLease),
    Mutation("lease_believed_for_ever", "no call without a lease", 39, storage=lies.LeaseForEver),
    Mutation("lease_kept", "an end gives the lease back", 2, storage=lies.KeepsItsLease),
    Mutation("ending_drops_rows", "an ending gives each row its line", 1, ending_drops_rows),
    Mutation(
        "never_suspect",
        "after two crashes in a row, rows in groups",
        52,
        storage=lies.NeverSuspects,
    ),
    Mutation(
        "suspected_too_soon",
        "only two crashes in a row make a shard suspect",
        10,
        partial(_instead, suspicion, "SUSPECT_CRASHES", 1),
    ),
    Mutation(
        "suspected_for_ever",
        "a clean attempt clears crashes",
        33,
        partial(_instead, journal, "Suspicion", _ForEver),
    ),
    Mutation(
        "given_up_too_soon",
        "a row is given up after three crashes of its own",
        10,
        partial(_instead, suspicion, "ALONE_CRASHES", 1),
    ),
    Mutation(
        "not_by_halves",
        "a blamed group is asked in halves",
        52,
        partial(_instead, journal, "Suspicion", _Whole),
    ),
    Mutation(
        "group_given_up",
        "only a row alone is given up",
        52,
        partial(_instead, journal, "Suspicion", _GroupGivenUp),
    ),
    Mutation(
        "end_not_owed",
        "an end that cannot be written is owed",
        45,
        storage=lies.EndsTriedOnce,
    ),
    Mutation(
        "begun_not_journaled", "a suspect row is journaled as begun", 52, storage=lies.NoBeginMark
    ),
    Mutation("etag_ignored", "the input is what was planned", 91, storage=lies.ReadsAnyVersion),
    Mutation("no_marker", "an open marker stands before the job", 8, storage=lies.NoMarker),
    Mutation("withdrawn_blindly", "a job keeps its marker", WITHDRAWN, withdrawn_blindly),
    Mutation(
        "no_sweeper",
        "jobs that do not move are helped",
        26,
        partial(_instead, Sweeper, "run", _nothing),
    ),
    Mutation("marker_deleted_first", "the marker goes last", 24, storage=lies.MarkerGoesFirst),
    Mutation(
        "end_told_once",
        "the last event is told until it is sure",
        15,
        partial(_instead, service, "Transitions", _TellsOnce),
    ),
    Mutation(
        "ended_before_the_manifest",
        "manifest, then the end",
        DIES_AT_THE_MANIFEST,
        storage=lies.EndsBeforeTheManifest,
    ),
    Mutation(
        "conflict_is_somebody_elses",
        "a 409 may be one's own",
        2,
        conflict_is_somebody_elses,
        lies.ConflictIsSomebodyElses,
    ),
    Mutation(
        "block_ids_random", "block ids are the same for everybody", 0, storage=lies.RandomBlockIds
    ),
    Mutation("parts_in_any_order", "parts stand in plan order", 0, storage=lies.PartsInAnyOrder),
)


def caught(mutation: Mutation, seed: int | None = None) -> list[str]:
    """What the checker finds in a world whose workers break this rule."""
    with mutation.patch():
        world = mutation.scenario if seed is None else _of_seed(seed)
        return check(live(world, storage=mutation.storage))


def find(mutation: Mutation, seeds: Sequence[int]) -> int | None:
    """The first of these seeds that catches a mutation, and is in order where the rule is kept."""
    catching = (seed for seed in seeds if caught(mutation, seed))
    return next((seed for seed in catching if not check(live(_of_seed(seed)))), None)
