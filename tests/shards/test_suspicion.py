"""Who is blamed for a shard's crashes: found by halves, and nobody else."""

from math import ceil, log2
from random import Random
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.shards.suspicion import ALONE_CRASHES, SUSPECT_CRASHES, Suspicion, Trace

CRASH, WELL = False, True
SEEDS = st.integers(0, 2**32)
Kind = Literal["dies", "killed", "hands back"]


def alone(row: int, *, ended: bool = CRASH) -> Trace:
    return Trace((row,), ended=ended)


def in_a_row(*traces: Trace) -> int:
    return Suspicion(traces).crashes


class Shard:
    """A shard whose culprits kill whoever asks them; others in flight may be done or not."""

    def __init__(self, rows: int, culprits: set[int], rng: Random) -> None:
        self.rows = rows
        self.culprits = culprits
        self.rng = rng
        self.traces: list[Trace] = []
        self.asked: list[int] = []
        self.done: set[int] = set()

    @property
    def suspicion(self) -> Suspicion:
        return Suspicion(self.traces)

    @property
    def crashes(self) -> int:
        return sum(not trace.ended for trace in self.traces)

    @property
    def left(self) -> list[int]:
        gone = self.done | self.suspicion.given_up
        return [row for row in range(self.rows) if row not in gone]

    def attempt(self, kind: Kind = "dies") -> None:
        """Ask what is left. It is `killed`, or `hands back`, in its first group or a later one."""
        suspicion, left, trace = self.suspicion, self.left, Trace()
        self.traces.append(trace)
        groups = suspicion.groups(left) if suspicion.suspect else [left]
        assert sorted(row for group in groups for row in group) == left
        last = self.rng.randrange(len(groups)) if groups else 0
        for at, group in enumerate(groups):
            trace.group = tuple(group) if suspicion.suspect else ()
            broken = bool(self.culprits.intersection(group)) or (kind != "dies" and at == last)
            self._ask(trace, group, broken=broken)
            if self.culprits.intersection(group) or (kind == "killed" and at == last):
                return
            if kind == "hands back" and at == last:
                break
        trace.ended = True

    def _ask(self, trace: Trace, group: list[int], *, broken: bool) -> None:
        good = [row for row in group if row not in self.culprits]
        done = self.rng.sample(good, self.rng.randint(0, len(good))) if broken else good
        self.asked += done
        trace.done.update(done)
        self.done.update(done)


def test_crashes_count_in_a_row() -> None:
    well = Trace(done={3}, ended=WELL)
    assert in_a_row(Trace(), Trace()) == 2
    assert in_a_row(Trace(), well, Trace()) == 1
    assert in_a_row(Trace(), Trace(), well) == 0


def test_an_attempt_that_hands_back_with_nothing_done_clears_no_crash() -> None:
    assert in_a_row(Trace(), Trace(ended=WELL), Trace()) == 2
    assert in_a_row(Trace(), Trace(spent={1}, ended=WELL), Trace()) == 2


def test_rows_done_before_a_crash_clear_nothing() -> None:
    assert in_a_row(Trace(done={1}), Trace(done={2})) == 2


def test_two_crashes_in_a_row_make_a_shard_suspect_and_one_good_attempt_ends_it() -> None:
    killed, well = Trace(done={1}), Trace((4, 5), done={4, 5}, ended=WELL)
    assert [
        Suspicion(traces).suspect
        for traces in ([killed], [killed, killed], [killed, killed, well], [killed, well, killed])
    ] == [False, True, False, False]


@pytest.mark.parametrize(
    ("traces", "given_up"),
    [
        ([alone(5)] * 2, set()),
        ([alone(5)] * 3, {5}),
        ([alone(5), alone(5), Trace((5,), spent={5}, ended=WELL), alone(5), alone(5)], set()),
        ([alone(5), Trace((5,), spent={5}, ended=WELL), *[alone(5)] * 3], {5}),
        ([alone(5), alone(5), alone(6), alone(5)], {5}),
        ([alone(5), alone(5), Trace((5,), done={5})], set()),
        ([Trace((5, 6))] * 9, set()),
        ([Trace()] * 9, set()),
        ([alone(5, ended=WELL)] * 9, set()),
    ],
)
def test_a_row_is_given_up_when_three_attempts_died_over_it_alone(
    traces: list[Trace], given_up: set[int]
) -> None:
    assert Suspicion(traces).given_up == given_up


def test_a_group_is_half_of_the_smallest_that_was_blamed_for_one_of_its_rows() -> None:
    suspicion = Suspicion([Trace(), Trace(), Trace((0, 1, 2, 3)), Trace((6,))])
    assert suspicion.groups(range(8)) == [[6], [0, 1], [2, 3], [4, 5, 7]]


@settings(deadline=None)
@given(st.integers(1, 200), SEEDS)
def test_a_culprit_is_found_by_halves_and_nobody_else_is_given_up(rows: int, seed: int) -> None:
    rng = Random(seed)
    culprit = rng.randrange(rows)
    shard = Shard(rows, {culprit}, rng)
    while shard.left:
        shard.attempt()
    assert shard.suspicion.given_up == {culprit}
    assert shard.done == set(range(rows)) - {culprit}
    assert shard.crashes <= SUSPECT_CRASHES + ceil(log2(rows)) + ALONE_CRASHES
    assert len(shard.asked) == len(set(shard.asked))


@settings(deadline=None)
@given(st.integers(2, 200), st.integers(2, 6), SEEDS)
def test_several_culprits_are_found_each_by_halves(rows: int, many: int, seed: int) -> None:
    rng = Random(seed)
    culprits = set(rng.sample(range(rows), min(many, rows)))
    shard = Shard(rows, culprits, rng)
    while shard.left:
        shard.attempt()
    assert shard.suspicion.given_up == culprits
    assert shard.done == set(range(rows)) - culprits
    each = ceil(log2(rows)) + ALONE_CRASHES
    # A good attempt between two finds begins the count, and with it the search, anew.
    assert shard.crashes <= len(culprits) * (SUSPECT_CRASHES + each)


@settings(deadline=None)
@given(
    st.integers(1, 200),
    st.lists(st.sampled_from(["killed", "hands back", "dies"]), max_size=30),
    SEEDS,
)
def test_a_culprit_is_found_though_workers_are_killed_and_hand_back(
    rows: int, story: list[Kind], seed: int
) -> None:
    rng = Random(seed)
    culprit = rng.randrange(rows)
    shard = Shard(rows, {culprit}, rng)
    for kind in story:
        shard.attempt(kind)
    before = shard.crashes
    while shard.left:
        shard.attempt()
    assert culprit not in shard.done
    assert culprit in shard.suspicion.given_up
    assert shard.crashes - before <= SUSPECT_CRASHES + ceil(log2(rows)) + ALONE_CRASHES


@settings(deadline=None)
@given(st.integers(2, 200), SEEDS)
def test_two_deployments_leave_no_shard_suspect(rows: int, seed: int) -> None:
    rng = Random(seed)
    shard = Shard(rows, set(), rng)
    shard.attempt("killed")
    shard.attempt("killed")
    assert shard.suspicion.suspect
    assert len(shard.suspicion.groups(shard.left)) <= 2
    while shard.suspicion.suspect and shard.left:
        shard.attempt("hands back")
    assert not shard.left or not shard.suspicion.suspect
    assert shard.suspicion.given_up == frozenset()
