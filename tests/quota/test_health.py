"""What processes leave word of: the latest counts, while it is fresh."""

import pytest

from schemas.health import DeploymentHealth
from tests.doubles import MemoryBlobs
from workers.quota.health import FORGOTTEN_SECONDS, FRESH_SECONDS, HealthBoard

from .conftest import Clock


@pytest.fixture
def board(clock: Clock) -> HealthBoard:
    return HealthBoard(MemoryBlobs(clock), "state")


def health(calls: int) -> DeploymentHealth:
    return DeploymentHealth(at=1.0, calls=calls)


async def test_each_process_s_last_word_counts(board: HealthBoard, clock: Clock) -> None:
    await board.tell("phi", "a", health(1))
    await board.tell("phi", "a", health(2))
    await board.tell("phi", "b", health(5))
    await board.tell("phi-2", "c", health(9))
    assert sorted(each.calls for each in await board.told("phi", clock.now)) == [2, 5]


async def test_a_stale_word_does_not_count_and_is_removed_later(
    board: HealthBoard, clock: Clock
) -> None:
    await board.tell("phi", "a", health(1))
    clock.now += FRESH_SECONDS
    await board.tell("phi", "b", health(2))
    assert [each.calls for each in await board.told("phi", clock.now)] == [2]
    clock.now += FORGOTTEN_SECONDS - FRESH_SECONDS + 1
    await board.forget("phi", clock.now)
    assert len(await board.told("phi", clock.now - FORGOTTEN_SECONDS)) == 1


async def test_a_wish_to_try_is_no_word_of_a_process(board: HealthBoard, clock: Clock) -> None:
    assert await board.probe_asked("phi") is None
    await board.ask_probe("phi", clock.now)
    first = await board.probe_asked("phi")
    await board.ask_probe("phi", clock.now)
    second = await board.probe_asked("phi")
    assert first is not None
    assert second is not None
    assert first[0] != second[0]
    assert await board.told("phi", clock.now) == []
    await board.forget("phi", clock.now + 10 * FORGOTTEN_SECONDS)
    assert await board.probe_asked("phi") == second
