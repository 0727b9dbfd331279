"""Whose is the minute: one of those who claim it, by storage's clock alone."""

import asyncio

import pytest

from tests.doubles import MemoryBlobs
from workers.ports import BlobRef, Stored
from workers.ports.errors import Unavailable
from workers.quota.claims import CLAIM_SECONDS, ProbeClaims
from workers.quota.health import HealthBoard

from .conftest import Clock

EVERY = 66.0


@pytest.fixture
def blobs(clock: Clock) -> MemoryBlobs:
    return MemoryBlobs(clock)


async def test_who_comes_within_the_time_hears_when_it_is_over(
    blobs: MemoryBlobs, clock: Clock
) -> None:
    one, two = ProbeClaims(blobs, "state"), ProbeClaims(blobs, "state")
    assert await one.claim("phi", EVERY) == 0.0
    clock.now += 20.0
    assert await two.claim("phi", EVERY) == 46.0
    assert await one.claim("phi", EVERY) == 46.0
    assert await two.claim("other", EVERY) == 0.0
    clock.now += 46.0
    assert await two.claim("phi", EVERY) == 0.0
    assert await one.claim("phi", EVERY) == EVERY


@pytest.mark.parametrize("first", [True, False], ids=["nobody has claimed yet", "long ago"])
async def test_of_many_at_once_one_wins(blobs: MemoryBlobs, clock: Clock, first: bool) -> None:
    if not first:
        await ProbeClaims(blobs, "state").claim("phi", EVERY)
        clock.now += 1000.0
    each = [ProbeClaims(blobs, "state") for _ in range(20)]
    left = await asyncio.gather(*(one.claim("phi", EVERY) for one in each))
    assert sorted(left) == [0.0] + [EVERY] * 19


async def test_a_claim_is_no_word_of_a_process(blobs: MemoryBlobs, clock: Clock) -> None:
    await ProbeClaims(blobs, "state").claim("phi", EVERY)
    assert await HealthBoard(blobs, "state").count("phi", clock.now) == 0


async def test_a_clock_that_jumps_back_holds_nobody_up_for_longer(
    blobs: MemoryBlobs, clock: Clock
) -> None:
    claims = ProbeClaims(blobs, "state")
    await claims.claim("phi", EVERY)
    clock.now -= 5000.0
    assert await claims.claim("phi", EVERY) == EVERY


async def test_storage_that_does_not_answer_gives_nobody_the_minute(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hung(MemoryBlobs):
        async def read(self, ref: BlobRef) -> Stored:
            await asyncio.sleep(10.0 * CLAIM_SECONDS)
            return await super().read(ref)

    monkeypatch.setattr("workers.quota.claims.CLAIM_SECONDS", 0.05)
    with pytest.raises(Unavailable):
        await ProbeClaims(Hung(clock), "state").claim("phi", EVERY)
