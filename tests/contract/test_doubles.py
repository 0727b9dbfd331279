"""What only the doubles can do: clocks that jump, small limits, a look inside."""

import pytest

from tests.doubles import LockLost, MemoryBlobs, MemoryBus, QueueRules
from tests.doubles.bus import DEAD_LETTERS
from workers.ports import BlobRef, OutMessage
from workers.ports.errors import BlobFull


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def message(message_id: str, at: float | None = None) -> OutMessage:
    return OutMessage(b"{}", message_id, at=at)


async def test_an_append_blob_can_be_full_early() -> None:
    blobs, ref = MemoryBlobs(Clock(), append_blocks=2), BlobRef("c", "journal")
    await blobs.create_append(ref)
    await blobs.append(ref, b"1")
    await blobs.append(ref, b"2")

    with pytest.raises(BlobFull):
        await blobs.append(ref, b"3")

    assert blobs.blobs[ref].data == b"12"


async def test_without_a_list_every_container_exists() -> None:
    blobs = MemoryBlobs(Clock())

    assert [info async for info in blobs.list("any")] == []
    await blobs.create(BlobRef("any", "x"), b"")
    assert [info.ref async for info in blobs.list("any")] == [BlobRef("any", "x")]


async def test_times_are_the_clock_s() -> None:
    clock = Clock()
    blobs, ref = MemoryBlobs(clock), BlobRef("c", "x")
    clock.time = 5000.7
    etag = await blobs.create(ref, b"")
    clock.time = 6000.7
    await blobs.replace(ref, b"", etag)
    clock.time = 7000.7

    stored, info = await blobs.read(ref), await blobs.head(ref)

    assert (info.created, info.last_modified, stored.server_time) == (5000, 6000, 7000)


async def test_a_clock_can_jump_to_what_happens_next() -> None:
    clock = Clock()
    bus = MemoryBus(clock, {"q": QueueRules(lock_seconds=30)})
    assert bus.next_change() is None
    await bus.send("q", [message("now"), message("later", at=1010)])
    assert bus.next_change() == 1010
    assert bus.receive("q") is not None
    assert bus.receive("q") is None

    clock.time = 1010
    later = bus.receive("q")
    assert later is not None
    assert later.message.message_id == "later"
    assert bus.next_change() == 1030

    clock.time = 1030
    again = bus.receive("q")
    assert again is not None
    assert (again.message.message_id, again.delivery_count) == ("now", 2)


async def test_dead_letters_can_be_drained() -> None:
    clock = Clock()
    bus = MemoryBus(clock, ["q"])
    await bus.send("q", [message("bad")])
    delivery = bus.receive("q")
    assert delivery is not None

    bus.dead_letter(delivery, "because")

    assert bus.waiting("q") == []
    for _ in range(20):  # it stays, however often it is given back
        dead = bus.receive("q" + DEAD_LETTERS)
        assert dead is not None
        assert dead.dead_letter_reason == "because"
        bus.abandon(dead)
    dead = bus.receive("q" + DEAD_LETTERS)
    assert dead is not None
    bus.complete(dead)
    assert bus.waiting("q" + DEAD_LETTERS) == []


async def test_a_delivery_is_settled_once() -> None:
    bus = MemoryBus(Clock(), ["q"])
    await bus.send("q", [message("one")])
    delivery = bus.receive("q")
    assert delivery is not None
    bus.complete(delivery)

    for settle in (bus.complete, bus.abandon):
        with pytest.raises(LockLost):
            settle(delivery)


async def test_an_id_may_come_again_after_the_duplicate_window() -> None:
    clock = Clock()
    bus = MemoryBus(clock, topics=["t"], duplicate_seconds=600)
    for clock.time in (1000.0, 1599.0, 1600.0):
        await bus.send("t", [message("e")])

    assert len(bus.published["t"]) == 2
