"""One worker process: the production parts over ports of its own, which can die, freeze and lie.

A killed process does nothing any more: its tasks are cancelled, and whatever they still try in
their clean-up is refused. A frozen one stands still at its next call and wakes up late, a zombie.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from schemas.deployments import Task
from schemas.outcomes import Outcome
from schemas.webhooks import Reception
from tests.doubles.faults import TRIES, FaultyBlobs, ProcessKilled
from tests.simulation.billing import RUN, lease_of
from tests.simulation.endpoint import Poisoned, prompts_of
from tests.simulation.sites import Fault
from workers.clock import ServiceClock
from workers.ports import AddressRule, BlobInfo, BlobRef, EndpointInfo, OutMessage, Received
from workers.ports.errors import StorageError, Unavailable, WorkerError
from workers.quota.ledger import Ledger
from workers.service import compose

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")
END_MARK = b'{"end":true}\n'
EPOCH = 1_800_000_000.0


@dataclass(frozen=True, slots=True)
class Blow:
    """A fault that strikes now; `seconds` is how long it lasts, or until it has passed."""

    fault: Fault | None
    seconds: float = 0.0


NOTHING = Blow(None)


class Bug(Exception):
    """What nobody expects, raised in a handler."""


class Process:
    """One life of one worker. After a kill its place is taken by the next life."""

    def __init__(self, world: "World", name: str, *, place: int, skew: float, rng: Random) -> None:
        self.world = world
        self.name = name
        self.place = place
        self.busy: dict[str, int] = {}
        self.dead = False
        self.frozen = False
        self.draining = False
        self._awake = asyncio.Event()
        self._awake.set()
        self._tasks: dict[asyncio.Task[Any], None] = {}

        clock = ServiceClock(lambda: EPOCH + world.now + skew)
        settings = world.settings
        blobs, bus = world.storage(ProcessBlobs(self)), ProcessBus(self)
        limited = world.scenario.requests_per_minute is not None
        service = compose(
            settings,
            blobs,
            bus,
            {each.name: ProcessEndpoint(self, each.name) for each in settings.deployments},
            transfers=world.blobs,
            webhooks=ProcessWebhooks(self) if world.scenario.webhooks else None,
            ledger=Ledger(blobs, settings.state_container, rng=rng) if limited else None,
            clock=clock,
            rng=rng,
            telemetry=world.watching,
            slice_seconds=world.scenario.slice_seconds,
        )
        self.dispatcher, self.runner = service.dispatcher, service.runner
        self.doors, self.inbox = service.doors, service.inbox
        self.sweeper, self.api = service.sweeper, service.api
        self.nightly, self.retention = service.nightly, service.retention
        self.drops = service.drops
        self.key = world.service.given_key
        self.spawn(self.dispatcher.run())

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have the process do something; its errors are its own, and nobody's run is."""
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks[task] = None
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            error = task.exception()
            if error is not None and not self.dead:
                self.world.fault_found(f"a task of {self.name} raised {error!r}")

    def kill(self) -> None:
        """kill -9."""
        self.dead = True
        self.wake()
        for task in list(self._tasks):
            task.cancel()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen = True
        self._awake.clear()

    def wake(self) -> None:
        """SIGCONT."""
        self.frozen = False
        self._awake.set()

    async def alive(self) -> None:
        """Go on only while the process runs."""
        while self.frozen:
            await self._awake.wait()
        if self.dead:
            raise ProcessKilled

    async def call(
        self,
        kind: str,
        name: str,
        effect: Callable[[], Awaitable[T]],
        *,
        twisted: Mapping[Fault, Callable[[float], Awaitable[T]]] = MappingProxyType({}),
    ) -> T:
        """One call to a service, with all that can befall it; `twisted` are effects of faults."""
        world = self.world
        for _ in range(TRIES):
            if self.dead or self.frozen:
                await self.alive()
            delay = world.latency()
            if delay:
                await asyncio.sleep(delay)
            # Not before: who asks may be called off on the way, and then nothing befalls it.
            blow = world.faults.befalls(self, kind, name) or NOTHING
            if blow is not NOTHING or self.dead or self.frozen:
                await self._befall(blow, "before", kind, name)
            if blow.fault in ("lose before", "late", "busy") or world.faults.out(self, kind, name):
                await self._in_vain(blow, kind, name, effect)
            try:
                twist = twisted.get(blow.fault) if blow.fault else None
                result = await (twist(blow.seconds) if twist else effect())
            except WorkerError as error:
                world.trace(self.name, kind, name, type(error).__name__)
                await self._befall(blow, "after", kind, name)
                raise
            world.trace(self.name, kind, name, "done")
            if blow is not NOTHING or self.dead or self.frozen:
                await self._befall(blow, "after", kind, name)
            if blow.fault == "repeat":
                continue  # the answer is lost below the SDK, which asks again
            if blow.fault == "lose after":
                self._trouble(kind, name, "answer lost")
                raise Unavailable("answer lost")
            return result
        self._trouble(kind, name, "no answer")
        raise Unavailable("no answer")

    async def _befall(self, blow: Blow, phase: str, kind: str, name: str) -> None:
        """What a fault does to the process and to the handler that calls."""
        if blow is NOTHING and not self.dead and not self.frozen:
            return
        if blow.fault is not None and (phase == "before" or blow.fault.endswith("after")):
            self.world.trace(self.name, kind, name, "meets", blow.fault)
        if blow.fault == f"kill {phase}":
            self.world.host.kill(self, empty_for=blow.seconds)
        elif blow.fault == f"freeze {phase}":
            self.world.host.freeze(self, blow.seconds)
        elif phase == "before":
            await self._strike(blow)
        await self.alive()

    async def _strike(self, blow: Blow) -> None:
        run = RUN.get()
        if blow.fault == "slow":
            if run is not None:
                run.troubled = True
            await asyncio.sleep(blow.seconds)
        if run is None or blow.fault not in ("cancel", "bug", "refused"):
            return
        run.struck(self.world.now)
        if blow.fault == "cancel":
            run.cancel()
            await asyncio.sleep(0)
        elif blow.fault == "bug":
            raise Bug
        else:
            raise StorageError("403, and nobody knows why")

    async def _in_vain(
        self, blow: Blow, kind: str, name: str, effect: Callable[[], Awaitable[T]]
    ) -> NoReturn:
        """A call that does not arrive, or only when nobody waits for it any more."""
        if blow.fault == "late":
            self.world.late(2 * blow.seconds + 0.1, effect)
        await asyncio.sleep(blow.seconds or self.world.patience())
        self._trouble(kind, name, "not reached")
        raise Unavailable("not reached")

    def _trouble(self, kind: str, name: str, what: str) -> None:
        self.world.trace(self.name, kind, name, what)
        run = RUN.get()
        if run is not None:
            run.troubled = True


class ProcessBlobs(FaultyBlobs):
    """The world's storage as one process reaches it."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.world.blobs, lambda *_: None)
        self._process = process

    async def _do(self, kind: str, ref: BlobRef, call: Callable[[], Awaitable[T]]) -> T:
        return await self._process.call(kind, f"{ref.container}/{ref.name}", call)

    async def _each(self, kind: str, container: str, items: AsyncIterator[T]) -> AsyncIterator[T]:
        async def listed() -> list[T]:
            return [item async for item in items]

        found = await self._process.call(kind, container, listed)
        for item in found:
            yield item

    async def list(
        self, container: str, prefix: str = "", *, start: str | None = None, page: int | None = None
    ) -> AsyncIterator[BlobInfo]:
        async def listed() -> list[BlobInfo]:
            found = self.inner.list(container, prefix, start=start, page=page)
            # At this very moment: it may stand still before it hears of them.
            if (run := RUN.get()) is not None and "/journal/" in prefix:
                self._process.world.attempts.looks_back(run)
            return [info async for info in found]

        for info in await self._process.call("list", container, listed):
            yield info

    async def acquire_lease(self, ref: BlobRef, lease_id: str, seconds: int) -> None:
        async def acquired() -> None:
            await self.inner.acquire_lease(ref, lease_id, seconds)
            run, place = RUN.get(), lease_of(ref)
            # Sent again by the SDK it may come after another had the lease: then it has it anew.
            anew = run is not None and (run.attempt is None or run.lost_at is not None)
            if run is not None and place is not None and anew:
                self._process.world.billing.took_lease(run, *place, lease_id)

        await self._do("acquire_lease", ref, acquired)
        if (run := RUN.get()) is not None and lease_of(ref) is not None:
            run.holds = True

    async def append(self, ref: BlobRef, data: bytes) -> None:
        run = RUN.get()
        if run is not None and data.endswith(END_MARK):
            run.closing = True
        await super().append(ref, data)

    async def delete(self, ref: BlobRef, etag: str | None = None) -> None:
        run = RUN.get()
        if run is not None and "/journal/" in ref.name:
            run.closing = True
        await super().delete(ref, etag)

    async def release_lease(self, ref: BlobRef, lease_id: str) -> None:
        run = RUN.get()
        if run is not None and lease_of(ref) is not None:
            run.closing = run.released = True
        await super().release_lease(ref, lease_id)


class ProcessBus:
    """The world's bus as one process reaches it; several messages may be accepted in part."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def send(self, entity: str, messages: Sequence[OutMessage]) -> None:
        for message in messages:
            await self._send(entity, message)

    async def _send(self, entity: str, message: OutMessage) -> None:
        world, run = self._process.world, RUN.get()
        if run is not None and run.sweeps:
            world.liveness.nudged(message.message_id.partition(":")[0])

        async def dropped(_seconds: float) -> None:
            world.trace("bus", "loses", message.message_id)

        async def doubled(_seconds: float) -> None:
            await world.sent(entity, message)
            await world.sent(entity, message)

        async def delayed(seconds: float) -> None:
            at = max(message.at or 0.0, EPOCH + world.now) + seconds
            await world.sent(entity, replace(message, at=at))

        await self._process.call(
            "send",
            f"{entity} {message.message_id}",
            lambda: world.sent(entity, message),
            twisted={"drop": dropped, "double": doubled, "delay": delayed},
        )

    async def take_dead(
        self, queue: str, handle: Callable[[Received], Awaitable[None]], most: int
    ) -> int:
        return await self._process.call(
            "take_dead", queue, lambda: self._process.world.bus.take_dead(queue, handle, most)
        )

    async def reach(self, queue: str) -> None:
        await self._process.call("reach", queue, lambda: self._process.world.bus.reach(queue))


class ProcessWebhooks:
    """The way from one process to the world's receiver of webhooks."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, rule: AddressRule
    ) -> Reception:
        async def taken() -> Reception:
            return self._process.world.receiver.takes(headers, body)

        try:
            return await self._process.call("post", "receiver", taken)
        except Unavailable:
            return Reception(None, why="no answer")


def _unreached(away: Fault) -> Outcome:
    """What a caller has of an endpoint that he cannot reach, or that nobody can."""
    if away == "cut off":
        return Outcome(kind="transient", code="connection")
    return Outcome(kind="transient", status=503)


class ProcessEndpoint:
    """One deployment of the world's model service as one process reaches it."""

    def __init__(self, process: Process, name: str) -> None:
        self._process = process
        self._name = name

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        process, world = self._process, self._process.world
        asked = world.now
        await process.alive()
        name = " ".join(prompts_of(task, body))
        blow = world.faults.befalls(process, "ask", name) or NOTHING
        await process._befall(blow, "before", "ask", name)
        away = world.faults.out(process, "ask", name)
        if away is not None:
            await asyncio.sleep(world.rng.choice((0.0, 1.0, 10.0)))
            return _unreached(away)
        refused = world.service.refuses(self._name, process.key)
        if refused is not None:
            return refused
        lost = blow.fault == "lose after"
        try:
            outcome, call = await world.service.ask(task, body, RUN.get(), asked, lost=lost)
        except Poisoned:
            world.trace(process.name, "ask", name, "poisoned")
            world.host.kill(process)
            raise ProcessKilled from None
        if outcome.kind == "throttled":
            world.faults.stormed()
        await process._befall(blow, "after", "ask", name)
        if call is not None:
            call.answered = world.now
        world.trace(process.name, "ask", name, outcome.kind)
        return outcome

    async def info(self) -> EndpointInfo | None:
        return None
