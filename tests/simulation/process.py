"""One worker process: the production parts over ports of its own, which can die, freeze and lie.

A killed process does nothing any more: its tasks are cancelled, and whatever they still try in
their clean-up is refused. A frozen one stands still at its next call and wakes up late, a zombie.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from schemas.deployments import Task
from schemas.outcomes import Outcome
from tests.doubles.faults import TRIES, FaultyBlobs, ProcessKilled
from tests.simulation.billing import RUN, lease_of
from tests.simulation.endpoint import Poisoned, prompts_of
from workers.clock import ServiceClock
from workers.errors import Unavailable, WorkerError
from workers.ports import BlobRef, EndpointInfo, OutMessage, Received
from workers.quota.ledger import Ledger
from workers.service import compose

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")
EPOCH = 1_800_000_000.0


class Process:
    """One life of one worker. After a kill its place is taken by the next life."""

    def __init__(self, world: "World", name: str, skew: float, rng: Random) -> None:
        self.world = world
        self.name = name
        self.busy: dict[str, int] = {}
        self.dead = False
        self.draining = False
        self._awake = asyncio.Event()
        self._awake.set()
        self._tasks: dict[asyncio.Task[Any], None] = {}

        clock = ServiceClock(lambda: EPOCH + world.now + skew)
        settings = world.settings
        blobs, bus = ProcessBlobs(self), ProcessBus(self)
        limited = world.scenario.requests_per_minute is not None
        service = compose(
            settings,
            blobs,
            bus,
            {each.name: ProcessEndpoint(self) for each in settings.deployments},
            ledger=Ledger(blobs, settings.state_container, rng=rng) if limited else None,
            clock=clock,
            rng=rng,
            slice_seconds=world.scenario.slice_seconds,
        )
        self.dispatcher, self.runner = service.dispatcher, service.runner
        self.intake, self.inbox = service.intake, service.inbox
        self.sweeper, self.api = service.sweeper, service.api
        self.spawn(self.dispatcher.run())

    @property
    def frozen(self) -> bool:
        return not self._awake.is_set()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have the process do something; its errors are its own."""
        task = asyncio.get_running_loop().create_task(work)
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
        self._awake.set()
        for task in list(self._tasks):
            task.cancel()

    def freeze(self) -> None:
        """SIGSTOP."""
        self._awake.clear()

    def wake(self) -> None:
        """SIGCONT."""
        self._awake.set()

    async def alive(self) -> None:
        """Go on only while the process runs."""
        while self.frozen:
            await self._awake.wait()
        if self.dead:
            raise ProcessKilled

    async def call(self, kind: str, name: str, effect: Callable[[], Awaitable[T]]) -> T:
        """One call to a service, with all that can befall it."""
        world = self.world
        for _ in range(TRIES):
            await self.alive()
            delay = world.faults.latency()
            if delay:
                await asyncio.sleep(delay)
            # Not before: who asks may be called off on the way, and then nothing befalls it.
            fault = world.faults.befalls(self, kind, name)
            await self._befall(fault, "before", kind, name)
            if fault == "lose before" or world.faults.unreachable(kind):
                await asyncio.sleep(world.faults.patience())
                self._trouble(kind, name, "not reached")
                raise Unavailable("not reached")
            try:
                result = await effect()
            except WorkerError as error:
                world.trace(self.name, kind, name, type(error).__name__)
                await self._befall(fault, "after", kind, name)
                raise
            world.trace(self.name, kind, name, "done")
            await self._befall(fault, "after", kind, name)
            if fault == "repeat":
                continue  # the answer is lost below the SDK, which asks again
            if fault == "lose after":
                self._trouble(kind, name, "answer lost")
                raise Unavailable("answer lost")
            return result
        self._trouble(kind, name, "no answer")
        raise Unavailable("no answer")

    async def _befall(self, fault: str | None, phase: str, kind: str, name: str) -> None:
        if fault == f"kill {phase}":
            self.world.trace(self.name, kind, name, fault)
            self.world.host.kill(self)
        elif fault == f"freeze {phase}":
            self.world.trace(self.name, kind, name, fault)
            self.world.host.freeze(self)
        await self.alive()

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

    async def acquire_lease(self, ref: BlobRef, lease_id: str, seconds: int) -> None:
        async def acquired() -> None:
            await self.inner.acquire_lease(ref, lease_id, seconds)
            run, place = RUN.get(), lease_of(ref)
            if run is not None and place is not None and run.attempt is None:
                self._process.world.billing.took_lease(run, *place, lease_id)

        await self._do("acquire_lease", ref, acquired)


class ProcessBus:
    """The world's bus as one process reaches it; several messages may be accepted in part."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def send(self, entity: str, messages: Sequence[OutMessage]) -> None:
        for message in messages:
            await self._process.call(
                "send",
                f"{entity} {message.message_id}",
                lambda: self._process.world.sent(entity, message),  # noqa: B023 - called at once
            )

    async def take_dead(
        self, queue: str, handle: Callable[[Received], Awaitable[None]], most: int
    ) -> int:
        return await self._process.call(
            "take_dead", queue, lambda: self._process.world.bus.take_dead(queue, handle, most)
        )


class ProcessEndpoint:
    """The world's model service as one process reaches it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        process, world = self._process, self._process.world
        asked = world.now
        await process.alive()
        name = " ".join(prompts_of(task, body))
        fault = world.faults.befalls(process, "ask", name)
        await process._befall(fault, "before", "ask", name)
        run = RUN.get()
        try:
            outcome, call = await world.service.ask(task, body, run, asked)
        except Poisoned:
            world.trace(process.name, "ask", name, "poisoned")
            world.host.kill(process)
            raise ProcessKilled from None
        await process._befall(fault, "after", "ask", name)
        if call is not None:
            call.answered = world.now
        world.trace(process.name, "ask", name, outcome.kind)
        return outcome

    async def info(self) -> EndpointInfo | None:
        return None
