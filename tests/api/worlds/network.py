"""The way from a user's program to a process, and what happens on it, by a seed.

Processes are the service's own parts over one storage and one bus in memory. They die before and
after any of their effects, storage loses answers, and so does the way back to the user, whose
program asks again as the SDK does.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from random import Random
from typing import TypeVar

from schemas.tenants import Tenant
from tests.api.client import KEYS, Client
from tests.doubles import FaultyBlobs, MemoryBlobs
from tests.doubles.bus import MemoryBus
from tests.doubles.faults import EFFECTS, AnswerLost, Fault, FaultyBus, Phase, ProcessKilled
from tests.doubles.service import DEPLOYMENT, EPOCH, Answering, Bench
from workers.api.http import AnyReply, HttpCall
from workers.ports import BlobRef
from workers.ports.errors import Unavailable
from workers.settings import Settings

PROCESSES = 2
RETRIES = 2
AGAIN = (408, 409, 429)
T = TypeVar("T")
# In a thousand: of effects and of reads, and of calls on their way and back.
KILLED, LOST, AWAY, READ_AWAY, NEVER_ARRIVED, ANSWER_LOST = 15, 20, 15, 3, 15, 40


class NoAnswer(Exception):
    """The program has given up: what it asked for may have happened."""


class Trouble:
    """What befalls one process. `calm` ends all of it, but no process lives again."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.calm = False
        self.dead = False

    def strikes(self, thousandths: int) -> bool:
        return not self.calm and self._rng.randrange(1000) < thousandths

    def __call__(self, kind: str, name: str, phase: Phase) -> None:
        if self.dead:
            raise ProcessKilled
        if kind not in EFFECTS:
            if self.strikes(READ_AWAY):
                raise Unavailable("away")
            return
        if self.strikes(KILLED):
            self.dead = True
            raise ProcessKilled
        if self.strikes(LOST):
            raise AnswerLost
        if self.strikes(AWAY):
            raise Unavailable("away")


class FaultyStorage(FaultyBlobs):
    """Blobs, and what uploads need of them, with a fault around each call."""

    def __init__(self, memory: MemoryBlobs, fault: Fault) -> None:
        super().__init__(memory, fault)
        self._memory = memory

    async def stage(self, ref: BlobRef, block_id: str, data: bytes | memoryview) -> None:
        await self._do("stage_from", ref, lambda: self._memory.stage(ref, block_id, data))

    async def staged(self, ref: BlobRef) -> Mapping[str, int]:
        return await self._do("staged", ref, lambda: self._memory.staged(ref))

    async def link(self, ref: BlobRef, seconds: float, filename: str) -> str:
        return await self._memory.link(ref, seconds, filename)


class Process:
    """One process that answers HTTP and runs timers."""

    def __init__(self, network: "Network") -> None:
        self.trouble = Trouble(network.rng)
        self.trouble.calm = network.calm
        storage = FaultyStorage(network.memory, self.trouble)
        self.bench = Bench(
            blobs=storage,
            bus=FaultyBus(network.bus, self.trouble),
            settings=network.settings,
            endpoint=network.endpoint,
            transfers=storage,
            rng=Random(network.rng.getrandbits(64)),
        )


class Network:
    """All processes, and the way to them. `kills` counts those that died."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.calm = False
        self.kills = self.calls = 0
        self.memory = MemoryBlobs(now)
        self.bus = MemoryBus(now)
        self.endpoint = Answering()
        self.settings = Settings(
            deployments=(DEPLOYMENT,),
            api_keys=KEYS,
            tenants={"default": Tenant(), "blue": Tenant()},
        )
        self.worker = Bench(
            blobs=self.memory,
            bus=self.bus,
            settings=self.settings,
            endpoint=self.endpoint,
            transfers=self.memory,
            rng=Random(rng.getrandbits(64)),
        )
        self._processes = [Process(self) for _ in range(PROCESSES)]

    def be_calm(self) -> None:
        """Nothing goes wrong from now on."""
        self.calm = True
        for each in self._processes:
            each.trouble.calm = True

    async def ask(self, call: HttpCall) -> AnyReply:
        """The answer of some process. Raises NoAnswer where it is lost, or never came to be."""
        self.calls += 1
        process = self._any()
        if process.trouble.strikes(NEVER_ARRIVED):
            raise NoAnswer
        reply = await self._in(process, process.bench.openai.answer(call))
        if process.trouble.strikes(ANSWER_LOST):
            raise NoAnswer
        return reply

    async def delete_what_is_due(self) -> None:
        """The timer's work in some process, which may die of it: a later one goes on."""
        process = self._any()
        try:
            await self._in(process, process.bench.service.retention.run())
        except (NoAnswer, Unavailable):
            if self.calm:
                raise

    def _any(self) -> Process:
        return self.rng.choice(self._processes)

    async def _in(self, process: Process, work: Awaitable[T]) -> T:
        try:
            return await work
        except BaseException:
            if not process.trouble.dead:
                raise
            if process in self._processes:
                self.kills += 1
                self._processes[self._processes.index(process)] = Process(self)
            raise NoAnswer from None


def now() -> float:
    """Seconds since the epoch, by the loop's time."""
    return EPOCH + asyncio.get_running_loop().time()


class Program(Client):
    """A user's program: asks again as the SDK does, and gives up as it does."""

    def __init__(self, network: Network, key: str) -> None:
        super().__init__(network.worker, key)
        self._network = network
        self._authorization = f"Bearer {key}"
        self.repeated = False
        """Whether the latest call was asked more than once."""

    async def call(
        self,
        method: str,
        path: str,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> AnyReply:
        """The answer that the program comes to see. Raises NoAnswer."""
        given = {"authorization": self._authorization, "content-length": str(len(data))}
        for attempt in range(RETRIES + 1):
            self.repeated = attempt > 0
            counted = {"x-stainless-retry-count": str(attempt)}
            call = HttpCall(method, path, query, given | dict(headers or {}) | counted, data)
            try:
                reply = await self._network.ask(call)
            except NoAnswer:
                reply = None
            if reply is not None and not _again(reply):
                return reply
            await asyncio.sleep(self._network.rng.uniform(0.5, 8.0))
        if reply is not None and reply.code < 500:
            return reply
        raise NoAnswer


def _again(reply: AnyReply) -> bool:
    told = reply.headers.get("x-should-retry")
    return told != "false" and (reply.code in AGAIN or reply.code >= 500)
