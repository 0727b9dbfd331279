"""Journals under repeats, refusals and losses; the lease while they are read; the clock."""

import asyncio
from dataclasses import replace
from random import Random
from typing import Literal

import pytest

from schemas.outcomes import Usage
from schemas.results import CallRecord, Lost
from tests.doubles import AnswerLost, FaultyBlobs, MemoryBlobs
from tests.simulation import virtual_time
from workers.clock import TOLERANCE_SECONDS, ServiceClock
from workers.dispatch.call import Gate
from workers.ports import BlobInfo, BlobRef
from workers.ports.errors import Unavailable
from workers.rows.writing import RowResult
from workers.shards.attempt import LEASE_SECONDS, Lease
from workers.shards.journal import (
    Journal,
    attempt_name,
    journal_line,
    next_ordinal,
    read_journals,
    spent_line,
)
from workers.shards.spool import Spool

FOLDER = BlobRef("state", "jobs/j/journal/0/")
FIRST = attempt_name(0, "00000000-0000-4000-8000-000000000000")
CALL = CallRecord("phi", "transient", 503, 0.0, None, 1.0, 0, billed=False)


async def listed(blobs: MemoryBlobs) -> list[BlobInfo]:
    return [info async for info in blobs.list(FOLDER.container, FOLDER.name)]


async def test_an_attempt_with_nothing_to_say_leaves_nothing() -> None:
    blobs = MemoryBlobs(lambda: 0.0)
    journal = Journal(blobs, FOLDER, FIRST)
    await journal.open()
    assert len(await listed(blobs)) == 1
    await journal.end()
    assert await listed(blobs) == []


async def test_a_crash_with_nothing_to_say_is_a_crash() -> None:
    blobs = MemoryBlobs(lambda: 0.0)
    await Journal(blobs, FOLDER, FIRST).open()
    assert (await read_journals(blobs, await listed(blobs), Spool())).suspicion.crashes == 1


async def test_a_journal_that_is_gone_when_it_is_read_was_no_crash() -> None:
    blobs = MemoryBlobs(lambda: 0.0)
    late = Journal(blobs, FOLDER, FIRST)
    await late.open()
    earlier = await listed(blobs)
    await late.end()
    assert (await read_journals(blobs, earlier, Spool())).suspicion.crashes == 0


async def test_calls_in_vain_count_once_though_their_append_is_repeated() -> None:
    def repeats(kind: str, _name: str, phase: Literal["before", "after"]) -> None:
        if kind == "append" and phase == "after" and not lost:
            lost.append(kind)
            raise AnswerLost

    blobs, lost = MemoryBlobs(lambda: 0.0), ["not yet"]
    journal = Journal(FaultyBlobs(blobs, repeats), FOLDER, FIRST)
    await journal.open()
    lost.clear()
    journal.add(spent_line(3, (CALL,)))
    await journal.flush()
    assert lost == ["append"]
    past = await read_journals(blobs, await listed(blobs), Spool())
    assert past.spent == {3: (CALL,)}


async def test_a_roll_whose_blob_could_not_be_created_is_created_with_the_next_append() -> None:
    def fails(kind: str, _name: str, phase: Literal["before", "after"]) -> None:
        if kind == "create_append" and phase == "before" and failing:
            failing.clear()
            raise Unavailable

    blobs, failing = MemoryBlobs(lambda: 0.0, append_blocks=1), list[str]()
    journal = Journal(FaultyBlobs(blobs, fails), FOLDER, FIRST)
    await journal.open()
    journal.add(spent_line(1, (CALL,)))
    await journal.flush()
    failing.append("the roll")
    journal.add(spent_line(2, (CALL,)))
    with pytest.raises(Unavailable):
        await journal.flush()
    await journal.flush()
    assert set((await read_journals(blobs, await listed(blobs), Spool())).spent) == {1, 2}


# As the first release wrote them: rows one by one, each begun before, and no mark of a group.
FORMER = (
    b'{"schema_version":1}\n',
    b'{"schema_version":1}\n{"begin":0}\n{"row":0,"kind":"succeeded","usage":[1,1],"use":[],'
    b'"text":{"id":"j-1"}}\n{"begin":1}\n',
    b'{"schema_version":1}\n{"begin":1}\n',
    b'{"schema_version":1}\n{"begin":1}\n{"begin":2}\n{"end":true}\n',
    b'{"schema_version":1}\n{"begin":1}\n',
)


async def test_journals_of_the_first_release_say_the_same() -> None:
    blobs, results = MemoryBlobs(lambda: 0.0), Spool()
    for ordinal, data in enumerate(FORMER):
        name = attempt_name(ordinal, f"00000000-0000-4000-8000-{ordinal:012d}")
        await blobs.create(BlobRef(FOLDER.container, FOLDER.name + name), data)
    past = await read_journals(blobs, await listed(blobs), results)
    assert 0 in results
    assert past.suspicion.crashes == 4
    assert past.suspicion.given_up == {1}
    results.close()


async def test_an_attempt_sorts_after_those_before_it_though_some_are_gone() -> None:
    blobs = MemoryBlobs(lambda: 0.0)
    for ordinal in (0, 7, 12):
        name = attempt_name(ordinal, "f" * 36)
        await Journal(blobs, FOLDER, name).open()
    assert next_ordinal(await listed(blobs)) == 13
    assert next_ordinal([]) == 0


def test_a_lease_is_kept_from_the_first_moment_on() -> None:
    async def main(_rng: Random) -> None:
        clock = asyncio.get_running_loop().time
        blobs, ref = MemoryBlobs(clock), BlobRef("state", "lease")
        await blobs.create(ref, b"")
        lease = Lease(blobs, ref, "00000000-0000-4000-8000-000000000000")
        assert await lease.acquire()
        gate = Gate(until=lease.until, deadline=1e9)
        keeping = asyncio.create_task(lease.keep(gate))
        await asyncio.sleep(10 * LEASE_SECONDS)
        assert gate.until > clock()
        assert not await Lease(blobs, ref, "00000000-0000-4000-8000-000000000001").acquire()
        keeping.cancel()
        await lease.release()
        assert await Lease(blobs, ref, "00000000-0000-4000-8000-000000000002").acquire()

    virtual_time.run(main)


class Clocks:
    def __init__(self, behind: float) -> None:
        self.now = 1000.0
        self.behind = behind
        self.clock = ServiceClock(lambda: self.now - behind)

    def read(self, *, answer_read_after: float = 0.0) -> None:
        asked, served = self.clock(), self.now
        self.now += answer_read_after
        self.clock.heard(float(int(served)), asked)


def test_a_clock_that_is_wrong_is_set_by_the_service() -> None:
    clocks = Clocks(behind=120.0)
    clocks.read()
    assert abs(clocks.clock() - clocks.now) <= 1.0


def test_a_clock_that_is_nearly_right_is_left_alone() -> None:
    clocks = Clocks(behind=TOLERANCE_SECONDS - 2.0)
    clocks.read()
    assert clocks.clock() == clocks.now - clocks.behind


def test_an_answer_that_was_slept_over_sets_nothing() -> None:
    clocks = Clocks(behind=0.0)
    clocks.read(answer_read_after=200.0)
    assert clocks.clock() == clocks.now


async def told_by(*attempts: bytes) -> Lost:
    """What journals of these lines, each of its own attempt, say that nobody kept."""
    blobs = MemoryBlobs(lambda: 0.0)
    for number, lines in enumerate(attempts):
        name = attempt_name(number, f"{number:08d}-0000-4000-8000-000000000000")
        ref = BlobRef(FOLDER.container, f"{FOLDER.name}{name}")
        await blobs.create_append(ref)
        await blobs.append(ref, lines)
    return (await read_journals(blobs, await listed(blobs), Spool())).lost


PAID = replace(CALL, kind="ok", tokens=12, billed=True)
END = b'{"end":true}\n'


def line(*use: CallRecord) -> bytes:
    result = RowResult(0, "succeeded", Usage(7, 5), b"{}", use)
    return b"".join(map(bytes, journal_line(result)))


async def test_what_nobody_kept_is_counted() -> None:
    assert await told_by(line(PAID) + END) == Lost()
    assert await told_by(line(PAID) * 2 + END) == Lost(), "its append was repeated"
    assert await told_by(b'{"lost":3}\n' * 2 + END, b'{"lost":1}\n' + END) == Lost(calls=4)
    assert await told_by(line(PAID), line(PAID) + END) == Lost(calls=1, crashes=1)
    assert await told_by(line(PAID) + END, line(CALL, PAID) + END) == Lost(calls=1)
    assert await told_by(line(PAID) + END, line() + END) == Lost(), "the pack's first row tells"


async def test_calls_spent_on_a_row_are_kept_by_its_line_or_by_nobody() -> None:
    spent = spent_line(0, (replace(CALL, billed=True),)) + END
    assert await told_by(spent, line(replace(CALL, billed=True), PAID) + END) == Lost()
    assert await told_by(spent, line(PAID) + END) == Lost(calls=1)
