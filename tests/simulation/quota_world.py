"""A seeded world for quotas: workers with the production dispatcher and ledger, on virtual time.

The service judges as Azure does (`local.endpoint.limits`: floored windows, tokens at admission);
the ledger lies in a blob store that is slow, loses answers and can be out; clocks differ.
"""

import asyncio
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

from local.endpoint.limits import Limits, Quota
from schemas.deployments import Deployment, Task
from schemas.outcomes import Outcome, Usage
from tests.doubles.blobs import MemoryBlobs
from workers.adapters.endpoints.refusals import refusal
from workers.dispatch.call import Answer, Call, Gate, HandBack
from workers.dispatch.dispatcher import Dispatcher
from workers.ports import BlobRef, EndpointInfo, Stored
from workers.ports.errors import Unavailable
from workers.quota.book import Book
from workers.quota.ledger import Ledger

EPOCH = 86_400.0 * 20_000
NAME = "phi"
_TYPES = {
    "requests": "UserByModelByMinute",
    "tokens": "UserByModelByMinuteTokens",
    "day": "UserByModelByDay",
    "concurrency": "UserConcurrentRequests",
}
_BODY = {"error": {"code": "RateLimitReached", "message": "Rate limit reached."}}


def deployment(name: str = NAME, **changes: Any) -> Deployment:
    return Deployment.model_validate(
        {"name": name, "kind": "openai", "url": "http://127.0.0.1:1/v1", "model": "phi-3"}
        | {"auth": "none"}
        | changes
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One request: bytes of prompt, the output's limit, the time the service takes."""

    text: int
    output: int
    latency: float

    @property
    def tokens(self) -> int:
        """As the service counts it at admission: a quarter of a token a byte, and the limit."""
        return self.text // 4 + self.output

    @property
    def body(self) -> dict[str, Any]:
        content = "x" * self.text
        return {"messages": [{"role": "user", "content": content}], "max_tokens": self.output}


def rows(count: int, mean_tokens: float, rng: Random, latency: float = 3.0) -> list[Row]:
    """Log-normal sizes and latencies."""
    made = []
    for _ in range(count):
        tokens = min(4000.0, rng.lognormvariate(math.log(mean_tokens) - 0.32, 0.8))
        seconds = rng.lognormvariate(math.log(latency), 0.5)
        made.append(Row(int(tokens * 3), max(1, int(tokens / 4)), seconds))
    return made


def lower_bound(work: Sequence[Row], limits: Limits) -> float:
    """Seconds that nobody can undercut, as the service judges."""
    bound = 0.0
    if limits.requests_per_minute:
        windows = math.ceil(len(work) / limits.requests_per_window) - 1
        bound = windows * float(limits.request_window)
    if limits.tokens_per_minute:
        tokens = sum(row.tokens for row in work)
        bound = max(bound, (math.ceil(tokens / limits.tokens_per_minute) - 1) * 60.0)
    return bound + min(row.latency for row in work)


def jain(figures: Sequence[float]) -> float:
    """1: all the same; 1/n: one has all."""
    return sum(figures) ** 2 / (len(figures) * sum(f * f for f in figures))


@dataclass
class Service:
    """What the workers share: the endpoint behind one deployment."""

    limits: Limits
    rng: Random
    hints: str = "ceil"  # "ceil", "none", or the seconds that are always told
    names: bool = True  # whether a refusal says which limit it is about
    slow: float = 1.0
    morning: float = 0.0  # seconds of the day that have passed when the run begins
    capacity: int | None = None  # calls served at a time without queueing
    fault: Callable[[float], Outcome | None] = lambda now: None
    sent_at: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    admitted: list[float] = field(default_factory=list)
    let_in: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    in_flight: int = 0
    most_in_flight: int = 0

    def __post_init__(self) -> None:
        self.quota = Quota(self.limits)

    @property
    def refused(self) -> int:
        return self.refusals.total()

    @property
    def sent(self) -> int:
        return len(self.sent_at)

    async def serve(self, row: Row, who: str = "batch") -> Outcome:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.rng.uniform(0.003, 0.02))
        now = loop.time()
        self.sent_at.append(now)
        fault = self.fault(now)
        if fault is not None:
            await asyncio.sleep(0.01)
            return fault
        exceeded = self.quota.admit(self.morning + now, row.tokens)
        if exceeded is not None:
            self.refusals[exceeded.cause] += 1
            await asyncio.sleep(0.01)
            return self._refusal(exceeded.cause, exceeded.wait)
        self.admitted.append(now)
        self.let_in[who].append(now)
        left = self.quota.remaining(self.morning + now)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            busy = 1.0 if self.capacity is None else max(1.0, self.in_flight / self.capacity)
            await asyncio.sleep(row.latency * self.slow * busy)
        finally:
            self.quota.release()
            self.in_flight -= 1
        usage = Usage(row.text // 4, max(1, row.output // 2))
        return Outcome(
            kind="ok",
            status=200,
            body={},
            usage=usage,
            remaining_requests=left.requests,
            remaining_tokens=left.tokens,
            billed=True,
        )

    def _refusal(self, cause: str, wait: float) -> Outcome:
        """Read as the worker reads it, so that no test rests on an outcome that cannot be."""
        headers = {"x-ratelimit-type": _TYPES[cause]} if self.names else {}
        if self.hints != "none":
            true = "0" if cause == "concurrency" else str(max(1, math.ceil(wait)))
            headers["retry-after"] = true if self.hints == "ceil" else self.hints
        return refusal(429, headers, _BODY, EPOCH)


class Endpoint:
    """A worker's way to the service; bodies carry their row."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        return await self.service.serve(body["row"])

    async def info(self) -> EndpointInfo | None:
        return None


class Storage(MemoryBlobs):
    """The state container: slow, sometimes out, its answers sometimes lost, its clocks skewed."""

    def __init__(self, rng: Random, epoch: float) -> None:
        super().__init__(lambda: epoch + asyncio.get_running_loop().time())
        self.rng = rng
        self.out: Callable[[float], bool] = lambda now: False
        self.lost = 0.0
        self.skew = 0.0
        self.operations = 0
        self.watch: Callable[[Book], None] | None = None

    async def _travel(self) -> None:
        self.operations += 1
        await asyncio.sleep(self.rng.uniform(0.005, 0.04))
        if self.out(asyncio.get_running_loop().time()):
            await asyncio.sleep(self.rng.uniform(0.0, 5.0))
            raise Unavailable

    async def read(self, ref: BlobRef) -> Stored:
        await self._travel()
        stored = await super().read(ref)
        shown = math.floor(stored.server_time + self.rng.uniform(-self.skew, self.skew))
        await asyncio.sleep(self.rng.uniform(0.002, 0.02))
        return Stored(stored.data, stored.etag, stored.last_modified, shown)

    async def replace(self, ref: BlobRef, data: bytes, etag: str) -> str:
        await self._travel()
        fresh = await super().replace(ref, data, etag)
        if self.watch is not None:
            self.watch(Book.load(data) or Book())
        if self.rng.random() < self.lost:
            raise Unavailable
        return fresh


class _Cut:
    """A worker's way to the storage; after a crash nothing passes."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.cut = False

    async def _gone(self) -> None:
        if self.cut:
            raise Unavailable

    async def read(self, ref: BlobRef) -> Stored:
        await self._gone()
        return await self.storage.read(ref)

    async def create(self, ref: BlobRef, data: bytes, **_: Any) -> str:
        await self._gone()
        return await self.storage.create(ref, data)

    async def replace(self, ref: BlobRef, data: bytes, etag: str) -> str:
        await self._gone()
        return await self.storage.replace(ref, data, etag)


class Worker:
    """One process: a dispatcher, its ledger, and pullers that take rows from the common heap."""

    def __init__(self, world: "World", name: str, *, job: str = "job", weight: float = 1.0) -> None:
        self.world = world
        self.name = name
        self.job = job
        self.weight = weight
        self.done: list[float] = []
        self.answers: list[Answer] = []
        self.handed_back: list[HandBack] = []
        self._opened = -math.inf
        self._way = _Cut(world.storage)
        rng = Random(f"{world.seed} {name}")
        ledger = Ledger(self._way, "state", rng=rng) if world.shared else None  # type: ignore[arg-type]
        self.holder = ledger.holder if ledger else ""
        self.dispatcher = Dispatcher(
            world.deployments,
            {name: Endpoint(service) for name, service in world.services.items()},
            rng=rng,
            ledger=ledger,
            routes=world.routes,
            safe_share=world.safe_share,
            wall=lambda: EPOCH + world.morning + asyncio.get_running_loop().time(),
        )
        self.rng = rng
        self.alive = True
        self.errands: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, heap: deque[Row], concurrency: int) -> None:
        make = asyncio.get_running_loop().create_task
        self._tasks.append(make(self.dispatcher.run()))
        self._tasks += [make(self._pull(heap)) for _ in range(concurrency)]

    async def _pull(self, heap: deque[Row]) -> None:
        """What a runner does with its rows; a row that is handed back returns to the heap."""
        loop = asyncio.get_running_loop()
        while heap or not self.world.complete:
            if not heap:
                await asyncio.sleep(1.0)
                continue
            row = heap.popleft()
            gate = self._gate(loop.time())
            try:
                answer = await self.dispatcher.ask(
                    self.call(row), job=self.job, weight=self.weight, gate=gate
                )
            except HandBack as back:
                heap.append(row)
                self.handed_back.append(back)
                await asyncio.sleep(back.delay)
            except asyncio.CancelledError:
                heap.append(row)
                raise
            else:
                self.done.append(loop.time())
                self.answers.append(answer)
                self.world.finished(answer)

    def _gate(self, now: float) -> Gate:
        """One for the calls of ten seconds, as a shard has one for its rows."""
        if now >= self._opened + 10.0:
            self._opened = now
            self._shard = Gate(math.inf, now + self.world.patience)
        return self._shard

    def call(self, row: Row) -> Call:
        return Call("chat", self.world.model, row.body | {"row": row})

    async def crash(self) -> None:
        """kill -9: nothing is given back."""
        self.alive = False
        self._way.cut = True
        await self.stop()

    async def stop(self) -> None:
        tasks = self._tasks + self.errands
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


class World:
    """Workers, services, storage, and what has happened."""

    def __init__(
        self,
        seed: int,
        limits: Limits,
        *,
        workers: int = 1,
        concurrency: int = 100,
        shared: bool = True,
        patience: float = 150.0,
        safe_share: float = 0.1,
        configured: Mapping[str, Any] | None = None,
        within_day: bool = False,
    ) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.limits = limits
        self.shared = shared
        self.patience = patience
        self.safe_share = safe_share
        self.concurrency = concurrency
        # Four hours before midnight, where the day matters; the service's day ends with it.
        self.morning = 72_000.0 if within_day else 0.0
        self.strangers: list[Callable[[], Coroutine[Any, Any, None]]] = []
        given = {
            "requests_per_minute": limits.requests_per_minute or None,
            "tokens_per_minute": limits.tokens_per_minute or None,
            "requests_per_day": limits.requests_per_day or None,
            "max_tokens_per_request": limits.max_tokens_per_request or None,
        } | dict(configured or {})
        self.deployments = [deployment(**given)]
        self.model = "phi-3"
        self.routes: dict[str, list[str]] = {}
        self.service = Service(limits, Random(seed + 1), morning=self.morning)
        self.services = {NAME: self.service}
        self.storage = Storage(Random(seed + 2), EPOCH + self.morning)
        self.workers = [Worker(self, f"w{n}") for n in range(workers)]
        self.heap: deque[Row] = deque()
        self.results: list[Answer] = []
        self.total = 0
        self.complete = False
        self._all = asyncio.Event()

    def finished(self, answer: Answer) -> None:
        self.results.append(answer)
        if len(self.results) >= self.total:
            self.complete = True
            self._all.set()

    async def work(self, work: Sequence[Row], *, within: float = 7200.0) -> float:
        """Have all workers do these rows; gives the seconds it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.heap.extend(work)
        self.total = len(work)
        strangers = [asyncio.create_task(each()) for each in self.strangers]
        for worker in self.workers:
            worker.start(self.heap, self.concurrency)
        async with asyncio.timeout(within):
            await self._all.wait()
        took = loop.time() - began
        for stranger in strangers:
            stranger.cancel()
        for worker in self.workers:
            await worker.stop()
        return took

    @property
    def refusals(self) -> float:
        """429s per row."""
        return self.service.refused / max(1, self.total)

    @property
    def sends(self) -> float:
        """Calls per row."""
        return self.service.sent / max(1, self.total)

    def rate(self, begin: float, end: float) -> float:
        """Requests per second that the service let in between two times."""
        return sum(begin <= at < end for at in self.service.admitted) / (end - begin)

    def sent_between(self, begin: float, end: float) -> float:
        """Requests per second that the workers sent."""
        return sum(begin <= at < end for at in self.service.sent_at) / (end - begin)

    def in_use(self) -> float:
        """The part of the quota that the workers may use at this moment by the ledger."""
        now = asyncio.get_running_loop().time()
        lanes = (each.dispatcher._lanes.get(NAME) for each in self.workers if each.alive)
        return sum(lane.allowance.granted(now) for lane in lanes if lane is not None)

    def book(self) -> Book:
        """The ledger as it is stored."""
        blob = self.storage.blobs.get(BlobRef("state", f"quota/{NAME}.json"))
        return (Book.load(bytes(blob.data)) if blob else None) or Book()
