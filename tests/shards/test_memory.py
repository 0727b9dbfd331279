"""What an attempt held is free once it has ended, without waiting for the garbage collector.

The collector looks at what has lived long only when there are many new objects. A row of 2,048
texts is few objects and much memory: hundreds of them would lie about.
"""

import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from tests.shards.test_attempt import ALL, Shop, lived
from workers.dispatch.call import Call
from workers.rows.reading import Request
from workers.shards.attempt import Attempt
from workers.shards.calls import ShardCalls

LARGE = (Attempt, ShardCalls, Request, Call)


@pytest.fixture(autouse=True)
def _uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held() -> Counter[type]:
    """How many are alive, of each kind, of what holds rows, or the texts of rows."""
    return Counter(type(each) for each in gc.get_objects() if type(each) in LARGE)


async def done(shop: Shop) -> None:
    await shop.attempt()
    assert shop.answers() == ALL


async def handed_back(shop: Shop) -> None:
    shop.shard_seconds, shop.at_once = 15.0, 1
    await shop.replace()
    await shop.attempt()
    assert 0 < len(shop.asked) < len(ALL)


async def kept_from_storage(shop: Shop) -> None:
    shop.away(30.0)
    await shop.attempt()


@pytest.mark.parametrize("story", [done, handed_back, kept_from_storage])
def test_an_attempt_that_has_ended_holds_nothing(story: Callable[[Shop], Awaitable[None]]) -> None:
    async def test(shop: Shop) -> None:
        before = held()
        await story(shop)
        assert held() <= before

    lived(test)
