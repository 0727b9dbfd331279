"""Whose is the minute, by storage's clock alone; and what whoever had it last was answered."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.deployments import Deployment
from tests.doubles import MemoryBlobs
from workers.dispatch.breaker import GRACE
from workers.ports import BlobRef, Stored
from workers.ports.errors import BlobChanged, BlobExists, Unavailable
from workers.quota.claims import CLAIM_SECONDS, Finding, ProbeClaims, Turn
from workers.quota.health import HealthBoard

from .conftest import Clock

EVERY = 66.0
PROBED = BlobRef("state", "probed/phi")


def deployment(name: str = "phi", **fields: Any) -> Deployment:
    usual = {"kind": "openai", "url": "http://phi/v1", "model": "phi-3", "auth": "none"}
    return Deployment(name=name, **usual | fields)


PHI = deployment()


@pytest.fixture
def blobs(clock: Clock) -> MemoryBlobs:
    return MemoryBlobs(clock)


async def taken(claims: ProbeClaims, phi: Deployment = PHI) -> str:
    turn = await claims.look(phi, "chat", EVERY)
    assert turn.left == 0.0
    return await claims.claim(phi, turn)


async def test_who_comes_within_the_time_hears_when_it_is_over(
    blobs: MemoryBlobs, clock: Clock
) -> None:
    one, two = ProbeClaims(blobs, "state"), ProbeClaims(blobs, "state")
    await taken(one)
    clock.now += 20.0
    assert (await two.look(PHI, "chat", EVERY)).left == 46.0
    assert (await one.look(PHI, "chat", EVERY)).left == 46.0
    await taken(two, deployment("other"))
    clock.now += 46.0
    await taken(two)
    assert (await one.look(PHI, "chat", EVERY)).left == EVERY


@pytest.mark.parametrize("first", [True, False], ids=["nobody has claimed yet", "long ago"])
async def test_of_many_at_once_one_wins(blobs: MemoryBlobs, clock: Clock, first: bool) -> None:
    if not first:
        await taken(ProbeClaims(blobs, "state"))
        clock.now += 1000.0
    each = [ProbeClaims(blobs, "state") for _ in range(20)]
    turns = [await one.look(PHI, "chat", EVERY) for one in each]
    asked = (one.claim(PHI, turn) for one, turn in zip(each, turns, strict=True))
    made = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(one, BlobChanged | BlobExists) for one in made) == 19
    assert sum(isinstance(one, str) for one in made) == 1


async def test_a_claim_is_no_word_of_a_process(blobs: MemoryBlobs, clock: Clock) -> None:
    await taken(ProbeClaims(blobs, "state"))
    assert await HealthBoard(blobs, "state").told("phi", clock.now) == []


@pytest.mark.parametrize("answered", [True, False])
async def test_what_the_call_came_to_is_known_to_all_until_the_next_claim(
    blobs: MemoryBlobs, clock: Clock, answered: bool
) -> None:
    now = asyncio.get_running_loop().time
    one, two = ProbeClaims(blobs, "state"), ProbeClaims(blobs, "state")
    etag = await taken(one)
    assert (await two.look(PHI, "chat", EVERY)).finding is None
    await one.tell(PHI, "chat", etag, Finding(answered, sent=now() - 5.0))
    clock.now += 20.0
    told = (await two.look(PHI, "chat", EVERY)).finding
    assert told is not None
    assert told.answered is answered
    assert now() - 25.0 - GRACE <= told.sent <= now() - 25.0
    clock.now += EVERY
    await taken(two)
    assert (await one.look(PHI, "chat", EVERY)).finding is None


@given(
    asked=st.floats(0.0, 300.0),
    writing=st.floats(0.0, CLAIM_SECONDS),
    wait=st.floats(0.0, 60.0),
    part=st.floats(0.0, 1.0),
    behind=st.integers(0, 2),
)
async def test_whatever_the_clocks_a_call_is_not_taken_for_a_later_one(
    asked: float, writing: float, wait: float, part: float, behind: int
) -> None:
    """By storage's clock, of which no process knows more than whole seconds."""
    clock = Clock()
    now = asyncio.get_running_loop().time
    clock.now += part
    blobs = MemoryBlobs(clock)
    claims = ProbeClaims(blobs, "state")
    etag = await taken(claims)
    ended = now()
    clock.now += writing  # the write takes so long to arrive, and the loop's time stands still
    await claims.tell(PHI, "chat", etag, Finding(answered=True, sent=ended - asked))
    clock.now += wait

    class Behind(MemoryBlobs):
        async def read(self, ref: BlobRef) -> Stored:
            stored = await blobs.read(ref)
            return replace(stored, server_time=stored.server_time - behind)

    told = (await ProbeClaims(Behind(clock), "state").look(PHI, "chat", EVERY)).finding
    assert told is not None
    sent = now() - wait - writing - asked
    assert sent - GRACE - 0.1 <= told.sent <= sent + 0.1


async def test_an_answer_to_another_task_says_nothing(blobs: MemoryBlobs) -> None:
    claims = ProbeClaims(blobs, "state")
    finding = Finding(answered=True, sent=asyncio.get_running_loop().time())
    await claims.tell(PHI, "completions", await taken(claims), finding)
    turn = await claims.look(PHI, "chat", EVERY)
    assert (turn.left, turn.finding) == (EVERY, None)


@pytest.mark.parametrize(
    "other", [{"url": "http://other/v1"}, {"model": "phi-4"}], ids=["another url", "another model"]
)
async def test_who_asks_another_endpoint_by_that_name_learns_nothing(
    blobs: MemoryBlobs, other: dict[str, str]
) -> None:
    claims = ProbeClaims(blobs, "state")
    finding = Finding(answered=True, sent=asyncio.get_running_loop().time())
    await claims.tell(PHI, "chat", await taken(claims), finding)
    turn = await claims.look(deployment(**other), "chat", EVERY)
    assert (turn.left, turn.finding) == (EVERY, None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"schema_version": 9, "later": 1}',
        b'{"endpoint": "", "answered": true, "seconds": -1}',
    ],
)
async def test_what_cannot_be_read_says_whose_turn_it_is_and_no_more(
    blobs: MemoryBlobs, data: bytes
) -> None:
    await blobs.create(PROBED, data)
    turn = await ProbeClaims(blobs, "state").look(PHI, "chat", EVERY)
    assert (turn.left, turn.finding) == (EVERY, None)


async def test_an_answer_that_comes_after_the_next_claim_is_not_told(
    blobs: MemoryBlobs, clock: Clock
) -> None:
    one, two = ProbeClaims(blobs, "state"), ProbeClaims(blobs, "state")
    etag = await taken(one)
    clock.now += EVERY
    await taken(two)
    with pytest.raises(BlobChanged):
        await one.tell(PHI, "chat", etag, Finding(answered=True, sent=0.0))
    assert (await one.look(PHI, "chat", EVERY)).finding is None


async def test_a_clock_that_jumps_back_holds_nobody_up_for_longer(
    blobs: MemoryBlobs, clock: Clock
) -> None:
    claims = ProbeClaims(blobs, "state")
    await claims.tell(PHI, "chat", await taken(claims), Finding(answered=True, sent=0.0))
    clock.now -= 5000.0
    turn = await claims.look(PHI, "chat", EVERY)
    assert (turn.left, turn.finding) == (EVERY, None)


async def test_storage_that_does_not_answer_gives_nobody_the_minute(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hung(MemoryBlobs):
        async def read(self, ref: BlobRef) -> Stored:
            await asyncio.sleep(10.0 * CLAIM_SECONDS)
            return await super().read(ref)

        async def create(self, *_: Any, **__: Any) -> str:
            await asyncio.sleep(10.0 * CLAIM_SECONDS)
            raise AssertionError

        async def replace(self, *_: Any, **__: Any) -> str:
            await asyncio.sleep(10.0 * CLAIM_SECONDS)
            raise AssertionError

    monkeypatch.setattr("workers.quota.claims.CLAIM_SECONDS", 0.05)
    claims = ProbeClaims(Hung(clock), "state")
    with pytest.raises(Unavailable):
        await claims.look(PHI, "chat", EVERY)
    with pytest.raises(Unavailable):
        await claims.claim(PHI, Turn(0.0))
    with pytest.raises(Unavailable):
        await claims.tell(PHI, "chat", "etag", Finding(answered=True, sent=0.0))
