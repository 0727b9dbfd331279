"""The rounds for one quota go on whatever becomes of one of them."""

import asyncio
import logging
from random import Random
from typing import Any

import pytest

from schemas.deployments import Deployment
from tests.simulation.virtual_time import run
from workers.dispatch.lane import Lane
from workers.quota.rounds import PAUSE, Rounds
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
