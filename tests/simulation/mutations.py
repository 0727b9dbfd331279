"""Each rule of the protocol, broken: what is worth testing is that the checker can fail.

A mutation changes production code while its world lives. Its seed is a world that catches it; where
a change of the worlds has made it harmless there, `find` looks for another one.
"""

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

import orjson

from schemas.jobs import Ending, Job, JobState, Reason
from schemas.messages import Announcement
from schemas.results import Receipt
from tests.simulation.checker import check
from tests.simulation.scenario import Doing, Scenario, Scripted, Span, scenario, version
from tests.simulation.world import live
from workers.errors import BlobChanged, BlobExists, BlobMissing
from workers.jobs import finisher, lifecycle
from workers.jobs.finisher import Finisher
from workers.jobs.lifecycle import NOTHING, Change
from workers.jobs.store import Held, JobStore
from workers.jobs.transitions import Transition, Transitions
from workers.ports import BlobRef
from workers.shards import attempt, runner
from workers.shards import input as shard_input
from workers.shards.attempt import Attempt
from workers.shards.journal import Journal, Past
from workers.shards.lease import Lease
from workers.shards.suspicion import Suspicion
from workers.sweeper import Sweeper

Patch = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A broken rule, and the world that shows it: mostly a seed's."""

    name: str
    rule: str
    patch: Patch
    world: int | Scenario

    @property
    def scenario(self) -> Scenario:
        """The world that shows it: a seed's, or one made for it."""
        return scenario(self.world) if isinstance(self.world, int) else self.world


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


async def _put(store: JobStore, ref: BlobRef, data: bytes) -> None:
    """Write a blob over whatever is there."""
    while True:
        try:
            await store.blobs.replace(ref, data, (await store.blobs.head(ref)).etag)
        except BlobChanged:
            continue
        except BlobMissing:
            with contextlib.suppress(BlobExists):
                await store.blobs.create(ref, data)
                return
        else:
            return


# -- receipts and state


def receipt_overwritten() -> AbstractContextManager[None]:
    async def create_receipt(store: JobStore, job: str, receipt: Receipt) -> Receipt:
        await _put(store, store._receipt(job, receipt.shard), orjson.dumps(receipt.model_dump()))
        return receipt

    return _instead(JobStore, "create_receipt", create_receipt)


def own_counts() -> AbstractContextManager[None]:
    created = JobStore.create_receipt

    async def create_receipt(store: JobStore, job: str, receipt: Receipt) -> Receipt:
        await created(store, job, receipt)
        return receipt

    return _instead(JobStore, "create_receipt", create_receipt)


def swap_without_if_match() -> AbstractContextManager[None]:
    async def swap(store: JobStore, job: str, before: Held | None, after: JobState) -> bool:
        await _put(store, store.ref(job, "state.json"), orjson.dumps(after.model_dump()))
        return True

    return _instead(JobStore, "swap", swap)


def counted_again() -> AbstractContextManager[None]:
    def advance(state: JobState, receipt: Receipt, *, repeated: bool, now: float) -> Change:
        change = advanced(state, receipt, repeated=repeated, now=now)
        if state.terminal or change.state is not None:
            return change
        counts = state.counts.plus(receipt.counts)
        return Change(state.model_copy(update={"counts": counts, "revision": state.revision + 1}))

    advanced = lifecycle.advance
    return _instead(lifecycle, "advance", advance)


def finished_early() -> AbstractContextManager[None]:
    def nothing_left(state: JobState) -> bool:
        return state.next >= state.shards and state.state == "in_progress"

    return _instead(lifecycle, "_nothing_left", nothing_left)


def last_ending_wins() -> AbstractContextManager[None]:
    ended = lifecycle.end

    def end(
        state: JobState | None, ending: Ending, reason: Reason | None, *, repeated: bool = False
    ) -> Change:
        if state is not None and state.state == "in_progress" and state.ending != ending:
            state = state.model_copy(update={"ending": None})
        return ended(state, ending, reason, repeated=repeated)

    return _instead(lifecycle, "end", end)


def window_ignored() -> AbstractContextManager[None]:
    ended = lifecycle.end

    def end(
        state: JobState | None, ending: Ending, reason: Reason | None, *, repeated: bool = False
    ) -> Change:
        return NOTHING if ending == "expired" else ended(state, ending, reason, repeated=repeated)

    return _instead(lifecycle, "end", end)


def sent_before_swap() -> AbstractContextManager[None]:
    swapped = Transitions._swap

    async def swap(
        transitions: Transitions, job: Job, transition: Transition, repeated: bool
    ) -> tuple[JobState | None, JobState | None, Change, bool]:
        held = await transitions._store.state(job.id)
        change = transition(held.state if held else None, repeated)
        gen = change.state.gen if change.state else 0
        await transitions._outbox.send_shards(job.id, change.shards, gen)
        before, after, change, repeated = await swapped(transitions, job, transition, repeated)
        return before, after, Change(change.state, (), change.finish), repeated

    return _instead(Transitions, "_swap", swap)


def copies_breed() -> AbstractContextManager[None]:
    advanced = lifecycle.advance

    def advance(state: JobState, receipt: Receipt, *, repeated: bool, now: float) -> Change:
        return advanced(state, receipt, repeated=True, now=now)

    return _instead(lifecycle, "advance", advance)


def gen_ignored() -> AbstractContextManager[None]:
    def runs(state: JobState, gen: int) -> bool:
        return state.state == "in_progress" and not state.paused

    return _instead(lifecycle, "runs", runs)


# -- attempts


def journals_not_read() -> AbstractContextManager[None]:
    async def read_journals(*_: object) -> Past:
        return Past()

    return _instead(attempt, "read_journals", read_journals)


def journal_only_at_the_end() -> AbstractContextManager[None]:
    return _instead(Journal, "flush", _nothing)


def lease_ignored() -> AbstractContextManager[None]:
    async def acquire(lease: Lease) -> bool:
        with contextlib.suppress(Exception):
            await lease._blobs.acquire_lease(lease._ref, lease.attempt, 30)
        lease.until = inf
        return True

    return _instead(Lease, "acquire", acquire)


def lease_believed_for_ever() -> AbstractContextManager[None]:
    acquired = Lease.acquire

    async def acquire(lease: Lease) -> bool:
        held = await acquired(lease)
        lease.until = inf
        return held

    async def renew(lease: Lease) -> bool:
        return True

    @contextmanager
    def both() -> Iterator[None]:
        with _instead(Lease, "acquire", acquire), _instead(Lease, "renew", renew):
            yield

    return both()


def ending_drops_rows() -> AbstractContextManager[None]:
    def write_off(attempted: Attempt, ending: Ending) -> None:
        attempted.planned = attempted.planned.model_copy(update={"rows": len(attempted.results)})

    return _instead(Attempt, "write_off", write_off)


def never_suspect() -> AbstractContextManager[None]:
    return _instead(Suspicion, "suspect", property(lambda _: False))


def begun_not_journaled() -> AbstractContextManager[None]:
    async def begin(journal: Journal, rows: Sequence[int]) -> None:
        await journal.flush()

    return _instead(Journal, "begin", begin)


def etag_ignored() -> AbstractContextManager[None]:
    read = shard_input.read_rows

    async def read_rows(store: JobStore, job: Job, *rest: Any) -> list[Any]:
        info = await store.blobs.head(BlobRef(job.container, job.name))
        return await read(store, job.model_copy(update={"etag": info.etag}), *rest)

    return _instead(runner, "read_rows", read_rows)


# -- the beginning and the end of a job


def no_marker() -> AbstractContextManager[None]:
    async def opened(store: JobStore, announcement: Announcement) -> None:
        """Tell nobody."""

    return _instead(JobStore, "open", opened)


def withdrawn_blindly() -> AbstractContextManager[None]:
    async def withdraw(store: JobStore, announcement: Announcement) -> bool:
        await store.close(announcement.job)
        return True

    return _instead(JobStore, "withdraw", withdraw)


def no_sweeper() -> AbstractContextManager[None]:
    return _instead(Sweeper, "run", _nothing)


def marker_deleted_first() -> AbstractContextManager[None]:
    assembled = Finisher._assemble

    async def assemble(finishing: Finisher, job: Job, state: JobState) -> None:
        await finishing._store.close(job.id)
        await assembled(finishing, job, state)

    return _instead(Finisher, "_assemble", assemble)


def end_told_once() -> AbstractContextManager[None]:
    async def tell_end(transitions: Transitions, job: Job, state: JobState) -> None:
        await transitions._store.close(job.id)

    return _instead(Transitions, "tell_end", tell_end)


def ended_before_the_manifest() -> AbstractContextManager[None]:
    assembled = Finisher._assemble

    async def assemble(finishing: Finisher, job: Job, state: JobState) -> None:
        def closed(now: JobState | None, _repeated: bool) -> Change:
            return NOTHING if now is None else lifecycle.close(now, now=finishing._clock())

        await finishing._transitions.take(job, closed)
        await assembled(finishing, job, state)

    return _instead(Finisher, "_assemble", assemble)


class _SomebodyElses(Exception):
    """What exists was taken to be another finisher's."""


def conflict_is_somebody_elses() -> AbstractContextManager[None]:
    ran, committed = Finisher.run, Finisher._commit

    async def commit(finishing: Finisher, job: Job, state: JobState, *rest: Any) -> None:
        with contextlib.suppress(BlobMissing):
            await finishing._blobs.head(finishing._target(job, rest[0]))
            raise _SomebodyElses
        await committed(finishing, job, state, *rest)

    async def run(finishing: Finisher, job: str, *, repeated: bool) -> None:
        with contextlib.suppress(_SomebodyElses):
            await ran(finishing, job, repeated=repeated)

    @contextmanager
    def both() -> Iterator[None]:
        with _instead(Finisher, "run", run), _instead(Finisher, "_commit", commit):
            yield

    return both()


def block_ids_random() -> AbstractContextManager[None]:
    serial = itertools.count()
    return _instead(finisher, "_block_id", lambda shard: f"{shard:04d}{next(serial):04d}")


def parts_in_any_order() -> AbstractContextManager[None]:
    ordered = Finisher._receipts

    async def receipts(finishing: Finisher, job: Job, shards: int) -> AsyncIterator[Receipt]:
        for receipt in reversed([each async for each in ordered(finishing, job, shards)]):
            yield receipt

    return _instead(Finisher, "_receipts", receipts)


# How many copies of a message there are shows in no result: each is delivered for nothing.
DOUBLED = Scenario(
    files=(version("a.jsonl", 1, ("chat",) * 20),),
    shard_rows=2,
    window=3,
    workers=2,
    latency=30.0,
    max_concurrency=1,
    double=1.0,
    faults_until=4000.0,
    most_deliveries=1_000,
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
_ZOMBIE = Scripted("ask", "a.jsonl/1/3/chat", "freeze after", 50.0)
DIES = Scenario(
    files=(version("a.jsonl", 1, ("chat",) * 3),),
    workers=2,
    journal_seconds=60.0,
    completion_window="20s",
    script=(_ZOMBIE, Scripted("create", "/receipts/0", "kill after")),
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
        Scripted("ask", "a.jsonl/1/6/chat", "freeze after", 400.0),
        Scripted("create", "/errors/1.", "freeze before", 60.0),
    ),
)
# The race of docs/protocol.md: A pins the job, and dies; B finds the file gone, and is slow.
WITHDRAWN = Scenario(
    files=(version("a.jsonl", 1, ("chat",) * 3),),
    workers=3,
    slots=1,
    doings=(Doing(0.0, "announce"), Doing(10.0, "delete")),
    script=(
        Scripted("create", "/open/", "nothing"),
        Scripted("create", "/open/", "freeze after", 20.0),
        Scripted("create", "/job.json", "freeze before", 40.0),
        Scripted("delete", "/open/", "freeze before", 60.0),
        Scripted("create", "/state.json", "kill after"),
    ),
)

MUTATIONS: Sequence[Mutation] = (
    Mutation("receipt_overwritten", "a receipt is created once", receipt_overwritten, LINGERS),
    Mutation("own_counts", "count the receipt that stands, not one's own", own_counts, DIES),
    Mutation(
        "swap_without_if_match", "state changes by compare-and-swap", swap_without_if_match, 3
    ),
    Mutation("counted_again", "a shard that is not out is not counted", counted_again, 1),
    Mutation("finished_early", "finish when nothing is out", finished_early, 0),
    Mutation("last_ending_wins", "the first ending wins", last_ending_wins, 29),
    Mutation("window_ignored", "a completion window ends the job", window_ignored, 52),
    Mutation("sent_before_swap", "swap, then send", sent_before_swap, 588),
    Mutation("copies_breed", "a left-over copy sends nothing", copies_breed, DOUBLED),
    Mutation("gen_ignored", "older copies die", gen_ignored, NOBODY_RUNS),
    Mutation("journals_not_read", "keep what earlier attempts journaled", journals_not_read, 5),
    Mutation("journal_only_at_the_end", "journal every interval", journal_only_at_the_end, 143),
    Mutation("lease_ignored", "one attempt at a time asks", lease_ignored, 2),
    Mutation("lease_believed_for_ever", "no call without a lease", lease_believed_for_ever, 11),
    Mutation("ending_drops_rows", "an ending gives each row its line", ending_drops_rows, 3),
    Mutation("never_suspect", "after two crashes in a row, rows in groups", never_suspect, 69),
    Mutation("begun_not_journaled", "a suspect row is journaled as begun", begun_not_journaled, 69),
    Mutation("etag_ignored", "the input is what was planned", etag_ignored, 35),
    Mutation("no_marker", "an open marker stands before the job", no_marker, 11),
    Mutation("withdrawn_blindly", "a job keeps its marker", withdrawn_blindly, WITHDRAWN),
    Mutation("no_sweeper", "jobs that do not move are helped", no_sweeper, 99),
    Mutation("marker_deleted_first", "the marker goes last", marker_deleted_first, 67),
    Mutation("end_told_once", "the last event is told until it is sure", end_told_once, 26),
    Mutation("ended_before_the_manifest", "manifest, then the end", ended_before_the_manifest, 0),
    Mutation(
        "conflict_is_somebody_elses", "a 409 may be one's own", conflict_is_somebody_elses, 11
    ),
    Mutation("block_ids_random", "block ids are the same for everybody", block_ids_random, 0),
    Mutation("parts_in_any_order", "parts stand in plan order", parts_in_any_order, 0),
)


def caught(mutation: Mutation, seed: int | None = None) -> list[str]:
    """What the checker finds in a world whose workers break this rule."""
    with mutation.patch():
        return check(live(mutation.scenario if seed is None else scenario(seed)))


def find(mutation: Mutation, seeds: Sequence[int]) -> int | None:
    """The first of these seeds that catches a mutation."""
    return next((seed for seed in seeds if caught(mutation, seed)), None)
