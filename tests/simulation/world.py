"""A world of one seed: workers on unreliable services, users, and time that passes by itself.

It plays the Functions host (peek-lock pumps, timers), the Azure services (the doubles) and whatever
goes wrong between them. When nothing moves any more, `tests.simulation.checker` looks at what there
is. Nothing in it comes from outside of its seed, so that each run of a seed is the same run.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from schemas.deployments import Deployment
from schemas.jobs import TERMINAL
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.bus import Delivery, LockLost, MemoryBus, QueueRules
from tests.doubles.faults import EFFECTS, ProcessKilled
from tests.simulation import virtual_time
from tests.simulation.billing import RUN, Billing, Run
from tests.simulation.endpoint import Service
from tests.simulation.process import EPOCH, Process
from tests.simulation.scenario import Doing, Row, Scenario, Version, version
from workers.api.http import HttpCall
from workers.errors import Draining, Unavailable
from workers.inbox import Received
from workers.intake import intake, planning
from workers.jobs import finisher
from workers.ports import BlobRef, OutMessage
from workers.settings import Settings
from workers.sweeper import LOOK_SECONDS

Faults = Callable[[Process, str, str], str | None]

DROPS = "drops"
DEAD = "/$deadletterqueue"
QUEUES = ("jobs", "shards", DROPS, "jobs" + DEAD, "shards" + DEAD)
PATIENCE = 6 * 3600.0
MOST_LIVES = 60


class World:
    """All that there is. `run` lets it live until nothing moves any more."""

    def __init__(
        self, scenario: Scenario, rng: Random, *, faults: Faults | None = None, keep: bool = False
    ) -> None:
        self.scenario = scenario
        self.rng = rng
        self.faults: Faults = self._scripted
        self._other_faults: Faults = faults or self._random_fault
        self._script = list(scenario.script)
        self.log: list[str] | None = [] if keep else None
        self.digest = hashlib.blake2b(digest_size=16)
        self.settings = settings_of(scenario)
        self.blobs = MemoryBlobs(self._wall, append_blocks=scenario.append_blocks)
        rules = QueueRules(scenario.lock_seconds, scenario.max_deliveries)
        events = QueueRules(scenario.lock_seconds, 1_000)
        self.bus = MemoryBus(self._wall, {"jobs": rules, "shards": rules, DROPS: events})
        self.service = Service(scenario, rng)
        self.billing = Billing(self)
        self.found: list[str] = []
        self.versions: dict[str, Version] = {}
        self.current: dict[str, str] = {}
        self.accepted: list[tuple[str, str]] = []
        self.processes: list[Process] = []
        self.kills = self.freezes = self.injected = self.ended_at = 0
        self.slowest = 4.0 * max(1.0, scenario.latency)
        self._lives = 0
        self._freeze_for: dict[str, float] = {}
        self._acting: set[asyncio.Task[None]] = set()
        self._deliveries = 0
        self._pending = 0
        self._handling: dict[tuple[str, int, int], tuple[Process, Run]] = {}
        self._moved = asyncio.Event()
        self._writes: dict[str, int] = {}
        self._rows: dict[tuple[str, int], tuple[Row, ...]] = {}
        self._loop = asyncio.get_running_loop()

    # -- time, trace, what processes ask of the world

    @property
    def now(self) -> float:
        return self._loop.time()

    def _wall(self) -> float:
        return EPOCH + self.now

    def trace(self, *what: object) -> None:
        line = f"{self.now:.4f} " + " ".join(map(str, what))
        self.digest.update(line.encode())
        if self.log is not None:
            self.log.append(line)

    def fault_found(self, fault: str) -> None:
        """Something that must not happen has happened."""
        self.trace("!!!", fault)
        if fault not in self.found:
            self.found.append(fault)

    @property
    def faulty(self) -> bool:
        return self.now < self.scenario.faults_until

    def latency(self) -> float:
        chance = self.rng.random()
        if chance < 0.7:
            return 0.0
        return self.scenario.latency * (0.05 if chance < 0.97 else self.rng.uniform(0.1, 1.0))

    def unreachable(self, kind: str) -> bool:
        spans = self.scenario.bus_out if kind == "send" else self.scenario.storage_out
        return any(self.now in span for span in spans)

    def _scripted(self, process: Process, kind: str, name: str) -> str | None:
        for scripted in self._script:
            if scripted.kind == kind and scripted.name in name:
                self._script.remove(scripted)
                if scripted.act is not None:
                    self._pending += 1
                    self._do(Doing(self.now, scripted.act))
                    break
                self._freeze_for[process.name] = scripted.seconds
                return scripted.fault
        return self._other_faults(process, kind, name)

    def _random_fault(self, process: Process, kind: str, name: str) -> str | None:
        if not self.faulty:
            return None
        chances, chance = self.scenario, self.rng.random()
        menu = (("kill", chances.kill), ("freeze", chances.freeze), ("lose", chances.lose))
        for fault, rate in menu:
            if chance < rate:
                if fault == "lose" and kind == "ask":
                    return None
                self.injected += 1
                return f"{fault} {'before' if chance < rate / 2 else 'after'}"
            chance -= rate
        if chance < chances.repeat and kind in EFFECTS:
            self.injected += 1
            return "repeat"
        return None

    async def sent(self, entity: str, message: OutMessage) -> None:
        """The bus takes a message; on queues it may lose, double or delay it."""
        times, scenario = 1, self.scenario
        if self.faulty and entity in ("jobs", "shards"):
            chance = self.rng.random()
            # Until a job is marked as open, a request lives in its message alone.
            marked = json.loads(message.body).get("type") in ("shard", "finish", "expire")
            if chance < scenario.drop and marked:
                self.trace("bus", "loses", message.message_id)
                return
            if chance < scenario.drop + scenario.double:
                times = 2
            elif chance < scenario.drop + scenario.double + scenario.delay:
                at = max(message.at or 0.0, self._wall()) + self.rng.choice((1.0, 20.0, 200.0))
                message = OutMessage(
                    message.body,
                    message.message_id,
                    message.correlation_id,
                    message.properties,
                    at,
                    message.content_type,
                )
        if entity == "job-status":
            self._check_told(json.loads(message.body))
        for _ in range(times):
            await self.bus.send(entity, [message])
        self._moved.set()

    def _check_told(self, event: dict[str, Any]) -> None:
        told = event["data"]
        if event["type"].removeprefix("job.") in TERMINAL:
            folder = told["results"].removeprefix("results/")
            if self.stored("results", f"{folder}/manifest.json") is None:
                self.fault_found(f"{event['type']} was told before the manifest stood")

    # -- processes

    def _start(self, place: int) -> None:
        self._lives += 1
        rng = Random(self.rng.getrandbits(64))
        skew = self.scenario.skews[place % len(self.scenario.skews)]
        process = Process(self, f"p{place}.{self._lives}", skew, rng)
        if place < len(self.processes):
            self.processes[place] = process
        else:
            self.processes.append(process)
        self._moved.set()

    def kill(self, process: Process) -> None:
        """End a process at once; another one takes its place a little later."""
        if process.dead:
            return
        self.kills += 1
        self.trace("kill", process.name)
        self._break(process)
        process.kill()
        self._later(self.rng.choice((0.0, 5.0, 40.0)), self._start, self.processes.index(process))

    def freeze(self, process: Process) -> None:
        """Stop a process, and let it go on when others may have taken over."""
        if process.dead or process.frozen:
            return
        self.freezes += 1
        self.trace("freeze", process.name)
        self._break(process)
        process.freeze()
        some = self.rng.choice((10.0, 35.0, 70.0, 200.0))
        seconds = self._freeze_for.pop(process.name, some)
        self._later(seconds, self._wake, process)

    def _wake(self, process: Process) -> None:
        process.wake()
        self._moved.set()

    def _break(self, process: Process) -> None:
        for holder, run in list(self._handling.values()):
            if holder is process:
                self.billing.broke(run)

    def _later(self, delay: float, act: Callable[..., None], *args: object) -> None:
        self._pending += 1

        def done() -> None:
            self._pending -= 1
            act(*args)
            self._moved.set()

        self._loop.call_later(delay, done)

    # -- the host: messages

    def _deliver(self) -> None:
        for queue in QUEUES:
            self.bus.waiting(queue)  # so that what has been tried too often is dead by now
        while self._deliver_one():
            pass

    def _deliver_one(self) -> bool:
        ready = [
            (queue, process)
            for process in self.processes
            if not process.dead and not process.frozen and not process.draining
            for queue in QUEUES
            if queue != "shards" or not any(self.now in span for span in self.scenario.no_runs)
            if process.busy.get(queue, 0) < self.scenario.slots
        ]
        while ready:
            queue, process = ready[self.rng.randrange(len(ready))]
            delivery = self.bus.receive(queue)
            if delivery is not None:
                self._handle(process, delivery)
                return True
            ready = [(other, each) for other, each in ready if other != queue]
        return False

    def _handle(self, process: Process, delivery: Delivery) -> None:
        process.busy[delivery.queue] = process.busy.get(delivery.queue, 0) + 1
        self._deliveries += 1
        run = Run(process.name)
        self._handling[_key(delivery)] = (process, run)
        self._keep_lock(delivery)
        if self.faulty and self.rng.random() < self.scenario.unlock:
            self._loop.call_later(self.rng.uniform(0.0, 5.0), self._unlock, delivery)
        process.spawn(self._handled(process, delivery, run))

    async def _handled(self, process: Process, delivery: Delivery, run: Run) -> None:
        RUN.set(run)
        message = delivery.message
        self.trace(
            process.name, "gets", delivery.queue, message.message_id, delivery.delivery_count
        )
        received = Received(
            body=message.body,
            message_id=message.message_id,
            correlation_id=message.correlation_id,
            deliveries=delivery.delivery_count,
            properties=message.properties,
        )
        good = False
        try:
            await self._given(process, delivery.queue, received)
            good = True
        except (Unavailable, Draining) as error:
            self.trace(process.name, "raises", type(error).__name__)
        except Exception as error:  # noqa: BLE001 - as the host does
            if not process.dead:
                self.fault_found(f"a handler raised {error!r}")
        except (ProcessKilled, BaseExceptionGroup):
            if not process.dead:
                raise
        finally:
            if not process.dead:
                await self._settle(process, delivery, run, good)
            else:
                self._forget(process, delivery, run)

    async def _given(self, process: Process, queue: str, received: Received) -> None:
        inbox = process.inbox
        if queue == DROPS:
            told = json.loads(received.body)
            await process.intake.dropped(
                told["container"], told["name"], etag=told["etag"], repeated=received.repeated
            )
            return
        handlers = {
            "jobs": inbox.jobs,
            "shards": inbox.shards,
            "jobs" + DEAD: inbox.dead_jobs,
            "shards" + DEAD: inbox.dead_shards,
        }
        await handlers[queue](received)

    async def _settle(self, process: Process, delivery: Delivery, run: Run, good: bool) -> None:
        try:
            await process.alive()
            if good:
                self.bus.complete(delivery)
            else:
                self.bus.abandon(delivery)
        except LockLost:
            self.trace(process.name, "lock lost", delivery.message.message_id)
        except ProcessKilled:
            return
        finally:
            self._forget(process, delivery, run)

    def _forget(self, process: Process, delivery: Delivery, run: Run) -> None:
        if not process.dead:
            self.billing.ended(run)
        run.done = True
        self._handling.pop(_key(delivery), None)
        process.busy[delivery.queue] -= 1
        self._moved.set()

    def _keep_lock(self, delivery: Delivery) -> None:
        def renew() -> None:
            held = self._handling.get(_key(delivery))
            if held is None or held[0].dead:
                return
            if not held[0].frozen:
                try:
                    self.bus.renew(delivery)
                except LockLost:
                    return
            self._loop.call_later(self.scenario.lock_seconds / 2, renew)

        self._loop.call_later(self.scenario.lock_seconds / 2, renew)

    def _unlock(self, delivery: Delivery) -> None:
        try:
            self.bus.abandon(delivery)
        except LockLost:
            return
        self.trace("bus", "takes the lock of", delivery.message.message_id)
        self._moved.set()

    # -- the host: timers

    def _tick(self) -> None:
        marked = any(ref.name.startswith("open/") for ref in self.blobs.blobs)
        able = [p for p in self.processes if not p.dead and not p.frozen and not p.draining]
        if marked and able:
            process = able[self.rng.randrange(len(able))]
            process.spawn(self._swept(process))
        self._loop.call_later(LOOK_SECONDS, self._tick)

    async def _swept(self, process: Process) -> None:
        self.trace(process.name, "sweeps")
        try:
            await process.sweeper.run()
            await process.inbox.drain_dead()
        except Unavailable:
            self.trace(process.name, "sweep fails")
        except (ProcessKilled, BaseExceptionGroup):
            if not process.dead:
                raise
        self._moved.set()

    # -- users

    async def write(self, file: Version) -> None:
        """Put a file into its container, over what is there."""
        ref = BlobRef("prompts", file.name)
        await self.blobs.delete(ref)
        etag = await self.blobs.create(ref, file.data)
        self.versions[etag] = file
        self.current[file.name] = etag

    async def announce(self, name: str) -> None:
        """Tell of a file as it is now; users' own messages do not get lost on the way."""
        etag = self.current.get(name)
        if etag is None:
            return
        if self.scenario.queued:
            body = json.dumps({"container": "prompts", "name": name}).encode()
            await self.bus.send("jobs", [OutMessage(body, f"request {name}")])
        else:
            event = {"container": "prompts", "name": name, "etag": etag}
            await self.bus.send(DROPS, [OutMessage(json.dumps(event).encode(), f"drop {name}")])
        self._moved.set()

    async def _does(self, doing: Doing) -> None:
        self.trace("user", doing.act, doing.which)
        able = [p for p in self.processes if not p.dead]
        if doing.act in ("kill", "drain"):
            if able:
                await self._stop(able[doing.which % len(able)], doing.act == "drain")
            return
        names = [file.name for file in self.scenario.files]
        name = names[doing.which % len(names)]
        if doing.act == "announce":
            await self.announce(name)
        elif doing.act == "delete":
            self.current.pop(name, None)
            await self.blobs.delete(BlobRef("prompts", name))
        elif doing.act == "overwrite":
            self._writes[name] = self._writes.get(name, 1) + 1
            await self.write(version(name, self._writes[name], ("chat",) * 3))
            await self.announce(name)
        elif able:
            job = next((job for job in self.jobs() if self.file_of(job).name == name), None)
            process = able[self.rng.randrange(len(able))]
            if job is not None:
                process.spawn(self._acts(process, job, doing.act))

    async def _stop(self, process: Process, gently: bool) -> None:
        if gently and not process.frozen:
            process.draining = True
            self._break(process)
            process.spawn(process.runner.drain())
            self._later(2.0, self.kill, process)
        else:
            self.kill(process)

    async def _acts(self, process: Process, job: str, act: str) -> None:
        try:
            reply = await process.api.answer(HttpCall("POST", f"/api/jobs/{job}/{act}"))
        except Unavailable:
            return
        except (ProcessKilled, BaseExceptionGroup):
            if not process.dead:
                raise
            return
        finally:
            self._moved.set()
        self.trace("user", act, job, reply.code)
        if reply.code == 202:
            self.accepted.append((job, act))

    # -- what lies in storage

    def stored(self, container: str, name: str) -> bytes | None:
        """A blob's content."""
        blob = self.blobs.blobs.get(BlobRef(container, name))
        return None if blob is None else bytes(blob.data)

    def jobs(self) -> list[str]:
        """Ids of all jobs that were accepted."""
        names = sorted(ref.name for ref in self.blobs.blobs if ref.container == "state")
        return [n.split("/")[1] for n in names if n.startswith("jobs/") and n.endswith("/job.json")]

    def file_of(self, job: str) -> Version:
        """The content that a job was made of."""
        stored = json.loads(self.stored("state", f"jobs/{job}/job.json") or b"{}")
        return self.versions[stored["etag"]]

    def rows_of(self, job: str, shard: int) -> tuple[Row, ...]:
        """The rows of a shard, by the plan."""
        if (job, shard) not in self._rows:
            first = 0
            plan = self.stored("state", f"jobs/{job}/plan.jsonl") or b""
            for line in map(json.loads, plan.splitlines()):
                rows = self.file_of(job).rows[first : first + line["rows"]]
                self._rows[job, line["shard"]] = rows
                first += line["rows"]
        return self._rows[job, shard]

    # -- a whole life

    async def run(self) -> None:
        """Live until nothing moves any more, or for too long."""
        for place in range(self.scenario.workers):
            self._start(place)
        for file in self.scenario.files:
            await self.write(file)
            await self.announce(file.name)
        for doing in self.scenario.doings:
            self._loop.call_later(doing.at, self._do, doing)
            self._pending += 1
        for span in self.scenario.no_runs:
            self._loop.call_at(span.end, self._moved.set)
        self._loop.call_later(LOOK_SECONDS * self.rng.random(), self._tick)
        end = PATIENCE + 86_400 + self.scenario.faults_until
        while self.now < end:
            self._deliver()
            if self._deliveries > self.scenario.most_deliveries or self._lives > MOST_LIVES:
                self.fault_found("messages go round, or workers die, without end")
                break
            if self._quiet():
                break
            await self._change(end)
        self.ended_at = int(self.now)
        for process in self.processes:
            process.kill()
        await asyncio.sleep(0)

    def _do(self, doing: Doing) -> None:
        async def act() -> None:
            await self._does(doing)
            self._pending -= 1
            self._moved.set()

        task = self._loop.create_task(act())
        self._acting.add(task)
        task.add_done_callback(self._acting.discard)

    def _quiet(self) -> bool:
        return not (
            self._pending
            or self._handling
            or any(process.frozen for process in self.processes)
            or any(ref.name.startswith("open/") for ref in self.blobs.blobs)
            or any(self.bus.waiting(queue) for queue in QUEUES)
        )

    async def _change(self, end: float) -> None:
        due = self.bus.next_change()
        at = end if due is None else min(end, due - EPOCH + 0.001)
        timer = self._loop.call_at(max(at, self.now + 0.001), self._moved.set)
        await self._moved.wait()
        self._moved.clear()
        timer.cancel()


def _key(delivery: Delivery) -> tuple[str, int, int]:
    return delivery.queue, delivery.sequence, delivery.delivery_count


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
        }
    )
    return Settings(
        deployments=(deployment,),
        completion_window=scenario.completion_window,
        shard_seconds=scenario.shard_seconds,
        journal_seconds=scenario.journal_seconds,
    )


@contextmanager
def small(scenario: Scenario) -> Iterator[None]:
    """Plans, windows and slices of a size that lets twenty rows meet what millions meet."""
    names = {
        (planning, "MAX_ROWS"): scenario.shard_rows,
        (planning, "FEW_ROWS"): scenario.shard_rows,
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
    scenario: Scenario, *, faults: Callable[[], Faults] | None = None, keep: bool = False
) -> World:
    """Run a scenario's world to its end."""

    async def lived(rng: Random) -> World:
        world = World(scenario, rng, faults=faults() if faults else None, keep=keep)
        await world.run()
        return world

    with small(scenario), quiet():
        return virtual_time.run(lived, scenario.seed)
