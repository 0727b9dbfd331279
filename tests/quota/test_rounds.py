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
from workers.quota.allowance import Grant
from workers.quota.ledger import FASTEST, PER_HOLDER, Ledger, quota_ref
from workers.quota.rounds import PAUSE, Rounds
from workers.quota.shares import SLOWEST_ROUND, Book, Wish
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
            done = await ledger.renew("phi", Wish(1.0, wants, jobs={"a": 1.0}), lambda _: None)
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

    assert interval(wanting=40) == pytest.approx(SLOWEST_ROUND, rel=0.11)
    assert interval(wanting=8) == pytest.approx(8 * PER_HOLDER, rel=0.11)
    assert interval(wanting=40, short=True) == pytest.approx(FASTEST, rel=0.11)
    assert interval(wanting=0, short=True) == pytest.approx(SLOWEST_ROUND, rel=0.11)
    assert ledger.interval(None) == pytest.approx(FASTEST, rel=0.11)
