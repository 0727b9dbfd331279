"""The faults that simulations inject do what their names say."""

import pytest

from tests.doubles import (
    AnswerLost,
    CrashAt,
    EffectLog,
    FaultyBlobs,
    FaultyBus,
    MemoryBlobs,
    MemoryBus,
    ProcessKilled,
)
from tests.doubles.faults import Phase
from workers.ports import BlobRef, Blobs, Bus, OutMessage
from workers.ports.errors import BlobChanged, BlobExists, Unavailable

A, B = BlobRef("c", "a"), BlobRef("c", "b")


class Once:
    """Raises an error at the first call of a kind, in one phase."""

    def __init__(self, kind: str, phase: Phase, error: Exception) -> None:
        self.kind, self.phase, self.error = kind, phase, error
        self.done = False

    def __call__(self, kind: str, name: str, phase: Phase) -> None:
        if (kind, phase) == (self.kind, self.phase) and not self.done:
            self.done = True
            raise self.error


def messages(*ids: str) -> list[OutMessage]:
    return [OutMessage(b"{}", message_id) for message_id in ids]


async def three_effects(blobs: Blobs, bus: Bus) -> None:
    await blobs.create(A, b"a")
    await blobs.read(A)
    await bus.send("jobs", messages("1"))
    await blobs.create(B, b"b")


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_process_dies_at_its_nth_effect_and_stays_dead(nth: int, phase: Phase) -> None:
    memory, queues = MemoryBlobs(lambda: 0.0), MemoryBus(lambda: 0.0)
    crash = CrashAt(nth, phase)
    blobs, bus = FaultyBlobs(memory, crash), FaultyBus(queues, crash)

    with pytest.raises(ProcessKilled):
        await three_effects(blobs, bus)

    done = nth - 1 if phase == "before" else nth
    assert len(memory.blobs) + len(queues.waiting("jobs")) == done
    for call in (blobs.read(A), blobs.delete(A), bus.send("jobs", messages("2"))):
        with pytest.raises(ProcessKilled):
            await call
    assert len(memory.blobs) + len(queues.waiting("jobs")) == done


async def test_effects_are_counted_reads_are_not() -> None:
    log = EffectLog()
    blobs, bus = MemoryBlobs(lambda: 0.0), MemoryBus(lambda: 0.0)

    await three_effects(FaultyBlobs(blobs, log), FaultyBus(bus, log))

    assert log.effects == [("create", "c/a"), ("send", "jobs"), ("create", "c/b")]


async def test_the_sdk_s_repeats_turn_success_into_conflict() -> None:
    memory = MemoryBlobs(lambda: 0.0)

    with pytest.raises(BlobExists):
        await FaultyBlobs(memory, Once("create", "after", AnswerLost())).create(A, b"mine")
    assert memory.blobs[A].data == b"mine"

    with pytest.raises(BlobChanged):
        await FaultyBlobs(memory, Once("replace", "after", AnswerLost())).replace(
            A, b"again", memory.blobs[A].etag
        )
    assert memory.blobs[A].data == b"again"

    await memory.create_append(B)
    await FaultyBlobs(memory, Once("append", "after", AnswerLost())).append(B, b"line\n")
    assert memory.blobs[B].data == b"line\nline\n"


async def test_a_request_that_never_arrived_is_repeated() -> None:
    memory = MemoryBlobs(lambda: 0.0)

    await FaultyBlobs(memory, Once("create", "before", AnswerLost())).create(A, b"mine")

    assert memory.blobs[A].data == b"mine"


@pytest.mark.parametrize(("phase", "there"), [("before", False), ("after", True)])
async def test_unavailable_leaves_the_effect_open(phase: Phase, there: bool) -> None:
    memory = MemoryBlobs(lambda: 0.0)

    with pytest.raises(Unavailable):
        await FaultyBlobs(memory, Once("create", phase, Unavailable())).create(A, b"")

    assert (A in memory.blobs) is there


async def test_a_split_send_can_stop_half_way() -> None:
    queues = MemoryBus(lambda: 0.0)

    with pytest.raises(ProcessKilled):
        await FaultyBus(queues, CrashAt(3, "before"), split=True).send(
            "jobs", messages("1", "2", "3", "4")
        )

    assert [message.message_id for message in queues.waiting("jobs")] == ["1", "2"]
