"""An attempt has an end however it is left, but for the death of its process."""

import asyncio
import itertools
import json
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any, cast

import pytest

from schemas.deployments import Task
from schemas.outcomes import Outcome, Usage
from tests.doubles import FaultyBlobs, MemoryBlobs, MemoryBus, QueueRules
from tests.doubles.bus import received
from tests.doubles.faults import Fault, Phase, ProcessKilled
from tests.simulation import virtual_time
from tests.simulation.scenario import Scenario
from tests.simulation.world import settings_of, small
from workers.clock import ServiceClock
from workers.ports import BlobRef, EndpointInfo, Stored
from workers.ports.errors import Draining, StorageError, Unavailable
from workers.service import Service, compose
from workers.shards.attempt import Attempt
from workers.shards.runner import MOST_UNENDED

EPOCH = 1_800_000_000.0
FILE = BlobRef("prompts", "a.jsonl")
ROWS = 4
IDS = re.compile(r"20270115T080000Z-[0-9a-f]{16}|\b[0-9a-f]{8}(-[0-9a-f]{4,12}){4}")
# What reads or writes while a shard runs, up to the release of its lease.
CALLS = [
    ("list", "state"),
    ("create_append", "/journal/"),
    ("append", "/journal/"),
    ("read_range", "/plan.jsonl"),
    ("read_range", FILE.name),
    ("renew_lease", "/leases/"),
    ("create", "/output/"),
    ("create", "/receipts/"),
    ("replace", "/state.json"),
]
ERRORS: list[Callable[[], Exception]] = [
    lambda: StorageError("Blob Storage refused: 403"),
    lambda: Unavailable("Blob Storage failed: 503"),
    lambda: TimeoutError("no answer in time"),
    lambda: RuntimeError("a bug"),
]


def _nothing(_kind: str, _name: str, _phase: Phase) -> None:
    """No fault at all."""


class Models:
    """An endpoint that answers when it may; a row of `kills` kills the process that asks it."""

    def __init__(self, process: "Process") -> None:
        self._process = process

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        shop = self._process.shop
        prompt = body["messages"][-1]["content"]
        shop.asked.append(prompt)
        if prompt in shop.kills:
            await asyncio.sleep(shop.kills_after)
            self._process.dead = True
            raise ProcessKilled
        await asyncio.sleep(shop.latency)
        if prompt in shop.breaks:
            raise RuntimeError("a bug")
        return Outcome("ok", 200, {"choices": [{"message": {"content": prompt}}]}, Usage(1, 1))

    async def info(self) -> EndpointInfo | None:
        return None


class Process:
    """One life of a worker."""

    def __init__(self, shop: "Shop") -> None:
        self.shop = shop
        self.dead = False
        clock = ServiceClock(shop.wall)
        self.service: Service = compose(
            settings_of(Scenario(shard_seconds=shop.shard_seconds, max_concurrency=shop.at_once)),
            FaultyBlobs(shop.blobs, self._fault),
            shop.bus,
            {"phi": Models(self)},
            transfers=shop.blobs,
            ledger=None,
            clock=clock,
            rng=Random(1),
        )

    def _fault(self, kind: str, name: str, phase: Phase) -> None:
        if self.dead:
            raise ProcessKilled
        self.shop.fault(kind, name, phase)


class Shop:
    """One job of one shard: what is stored of it, and the processes that come and go."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.wall: Callable[[], float] = lambda: EPOCH + loop.time()
        self.blobs = MemoryBlobs(self.wall)
        rules = QueueRules(7200.0, 1_000)
        self.bus = MemoryBus(self.wall, {"jobs": rules, "shards": rules})
        self.fault: Fault = _nothing
        self.latency = 10.0
        self.shard_seconds = 120.0
        self.at_once: int | None = None
        self.asked: list[str] = []
        self.kills: tuple[str, ...] = ()
        self.kills_after = 0.0
        self.breaks: tuple[str, ...] = ()
        self.process = Process(self)

    async def plan(self, rows: int = ROWS, **fields: int) -> None:
        """Have a file planned; its shard's message waits."""
        lines = [json.dumps({"prompt": f"row {n}", **fields}).encode() for n in range(rows)]
        data = b"".join(line + b"\n" for line in lines)
        etag = await self.blobs.create(FILE, data)
        service = self.process.service
        await service.doors.dropped(*FILE, etag=etag, repeated=False)
        while (delivery := self.bus.receive("jobs")) is not None:
            await service.inbox.jobs(received(delivery))
            self.bus.complete(delivery)

    async def message(self) -> Callable[[], Coroutine[Any, Any, None]]:
        """The shard's next message, when it comes, as what handles it in the process."""
        delivery = self.bus.receive("shards")
        for _ in range(3600):
            if delivery is not None:
                break
            await asyncio.sleep(1.0)
            delivery = self.bus.receive("shards")
        assert delivery is not None
        handler = self.process.service.inbox.shards

        async def handle() -> None:
            try:
                await handler(received(delivery))
            except BaseException:
                self.bus.abandon(delivery)
                raise
            self.bus.complete(delivery)

        return handle

    async def attempt(self) -> None:
        """Run the shard once; where its process dies another one takes its place."""
        with suppress(Exception, ProcessKilled):
            await (await self.message())()
        if self.process.dead:
            await self.replace()

    async def both(self) -> None:
        """Run two shards side by side in one process, and end both with it."""
        running = [asyncio.create_task((await self.message())()) for _ in range(2)]
        await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        if self.process.dead:
            await self.replace()

    async def killed(self, after: float) -> None:
        """Run the shard, and kill its process after some seconds; another one takes its place."""
        running = asyncio.create_task((await self.message())())
        await asyncio.sleep(after)
        self.process.dead = True
        running.cancel()
        await asyncio.wait([running])
        await self.replace()

    async def replace(self) -> None:
        """Wait until the lease of a dead process has run out, and begin another life."""
        self.process.dead = True
        await asyncio.sleep(60.0)
        self.process = Process(self)

    def away(self, seconds: float) -> None:
        """Storage cannot be reached from now on, for so long."""
        until = self.wall() + seconds

        def fault(kind: str, _name: str, phase: Phase) -> None:
            if phase == "before" and kind != "send" and self.wall() < until:
                raise Unavailable

        self.fault = fault

    async def finish(self) -> None:
        """Run it until its receipt stands."""
        for _ in range(60):
            if any("/receipts/" in ref.name for ref in self.blobs.blobs):
                return
            await self.attempt()
        raise AssertionError("the shard does not end")

    def journals(self) -> dict[str, list[dict[str, Any]]]:
        """The lines of each attempt's journal, oldest first."""
        found: dict[str, list[dict[str, Any]]] = {}
        for ref, blob in sorted(self.blobs.blobs.items()):
            if "/journal/" in ref.name:
                attempt = ref.name.rsplit("/", 1)[-1][:43]
                lines = bytes(blob.data).split(b"\n")
                found.setdefault(attempt, []).extend(json.loads(line) for line in lines if line)
        return found

    def crashes(self) -> int:
        """Attempts without an end mark."""
        return sum({"end": True} not in lines for lines in self.journals().values())

    def groups(self) -> list[list[int]]:
        """The groups of rows that were marked as begun, in the journals that stand."""
        lines = [line for each in self.journals().values() for line in each]
        marks = [line for line in lines if "group" in line or "begin" in line]
        return [mark.get("group") or [mark["begin"]] for mark in marks]

    def leased(self) -> bool:
        held = [blob.lease for ref, blob in self.blobs.blobs.items() if "/leases/" in ref.name]
        return any(lease is not None and lease.until > self.wall() for lease in held)

    def answers(self) -> dict[str, str]:
        """What became of each row in the shard's files: its answer, or the code of its error."""
        found: dict[str, str] = {}
        for ref, blob in self.blobs.blobs.items():
            if "/output/" in ref.name or "/errors/" in ref.name:
                for line in map(json.loads, bytes(blob.data).splitlines()):
                    held = line["response"]
                    text = held["body"]["choices"][0]["message"]["content"] if held else ""
                    found[f"row {int(line['id'].rsplit('-', 1)[1]) - 1}"] = (
                        text or line["error"]["code"]
                    )
        return found


def lived(test: Callable[[Shop], Awaitable[None]], rows: int = ROWS, **fields: int) -> None:
    """Run a test with one planned job, on virtual time; its rows have these fields too."""

    async def main(_rng: Random) -> None:
        shop = Shop()
        await shop.plan(rows, **fields)
        await test(shop)

    virtual_time.run(main)


class Once:
    """Raises an error at the n-th call of a kind, once; the call has no effect, or has it."""

    def __init__(
        self, call: tuple[str, str], error: Callable[[], Exception], nth: int, phase: Phase
    ) -> None:
        self.call, self.error, self.left, self.phase = call, error, nth, phase

    def __call__(self, kind: str, name: str, phase: Phase) -> None:
        if kind == self.call[0] and self.call[1] in name and phase == self.phase:
            self.left -= 1
            if self.left == 0:
                raise self.error()


@pytest.mark.parametrize("error", ERRORS, ids=["403", "503", "time-out", "bug"])
@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_an_attempt_that_an_error_ends_is_no_crash(
    call: tuple[str, str], error: Callable[[], Exception]
) -> None:
    async def one(shop: Shop, nth: int, phase: Phase) -> None:
        once = shop.fault = Once(call, error, nth, phase)
        await shop.attempt()
        assert shop.crashes() == 0, (nth, phase, shop.journals())
        assert not shop.leased()
        await shop.finish()
        assert shop.crashes() == 0
        assert shop.answers() == ALL
        assert once.left < nth

    phases: tuple[Phase, ...] = ("before", "after")
    for phase in phases:
        for nth in (1, 2, 3):
            lived(partial(one, nth=nth, phase=phase))


ALL = {f"row {n}": f"row {n}" for n in range(ROWS)}


def test_a_bug_while_rows_are_asked_is_no_crash() -> None:
    async def test(shop: Shop) -> None:
        shop.breaks = ("row 2",)
        for _ in range(4):
            await shop.attempt()
        assert (shop.crashes(), shop.leased()) == (0, False)
        shop.breaks = ()
        await shop.finish()
        assert shop.answers() == ALL
        assert shop.groups() == []

    lived(test)


@pytest.mark.parametrize("after", [0.0, 5.0, 9.9])
def test_an_attempt_that_is_cancelled_is_no_crash(after: float) -> None:
    async def test(shop: Shop) -> None:
        for _ in range(3):
            running = asyncio.create_task((await shop.message())())
            await asyncio.sleep(after)
            running.cancel()
            await asyncio.wait([running])
            assert (shop.crashes(), shop.leased()) == (0, False)
        await shop.finish()
        assert shop.answers() == ALL
        assert shop.groups() == []

    lived(test)


def test_an_attempt_that_is_drained_is_no_crash() -> None:
    async def test(shop: Shop) -> None:
        running = asyncio.create_task((await shop.message())())
        await asyncio.sleep(5.0)
        await shop.process.service.runner.drain()
        assert (shop.crashes(), shop.leased()) == (0, False)
        await asyncio.wait([running])
        assert isinstance(running.exception(), Draining)
        shop.process = Process(shop)
        await shop.finish()
        assert shop.answers() == ALL

    lived(test)


def test_a_process_that_dies_leaves_no_end() -> None:
    async def test(shop: Shop) -> None:
        await shop.killed(5.0)
        assert shop.crashes() == 1

    lived(test)


@pytest.mark.parametrize("seconds", [60.0, 500.0, 3000.0])
def test_an_end_that_cannot_be_written_is_owed_and_no_crash(seconds: float) -> None:
    """And the rows that only this process has are asked by nobody else meanwhile."""

    async def test(shop: Shop) -> None:
        running = asyncio.create_task((await shop.message())())
        await asyncio.sleep(9.0)
        shop.away(seconds)
        await asyncio.wait([running])
        await asyncio.sleep(max(0.0, seconds - 600.0) + 10.0)
        assert (shop.crashes(), shop.leased()) == (0, False)
        await shop.finish()
        assert shop.answers() == ALL
        assert sorted(shop.asked) == sorted(ALL)
        assert shop.crashes() == 0

    lived(test)


def test_a_process_that_dies_while_it_owes_an_end_is_a_crash() -> None:
    async def test(shop: Shop) -> None:
        running = asyncio.create_task((await shop.message())())
        await asyncio.sleep(9.0)
        shop.away(1000.0)
        await asyncio.sleep(60.0)
        running.cancel()
        await shop.replace()
        await asyncio.sleep(1000.0)
        assert shop.crashes() == 1
        await shop.finish()
        assert shop.answers() == ALL

    lived(test)


def test_a_refused_journal_stops_nobody_from_asking() -> None:
    """A 403 in mid-run: what was answered and what is in flight are kept for later."""

    async def test(shop: Shop) -> None:
        refused = [0]

        def fault(kind: str, name: str, phase: Phase) -> None:
            if kind == "append" and phase == "before" and 3.0 < shop.wall() - EPOCH < 9.0:
                refused[0] += 1
                raise StorageError("403")

        shop.fault = fault
        shop.latency, shop.at_once = 2.5, 2
        shop.process = Process(shop)
        await shop.finish()
        assert refused[0] > 0
        assert sorted(shop.asked) == sorted(ALL)
        assert shop.answers() == ALL

    lived(test)


def test_the_calls_of_storage_that_a_shard_takes() -> None:
    """They are what a row costs beside its call, in time and on the bill."""

    async def test(shop: Shop) -> None:
        calls: list[str] = []

        def fault(kind: str, name: str, phase: Phase) -> None:
            if phase == "before" and kind != "send":
                calls.append(f"{kind} {IDS.sub('*', name)}")

        await shop.attempt()  # the job, and the plan's lines, are known from now on
        shop.fault, shop.latency = fault, 1.0
        await shop.attempt()
        assert calls == [
            "read state/jobs/*/receipts/1",
            "read state/jobs/*/state.json",
            "create state/jobs/*/leases/1",
            "acquire_lease state/jobs/*/leases/1",
            "list state",  # the journals of earlier attempts
            "create_append state/jobs/*/journal/1/000000-*",
            "read_range prompts/a.jsonl",
            "append state/jobs/*/journal/1/000000-*",  # all rows, and the end mark
            "create state/jobs/*/output/1.*",
            "create state/jobs/*/receipts/1",
            "read state/jobs/*/state.json",
            "replace state/jobs/*/state.json",
            "release_lease state/jobs/*/leases/1",
        ]

    lived(test, rows=400)


@pytest.mark.parametrize("away", [60.0, 200.0])
def test_a_large_answer_keeps_its_room_until_it_is_in_the_journal(away: float) -> None:
    """Another shard's rows wait, or go back to the queue where that takes longer than they may."""

    async def test(shop: Shop) -> None:
        def fault(kind: str, _name: str, phase: Phase) -> None:
            if kind == "append" and phase == "before" and shop.wall() < EPOCH + away:
                raise Unavailable

        shop.fault = fault
        running = [asyncio.create_task((await shop.message())()) for _ in range(2)]
        await asyncio.sleep(away - 5.0)
        assert len(shop.asked) == 2
        await asyncio.wait(running)
        while shop.answers() != ALL:
            await shop.attempt()
        assert sorted(shop.asked) == sorted(ALL)

    # Answers of 12 MB: two make a shard, and fill the room of a process.
    lived(test, n=128, max_tokens=16384)


def test_a_state_that_is_slow_to_read_does_not_keep_rows_from_the_journal() -> None:
    """What a crash can cost stays at one journal interval, however busy storage is elsewhere."""

    async def test(shop: Shop) -> None:
        read = shop.blobs.read

        async def slow(ref: BlobRef) -> Stored:
            await asyncio.sleep(30.0)
            return await read(ref)

        shop.latency, shop.at_once = 4.0, 1
        shop.process = Process(shop)
        running = asyncio.create_task((await shop.message())())
        await asyncio.sleep(1.0)
        shop.blobs.read = slow  # type: ignore[method-assign]
        for answered in range(1, ROWS):
            await asyncio.sleep(4.0)
            lines = [line for each in shop.journals().values() for line in each if "row" in line]
            assert len(lines) >= answered - 1
        shop.blobs.read = read  # type: ignore[method-assign]
        await running

    lived(test)


def test_a_row_that_was_answered_is_not_given_up_for_appends_that_fail() -> None:
    """Two crashes, then the append of its answer fails, as often as it takes to give a row up."""

    async def test(shop: Shop) -> None:
        for _ in range(2):
            await shop.killed(5.0)
        for _ in range(3):
            # Header and mark stand, and whatever is to say what became of the row does not.
            shop.fault = Once(("append", "/journal/"), Unavailable, 3, "before")
            await shop.attempt()
        shop.fault = _nothing
        await shop.finish()
        assert shop.answers() == {"row 0": "row 0"}
        assert len(shop.asked) == 3

    lived(test, rows=1)


def test_two_kills_do_not_leave_a_shard_suspect() -> None:
    """The first good attempt after them asks two groups, and those after it all at once."""

    async def test(shop: Shop) -> None:
        shop.shard_seconds, shop.at_once = 25.0, 2
        shop.process = Process(shop)
        for _ in range(2):
            await shop.killed(5.0)
        await shop.finish()
        assert shop.crashes() == 2
        assert shop.answers() == {f"row {n}": f"row {n}" for n in range(16)}
        suspects = [lines for lines in shop.journals().values() if any("group" in x for x in lines)]
        assert len(suspects) == 1
        assert shop.groups() == [list(range(8))]

    lived(test, rows=16)


def test_a_row_that_kills_whoever_asks_it_is_found_by_halves() -> None:
    async def test(shop: Shop) -> None:
        shop.kills, shop.latency = ("row 21",), 0.1
        await shop.finish()
        answers = {f"row {n}": f"row {n}" for n in range(32)}
        assert shop.answers() == answers | {"row 21": "worker_crashed"}
        assert shop.crashes() <= 2 + 5 + 3
        blamed = [group for group in shop.groups() if 21 in group]
        assert [len(group) for group in blamed][-3:] == [1, 1, 1]
        assert all(len(a) >= len(b) for a, b in itertools.pairwise(blamed))

    lived(test, rows=32)


def test_a_row_alone_is_not_blamed_for_what_kills_its_process_from_another_shard() -> None:
    """It takes longer than the other shard's culprit, which kills whoever asks it each time."""

    async def main(_rng: Random) -> None:
        shop = Shop()
        with small(Scenario(shard_rows=16)):
            await shop.plan(rows=17)
        shop.kills, shop.kills_after = ("row 0",), 5.0
        for _ in range(3):
            await shop.both()
        while not any("/receipts/1" in ref.name for ref in shop.blobs.blobs):
            await shop.both()
        assert shop.answers()["row 16"] == "row 16"

    virtual_time.run(main)


def test_many_ends_that_are_owed_keep_a_process_from_more_work() -> None:
    async def test(shop: Shop) -> None:
        runner = shop.process.service.runner
        shop.process.service.runner._unended.update(
            dict.fromkeys(cast("list[Attempt]", range(MOST_UNENDED)))
        )
        await shop.attempt()
        assert shop.journals() == {}
        runner._unended.clear()
        await shop.finish()
        assert shop.answers() == ALL

    lived(test)


def test_a_copy_does_not_join_an_attempt_whose_lease_was_lost_while_storage_was_away() -> None:
    """What the first was answered is in memory alone, until storage is back."""

    async def test(shop: Shop) -> None:
        delivery = shop.bus.receive("shards")
        assert delivery is not None
        handler = shop.process.service.inbox.shards
        first = asyncio.create_task(handler(received(delivery)))
        await asyncio.sleep(5.0)
        shop.away(30.0)
        await asyncio.sleep(31.0)
        for ref, blob in shop.blobs.blobs.items():
            if "/leases/" in ref.name:
                blob.lease = None
        await handler(received(delivery))
        await first
        shop.bus.complete(delivery)
        await shop.finish()
        assert shop.answers() == ALL
        assert len(shop.asked) == ROWS

    lived(test)
