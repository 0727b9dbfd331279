"""A world of one seed: workers on unreliable services, users, and time that passes by itself.

The host (`host`) runs the workers, users (`users`) do what users do, and whatever goes wrong
(`faults`) goes wrong between them and the services, which are the doubles. When nothing moves any
more, `tests.simulation.checker` looks at what there is. Nothing in a world comes from outside of
its seed, so that each run of a seed is the same run.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import orjson

from schemas.deployments import Deployment
from schemas.jobs import TERMINAL
from schemas.tenants import Tenant
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.bus import MemoryBus, QueueRules
from tests.simulation import virtual_time
from tests.simulation.attempts import Attempts
from tests.simulation.billing import Billing
from tests.simulation.caps import Caps, is_capped
from tests.simulation.endpoint import Service
from tests.simulation.faults import Befalls, Faults
from tests.simulation.host import DROPS, Host
from tests.simulation.liveness import Liveness
from tests.simulation.observers import Observers
from tests.simulation.process import EPOCH
from tests.simulation.receivers import HOOK, Receiver
from tests.simulation.records import Records
from tests.simulation.scenario import Scenario
from tests.simulation.users import Users
from tests.simulation.watching import Watching
from workers.intake import intake, planning, plans
from workers.jobs import finisher
from workers.ports import Blobs, OutMessage
from workers.ports.errors import WorkerError
from workers.settings import Settings
from workers.sweeper import LOOK_SECONDS

PATIENCE = 30 * 3600.0
ENDLESS_SECONDS = 3600.0
"""How long a world is looked at whose faults never end."""
OWED_SECONDS = 900.0
"""How long after the last fault a living process may owe the end of an attempt."""

Storage = Callable[[Blobs], Blobs]


class World:
    """All that there is. `run` lets it live until nothing moves any more."""

    def __init__(
        self,
        scenario: Scenario,
        rng: Random,
        *,
        faults: Befalls | None = None,
        storage: Storage | None = None,
        keep: bool = False,
    ) -> None:
        self.scenario = scenario
        self.storage: Storage = storage or (lambda blobs: blobs)
        self.rng = rng
        self.loop = virtual_time.current()
        self.moved = asyncio.Event()
        self.log: list[str] | None = [] if keep else None
        self.digest = hashlib.blake2b(digest_size=16)
        self.found: list[str] = []
        self.told: dict[str | None, list[dict[str, Any]]] = {}
        self.ended_at = 0
        self._pending = 0
        self._tasks: set[asyncio.Task[None]] = set()

        self.settings = settings_of(scenario)
        self.blobs = MemoryBlobs(self._wall, append_blocks=scenario.append_blocks)
        rules = QueueRules(scenario.lock_seconds, scenario.max_deliveries)
        events = QueueRules(scenario.lock_seconds, 1_000)
        queues = {"jobs": rules, "shards": rules, DROPS: events, "webhooks": rules}
        self.bus = MemoryBus(self._wall, queues)
        self.service = Service(scenario, rng)
        self.receiver = Receiver(self)

        self.records = Records(self.blobs)
        self.billing = Billing(self)
        self.caps = Caps(self) if is_capped(scenario) else None
        if self.caps is not None:
            self.service.bills = self.caps.bills
        self.attempts = Attempts(self)
        self.faults = Faults(self, faults)
        self.host = Host(self)
        self.users = Users(self)
        self.liveness = Liveness(self)
        self.observers = Observers(self)
        self.watching = Watching()

    # -- time and trace

    @property
    def now(self) -> float:
        return self.loop.now

    def _wall(self) -> float:
        return EPOCH + self.loop.now

    def trace(self, *what: object) -> None:
        line = f"{self.loop.now:.4f} " + " ".join(map(str, what))
        self.digest.update(line.encode())
        if self.log is not None:
            self.log.append(line)

    def fault_found(self, fault: str) -> None:
        """Something that must not happen has happened."""
        self.trace("!!!", fault)
        if fault not in self.found:
            self.found.append(fault)

    # -- what is still to come keeps the world alive

    @contextmanager
    def held_open(self) -> Iterator[None]:
        """The world does not end while the block runs."""
        self._pending += 1
        try:
            yield
        finally:
            self._pending -= 1
            self.moved.set()

    def later(self, delay: float, act: Callable[..., None], *args: object) -> None:
        """Do something after a while; the world does not end before that."""
        self._pending += 1

        def done() -> None:
            self._pending -= 1
            act(*args)
            self.moved.set()

        self.loop.call_later(delay, done)

    def late(self, delay: float, effect: Callable[[], Awaitable[object]]) -> None:
        """A call that its caller has given up arrives after all."""

        held = contextlib.ExitStack()
        held.enter_context(self.held_open())

        async def arrive() -> None:
            with held, contextlib.suppress(WorkerError):
                await asyncio.sleep(delay)
                await effect()

        self.spawn(arrive())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something happen that no process does."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def latency(self) -> float:
        """How long a call takes."""
        chance = self.rng.random()
        if chance < 0.7:
            return 0.0
        return self.scenario.latency * (0.05 if chance < 0.97 else self.rng.uniform(0.1, 1.0))

    def patience(self) -> float:
        """How long a caller waits for a service that is out."""
        return self.rng.uniform(0.5, 5.0)

    # -- the bus

    async def sent(self, entity: str, message: OutMessage) -> None:
        """The bus takes a message."""
        if entity == "job-status":
            event = orjson.loads(message.body)
            self._check_told(event)
            self.told.setdefault(event["data"].get("job"), []).append(event)
        await self.bus.send(entity, [message])
        self.moved.set()

    def _check_told(self, event: dict[str, Any]) -> None:
        told = event["data"]
        if event["type"].removeprefix("job.") in TERMINAL:
            folder = told["results"].removeprefix("results/")
            name = told.get("manifest", "manifest.json")
            if self.records.stored("results", f"{folder}/{name}") is None:
                self.fault_found(f"{event['type']} was told before the manifest stood")

    # -- a whole life

    async def run(self) -> None:
        """Live until nothing moves any more, or for too long."""
        await self._begin()
        end = ENDLESS_SECONDS if self.scenario.endless else PATIENCE + self.scenario.faults_until
        while self.now < end:
            self.host.deliver()
            if self._too_much():
                break
            if not self._quiet():
                await self._change(end)
            elif self.attempts.owing() and self.now - self.faults.last_at < OWED_SECONDS:
                await asyncio.sleep(1.0)
            else:
                break
        self.ended_at = int(self.now)
        for job in self.records.jobs():
            await self.observers.look(job)
        self.host.stop()
        await asyncio.sleep(0)

    async def _begin(self) -> None:
        for place in range(self.scenario.workers):
            self.host.start(place)
        for file in self.scenario.files:
            await self.users.write(file)
            await self.users.announce(file.name)
        for doing in self.scenario.doings:
            self.later(doing.at, self.users.do, doing)
        for span in self.scenario.no_runs:
            self.loop.call_at(span.end, self.moved.set)
        self.loop.call_later(LOOK_SECONDS * self.rng.random(), self.host.tick)
        self.spawn(self.observers.watch())
        if not self.scenario.endless:
            self.liveness.look()

    def _too_much(self) -> bool:
        """Whether it has to be ended: an endless world's faults may well be without end."""
        deliveries = self.host.deliveries > self.scenario.most_deliveries
        much = deliveries or self.host.lives > self.scenario.most_lives
        if much and not self.scenario.endless:
            self.fault_found("messages go round, or workers die, without end")
        return much

    def _quiet(self) -> bool:
        return not (
            self._pending
            or self.host.busy
            or self.records.open_markers()
            or (self.host.unheard and self.host.waited_for())
            or any(self.bus.waiting(queue) for queue in self.host.queues)
        )

    async def _change(self, end: float) -> None:
        due = self.bus.next_change()
        at = end if due is None else min(end, due - EPOCH + 0.001)
        timer = self.loop.call_at(max(at, self.now + 0.001), self.moved.set)
        await self.moved.wait()
        self.moved.clear()
        timer.cancel()


def settings_of(scenario: Scenario) -> Settings:
    """The settings of a scenario's workers."""
    deployment = Deployment.model_validate(
        {
            "name": "phi",
            "kind": "openai",
            "url": "http://127.0.0.1:1/v1",
            "model": "phi-3",
            "auth": "none",
            "max_concurrency": scenario.max_concurrency,
            "requests_per_minute": scenario.requests_per_minute,
            "price": {"input": "1", "output": "2", "currency": "USD"},
        }
    )
    return Settings(
        deployments=(deployment,),
        completion_window=scenario.completion_window,
        shard_seconds=scenario.shard_seconds,
        journal_seconds=scenario.journal_seconds,
        webhooks={"default": HOOK} if scenario.webhooks else {},
        tenants={"default": Tenant(max_cost_per_month=scenario.month_cap)},
    )


@contextmanager
def small(scenario: Scenario) -> Iterator[None]:
    """Plans, windows and slices of a size that lets twenty rows meet what millions meet."""
    names = {
        (planning, "MAX_ROWS"): scenario.shard_rows,
        (planning, "FEW_ROWS"): scenario.shard_rows,
        (plans, "LARGE_BYTES"): 0,
        (intake, "WINDOW"): dict.fromkeys(intake.WINDOW, scenario.window),
        (finisher, "_BATCH"): 1,
    }
    before = {place: getattr(*place) for place in names}
    try:
        for (module, name), value in names.items():
            setattr(module, name, value)
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


@contextmanager
def quiet() -> Iterator[None]:
    """Warnings of thousands of mishaps tell nobody anything."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def live(
    scenario: Scenario,
    *,
    faults: Callable[[], Befalls] | None = None,
    storage: Storage | None = None,
    keep: bool = False,
) -> World:
    """Run a scenario's world to its end. Its workers use storage through `storage`."""

    async def lived(rng: Random) -> World:
        world = World(
            scenario, rng, faults=faults() if faults else None, storage=storage, keep=keep
        )
        await world.run()
        return world

    with small(scenario), quiet():
        return virtual_time.run(lived, scenario.seed)
