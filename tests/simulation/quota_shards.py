"""Shards of a job dealt to hosts that share a quota, in the seeded world of quota_world.

Shards are cut as those of a file are, and are out as far as the job's window allows. A host takes
them from the queue: all hosts in turn (`even`), or the one that was up first as many as it can hold
(`first`).
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from local.endpoint.limits import Limits
from tests.simulation.quota_world import NAME, Row, Worker, World, rows
from tests.simulation.virtual_time import run
from workers.dispatch.call import Gate
from workers.intake.intake import WINDOW
from workers.intake.planning import FEW_ROWS, MAX_ROWS, USUAL_SHARDS
from workers.jobs.lifecycle import widened

Dealt = Literal["even", "first"]
AT_ONCE, HOST_SHARDS = 128, 32
LATENCY, ROW_TOKENS = 1.0, 30
AROUND = (0.1, 0.4)
"""Seconds to read a shard before its first call, and to write its receipt after the last."""


@dataclass
class Shards:
    """One job's shards: those that are yet to be sent, and the queue that hosts take from."""

    left: deque[list[Row]]
    rows: int
    queue: asyncio.Queue[list[Row]] = field(default_factory=asyncio.Queue)
    out: int = 0
    answered: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, seats: int = 1) -> None:
        """Send the next shards, as a job does when it begins and for each receipt."""
        while self.left and self.out < widened(WINDOW["normal"], seats):
            self.queue.put_nowait(self.left.popleft())
            self.out += 1

    def receive(self, seats: int) -> None:
        """The receipt of a shard stands."""
        self.out -= 1
        self.send(seats)

    def answer(self) -> None:
        self.answered += 1
        if self.answered == self.rows:
            self.done.set()


async def host(shards: Shards, worker: Worker, rng: Random, dealt: Dealt) -> None:
    """Take shards from the queue and ask their rows, as a function host does."""
    room = asyncio.Semaphore(HOST_SHARDS)
    await asyncio.sleep(rng.uniform(0.0, 0.3))
    worker.start(deque(), 0)
    async with asyncio.TaskGroup() as group:
        while True:
            await room.acquire()
            shard = await shards.queue.get()
            group.create_task(_shard(shards, worker, shard, rng)).add_done_callback(
                lambda _: room.release()
            )
            if dealt == "even":
                await asyncio.sleep(rng.uniform(0.01, 0.05))


async def _shard(shards: Shards, worker: Worker, shard: Sequence[Row], rng: Random) -> None:
    await asyncio.sleep(rng.uniform(*AROUND))
    gate, room = Gate(math.inf, math.inf), asyncio.Semaphore(AT_ONCE)

    async def ask(row: Row) -> None:
        await worker.dispatcher.ask(worker.call(row), job=worker.job, weight=1.0, gate=gate)
        shards.answer()
        room.release()

    async with asyncio.TaskGroup() as group:
        for row in shard:
            await room.acquire()
            group.create_task(ask(row))
    await asyncio.sleep(rng.uniform(*AROUND))
    shards.receive(gate.seats)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a run. `seen` has a line for each second: the time, and each worker's state."""

    bound: int
    took: int
    refused: float
    operations: float
    seen: Sequence[tuple[float, Sequence[str]]]
    let_in: Counter[int]

    @property
    def efficiency(self) -> float:
        return self.bound / self.took


async def watch(world: World, seen: list[tuple[float, Sequence[str]]]) -> None:
    """Note each second what each worker has, wants, holds and asks."""
    while True:
        now = asyncio.get_running_loop().time()
        seen.append((now, list(_states(world, now))))
        await asyncio.sleep(1.0)


def _states(world: World, now: float) -> Iterator[str]:
    for worker in world.workers:
        lane = worker.dispatcher._lanes.get(NAME)
        if lane is None:
            yield "-"
            continue
        waiting = worker.dispatcher._queued(NAME)
        has, wants = lane.allowance.granted(now), lane.allowance.wanted
        yield f"{100 * has:.0f}/{100 * wants:.0f}/{waiting}/{lane.in_flight}"


def measure(per_minute: int, count: int, workers: int, dealt: Dealt, seed: int = 1) -> Found:
    """One run: so many rows, at so many requests a minute."""

    async def main(rng: Random) -> Found:
        world = World(seed, Limits(requests_per_minute=per_minute), workers=workers)
        work = rows(count, ROW_TOKENS, Random(seed), LATENCY)
        size = min(max(FEW_ROWS, count // USUAL_SHARDS), MAX_ROWS)
        cut = deque(work[at : at + size] for at in range(0, count, size))
        shards = Shards(cut, count)
        seen: list[tuple[float, Sequence[str]]] = []
        tasks = [asyncio.create_task(watch(world, seen))]
        for number, worker in enumerate(world.workers):
            tasks.append(asyncio.create_task(host(shards, worker, Random(number), dealt)))
        await asyncio.sleep(0.3)
        shards.send()
        await shards.done.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in world.workers:
            await worker.stop()
        let_in = Counter(map(int, world.service.admitted))
        took = max(let_in) - min(let_in) + 1
        return Found(
            bound=math.ceil(count / world.limits.requests_per_window),
            took=took,
            refused=world.service.refused / count,
            operations=world.storage.operations / took,
            seen=seen,
            let_in=let_in,
        )

    return run(main, seed)
