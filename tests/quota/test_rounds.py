"""The rounds for one quota go on whatever becomes of one of them."""

import asyncio
import logging
from random import Random
from typing import Any

import pytest

from schemas.deployments import Deployment
from tests.doubles.blobs import MemoryBlobs
from tests.simulation.quota_world import EPOCH
from tests.simulation.virtual_time import run
from workers.dispatch.lane import Lane
from workers.ports import BlobRef
from workers.ports.errors import BlobChanged, Unavailable
from workers.quota.allowance import Grant
from workers.quota.book import Book, Wish
from workers.quota.ledger import (
    AT_ONCE,
    FAILED,
    FASTEST,
    PER_HOLDER,
    PER_SHORT,
    SOONEST,
    TRIES,
    Ledger,
    quota_ref,
)
from workers.quota.rounds import PAUSE, Rounds
from workers.quota.shares import LEASE, MARGIN, SLOWEST_ROUND
from workers.quota.weights import JobWeights


class Abandoning:
    """A ledger whose rounds end as a library has given up what they wait for."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def renew(self, *_: Any) -> None:
        self.asked.append(asyncio.get_running_loop().time())
        raise asyncio.CancelledError

    async def leave(self, *_: Any) -> None:
        return


def test_a_round_that_was_cancelled_from_within_is_followed_by_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(rng: Random) -> None:
        ledger: Any = Abandoning()
        deployment = Deployment(
            name="phi",
            kind="openai",
            url="https://phi.invalid/v1",
            model="phi-3-mini",
            auth="none",
            requests_per_minute=60,
        )
        rounds = Rounds(
            ledger, moved=lambda _: None, asked=lambda _: JobWeights(), queued=lambda _: 1
        )
        lane = Lane(deployment, safe_share=0.1, midnight=1e6, now=0.0, rng=rng)
        rounds.add(lane)
        rounds.wanted(lane)
        sharing = asyncio.create_task(rounds.run())
        await asyncio.sleep(2.5 * PAUSE)
        assert ledger.asked == [0.0, PAUSE, 2 * PAUSE]
        sharing.cancel()
        await asyncio.wait([sharing])
        assert sharing.cancelled()

    with caplog.at_level(logging.ERROR):
        run(story)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["[QUOTA_BUG]"] * 3


def test_who_wants_any_again_says_so_however_little_it_is() -> None:
    async def story(rng: Random) -> None:
        blobs = MemoryBlobs(lambda: EPOCH)
        ledger = Ledger(blobs, "state", rng=rng)
        for wants in (0.0, 0.03, 0.05, 0.0):
            done = await ledger.renew("phi", Wish(1.0, wants, jobs={"a": 1.0}), nothing)
            stored = Book.load((await blobs.read(quota_ref("state", "phi"))).data)
            assert stored is not None
            (held,) = stored.holders.values()
            # From 0.03 to 0.05 is not worth a write.
            assert held.wants == {0.05: 0.03}.get(wants, wants)
            assert bool(done.grant.wanting) == bool(wants)

    run(story)


def test_those_who_want_any_come_the_sooner_the_fewer_they_are() -> None:
    nobody: Any = None
    ledger = Ledger(nobody, "state", rng=Random(1))

    def interval(**grant: Any) -> float:
        return ledger.interval(Grant(0.1, until=9.5, holders=40, **grant))

    assert interval(wanting=100) == pytest.approx(SLOWEST_ROUND, rel=0.11)
    assert interval(wanting=8) == pytest.approx(8 * PER_HOLDER, rel=0.11)
    assert interval(wanting=1) == pytest.approx(FASTEST, rel=0.11)
    assert interval(wanting=8, short=True) == pytest.approx(SOONEST, rel=0.11)
    assert interval(wanting=40, short=True) == pytest.approx(40 * PER_SHORT, rel=0.11)
    assert interval(wanting=0, short=True) == pytest.approx(SLOWEST_ROUND, rel=0.11)
    # What another one's death leaves, those who want any look for when its entry runs out.
    assert interval(wanting=40, lapses=1.0) == 1.0
    assert interval(wanting=40, lapses=0.01) == SOONEST
    assert interval(wanting=0, lapses=1.0) == pytest.approx(SLOWEST_ROUND, rel=0.11)
    assert ledger.interval(None) == pytest.approx(FAILED, rel=0.11)


def test_what_was_handed_over_is_used_as_soon_as_it_is_read() -> None:
    async def story(rng: Random) -> None:
        blobs, began = Racing(lambda: EPOCH + loop.time()), loop.time()
        one, other = (Ledger(blobs, "state", rng=rng) for _ in range(2))
        used: list[tuple[float, float | None]] = []
        wish = Wish(1.0, 1.0, jobs={"a": 1.0})
        await one.renew("phi", wish, nothing)
        assert (await other.renew("phi", wish, nothing)).grant.share == 0.0
        await one.renew("phi", wish, nothing)
        writes = blobs.writes
        await asyncio.sleep(1.0)
        grant = (await other.renew("phi", wish, lambda *told: used.append(told))).grant
        # No write was needed, and the entry lasts as long as if nobody had handed over anything.
        assert (grant.share, grant.until, blobs.writes) == (0.5, began + LEASE - MARGIN, writes)
        # Where a write is needed, and others are faster, it is used before that has succeeded.
        await one.renew("phi", Wish(1.0, 0.0, jobs={"a": 1.0}), nothing)
        blobs.race = 2
        began = loop.time()
        await other.renew("phi", Wish(2.0, 1.0, jobs={"b": 2.0}), lambda *told: used.append(told))
        assert used == [(1.0, grant.until)] * 3
        assert loop.time() > began

    loop: Any = None

    async def with_loop(rng: Random) -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        await story(rng)

    run(with_loop)


@pytest.mark.parametrize("conflicts", [1, AT_ONCE, AT_ONCE + 1])
def test_who_gives_up_a_share_waits_for_few_conflicts(conflicts: int) -> None:
    async def story(rng: Random) -> None:
        blobs = Racing(lambda: EPOCH)
        one, other, third = (Ledger(blobs, "state", rng=rng) for _ in range(3))
        for ledger in (one, other):
            await ledger.renew("phi", Wish(1.0, 1.0, jobs={"a": 1.0}), nothing)
        blobs.race, began = conflicts, asyncio.get_running_loop().time()
        grant = (await one.renew("phi", Wish(1.0, 1.0, jobs={"a": 1.0}), nothing)).grant
        assert (grant.share, one.conflicts) == (0.5, conflicts)
        assert (asyncio.get_running_loop().time() == began) == (conflicts <= AT_ONCE)
        blobs.race = 1
        await third.renew("phi", Wish(1.0, 1.0, jobs={"a": 1.0}), nothing)
        assert asyncio.get_running_loop().time() > began

    run(story)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (Wish(1.0, 0.0, jobs={"a": 1.0}), Wish(1.0, 1.0, jobs={"a": 1.0})),
        (Wish(0.1, 1.0, jobs={"a": 0.1}), Wish(4.1, 1.0, jobs={"a": 0.1, "b": 4.0})),
    ],
    ids=["calls again", "another job"],
)
def test_what_others_have_to_know_is_told_at_once(before: Wish, now: Wish) -> None:
    async def story(rng: Random) -> None:
        blobs = Racing(lambda: EPOCH)
        one, other = (Ledger(blobs, "state", rng=rng) for _ in range(2))
        await one.renew("phi", before, nothing)
        await other.renew("phi", Wish(1.0, 1.0, jobs={"c": 1.0}), nothing)
        writes = blobs.writes
        grant = (await one.renew("phi", now, nothing)).grant
        assert (grant.share < 1.0, blobs.writes) == (True, writes + 1)

    run(story)


def test_one_that_wants_none_comes_again_soon_where_somebody_waits_for_its_seat() -> None:
    async def story(rng: Random) -> None:
        blobs = MemoryBlobs(lambda: EPOCH)
        one, other = (Ledger(blobs, "state", rng=rng) for _ in range(2))
        some, none = (Wish(1.0, wants, seats=1, jobs={"a": 1.0}) for wants in (1.0, 0.0))
        await one.renew("phi", some, nothing)
        await other.renew("phi", none, nothing)
        # Nobody who wants any waits.
        assert (await one.renew("phi", none, nothing)).grant.wanting == 0
        await other.renew("phi", some, nothing)
        assert (await one.renew("phi", none, nothing)).grant.wanting == 1

    run(story)


def test_how_much_more_is_wanted_is_told_by_those_who_have_less_than_is_fair() -> None:
    async def told(rng: Random, first: float, then: float, others: int) -> bool:
        blobs = Racing(lambda: EPOCH)
        ledgers = [Ledger(blobs, "state", rng=rng) for _ in range(1 + others)]
        for ledger in ledgers[1:] + ledgers:
            wants = first if ledger is ledgers[0] else 1.0
            await ledger.renew("phi", Wish(1.0, wants, jobs={"a": 1.0}), nothing)
        writes = blobs.writes
        await ledgers[0].renew("phi", Wish(1.0, then, jobs={"a": 1.0}), nothing)
        return blobs.writes > writes

    async def story(rng: Random) -> None:
        # It has a quarter, as is fair, whichever of both it wants.
        assert not await told(rng, 1.0, 0.6, 3)
        assert await told(rng, 1.0, 0.4, 3)
        # Of the first one's quota it has had nothing yet.
        assert await told(rng, 0.01, 1.0, 1)

    run(story)


def test_a_write_that_lands_after_all_hands_over_nothing_that_is_used_still() -> None:
    async def story(rng: Random) -> None:
        blobs = Racing(lambda: EPOCH)
        one, other = (Ledger(blobs, "state", rng=rng) for _ in range(2))
        used = 1.0

        def meanwhile(share: float, until: float | None) -> None:
            nonlocal used
            used = min(used, share) if until is None else share

        for ledger in (one, other):
            await ledger.renew("phi", Wish(1.0, 1.0, jobs={"a": 1.0}), nothing)
        blobs.hang = True
        with pytest.raises(Unavailable):
            await one.renew("phi", Wish(1.0, 1.0, jobs={"a": 1.0}), meanwhile)
        assert used == 0.5
        # The ledger reads as before, and the same as before is wished: nothing would be to write.
        blobs.race = TRIES
        with pytest.raises(Unavailable):
            await one.renew("phi", Wish(1.0, 1.0, jobs={"a": 1.0}), meanwhile)
        blobs.race = 0
        await blobs.land()
        grant = (await other.renew("phi", Wish(1.0, 1.0, jobs={"a": 1.0}), nothing)).grant
        assert (used, grant.share) == (0.5, 0.5)
        grant = (await one.renew("phi", Wish(1.0, 1.0, jobs={"a": 1.0}), meanwhile)).grant
        assert grant.share == 0.5

    run(story)


class Racing(MemoryBlobs):
    """Storage where somebody else is faster, so many times, or where a write hangs."""

    race = 0
    hang = False
    writes = 0
    late: tuple[BlobRef, bytes, str] | None = None

    async def replace(self, ref: BlobRef, data: bytes, etag: str) -> str:
        if self.race:
            self.race -= 1
            raise BlobChanged(ref.name)
        if self.hang:
            self.hang, self.late = False, (ref, data, etag)
            await asyncio.Event().wait()
        self.writes += 1
        return await super().replace(ref, data, etag)

    async def land(self) -> None:
        """What hung comes through."""
        assert self.late is not None
        await self.replace(*self.late)


def nothing(_share: float, _until: float | None) -> None:
    """Use nothing meanwhile."""
