"""The Functions host: worker processes, what the queues deliver to them, and the timer."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING

from tests.doubles.bus import DEAD_LETTERS, Delivery, LockLost, received
from tests.doubles.faults import ProcessKilled
from tests.simulation.billing import RUN, Run
from tests.simulation.process import Bug, Process
from workers.ports import Received
from workers.ports.errors import Draining, StorageError, Unavailable
from workers.sweeper import LOOK_SECONDS

if TYPE_CHECKING:
    from tests.simulation.world import World

DROPS = "drops"
QUEUES = ("jobs", "shards", DROPS, "jobs" + DEAD_LETTERS, "shards" + DEAD_LETTERS)
# Apart, for a world without a receiver is the same as it was before there were any.
HOOKS = ("webhooks", "webhooks" + DEAD_LETTERS)

_Key = tuple[str, int, int]


class Host:
    """Starts processes, ends them, and hands them their messages under a lock that it renews."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._scenario = world.scenario
        self._rng = world.rng
        self.queues = (*QUEUES, *HOOKS) if world.scenario.webhooks else QUEUES
        self._handling: dict[_Key, tuple[Process, Run]] = {}
        self.processes: list[Process] = []
        self.killed: set[str] = set()
        self.unheard: set[str] = set()
        self.lives = self.deliveries = self.kills = self.freezes = 0
        self.lost_locks: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether a message is being handled, or a process stands still that will go on."""
        # One that dies before its handler has begun leaves its mark here for ever.
        handling = any(not process.dead for process, _ in self._handling.values())
        return handling or any(process.frozen for process in self.processes)

    @property
    def alive(self) -> list[Process]:
        """The processes that are not dead; some may stand still."""
        return [process for process in self.processes if not process.dead]

    @property
    def able(self) -> list[Process]:
        """The processes that take on something new."""
        return [each for each in self.alive if not each.frozen and not each.draining]

    # -- processes

    def start(self, place: int) -> None:
        """Begin a life, in a new place or in that of a process that died."""
        self.lives += 1
        self._world.liveness.disturbed()
        rng = Random(self._rng.getrandbits(64))
        skew = self._scenario.skews[place % len(self._scenario.skews)]
        process = Process(self._world, f"p{place}.{self.lives}", place=place, skew=skew, rng=rng)
        if place < len(self.processes):
            self.processes[place] = process
        else:
            self.processes.append(process)
        self._world.moved.set()

    def kill(self, process: Process, *, empty_for: float = 5.0) -> None:
        """End a process at once; another one takes its place a little later."""
        if process.dead:
            return
        self.kills += 1
        self._world.liveness.disturbed()
        self.killed.add(process.name)
        self._world.trace("kill", process.name)
        self._world.billing.died(process.name)
        process.kill()
        self._world.later(empty_for, self.start, process.place)

    def freeze(self, process: Process, seconds: float) -> None:
        """Stop a process, and let it go on when others may have taken over."""
        if process.dead or process.frozen:
            return
        self.freezes += 1
        self._world.trace("freeze", process.name)
        self._world.billing.died(process.name)
        process.freeze()
        self._world.later(seconds, self._wake, process)

    def _wake(self, process: Process) -> None:
        process.wake()
        self._world.liveness.disturbed()

    def drain(self, process: Process) -> None:
        """Tell a process that it is about to end, and end it two seconds later."""
        process.draining = True
        for holder, run in self._handling.values():
            if holder is process:
                run.struck(self._world.now)
        process.spawn(process.runner.drain())
        self._world.later(2.0, self.kill, process)

    def stop(self) -> None:
        """End all processes; nothing takes their places."""
        for process in self.processes:
            if self._scenario.endless and not process.dead:
                self.killed.add(process.name)
                self._world.billing.died(process.name)
            process.kill()

    # -- messages

    def deliver(self) -> None:
        """Hand out all that can be had now to processes that have a free slot."""
        for queue in self.queues:
            self._world.bus.waiting(queue)  # so that what has been tried too often is dead by now
        while self._deliver_one():
            pass

    def _deliver_one(self) -> bool:
        closed = any(self._world.now in span for span in self._scenario.no_runs)
        ready = [
            (queue, process)
            for process in self.able
            for queue in self.queues
            if queue != "shards" or not closed
            if process.busy.get(queue, 0) < self._scenario.slots
        ]
        while ready:
            queue, process = ready[self._rng.randrange(len(ready))]
            delivery = self._world.bus.receive(queue)
            if delivery is not None:
                self._handle(process, delivery)
                return True
            ready = [(other, each) for other, each in ready if other != queue]
        return False

    def _handle(self, process: Process, delivery: Delivery) -> None:
        blow = self._world.faults.befalls_delivery(delivery.queue, delivery.message.message_id)
        if blow is not None and blow.fault == "lost":
            self._lose(delivery)
            return
        process.busy[delivery.queue] = process.busy.get(delivery.queue, 0) + 1
        self.deliveries += 1
        run = Run(process.name)
        self._handling[_key(delivery)] = (process, run)
        self._keep_lock(delivery)
        if blow is not None:
            self._world.loop.call_later(blow.seconds, self._unlock, delivery)
        process.spawn(self._handled(process, delivery, run))

    def _lose(self, delivery: Delivery) -> None:
        """Settle a message whose handler never runs, as the host on Flex Consumption may."""
        self._world.trace("host", "loses", delivery.queue, delivery.message.message_id)
        self._world.bus.complete(delivery)
        if delivery.queue == DROPS:
            self.unheard.add(json.loads(delivery.message.body)["etag"])

    async def _handled(self, process: Process, delivery: Delivery, run: Run) -> None:
        RUN.set(run)
        run.handler = asyncio.current_task()
        world, message = self._world, delivery.message
        world.trace(
            process.name, "gets", delivery.queue, message.message_id, delivery.delivery_count
        )
        good = False
        try:
            await self._given(process, delivery.queue, received(delivery))
            good = True
        except (Unavailable, Draining) as error:
            world.trace(process.name, "raises", type(error).__name__)
        except asyncio.CancelledError:
            if process.dead or run.struck_at is None:
                raise
            world.trace(process.name, "is cancelled")
        except Exception as error:  # noqa: BLE001 - as the host does
            if not process.dead:
                self._failed(process, run, error)
        except (ProcessKilled, BaseExceptionGroup):
            if not process.dead:
                raise
        finally:
            if not process.dead:
                await self._settle(process, delivery, run, good)
            else:
                self._forget(process, delivery, run)

    def _failed(self, process: Process, run: Run, error: Exception) -> None:
        """A handler raises for bugs and for refusals, and those are what it was made to meet."""
        if run.struck_at is not None and isinstance(error, (Bug, StorageError)):
            self._world.trace(process.name, "fails", type(error).__name__)
        else:
            self._world.fault_found(f"a handler raised {error!r}")

    async def _given(self, process: Process, queue: str, message: Received) -> None:
        inbox = process.inbox
        if queue == DROPS:
            told = json.loads(message.body)
            await process.doors.dropped(
                told["container"], told["name"], etag=told["etag"], repeated=message.repeated
            )
            return
        handlers = {
            "jobs": inbox.jobs,
            "shards": inbox.shards,
            "jobs" + DEAD_LETTERS: inbox.dead_jobs,
            "shards" + DEAD_LETTERS: inbox.dead_shards,
            "webhooks": inbox.webhooks.run,
            "webhooks" + DEAD_LETTERS: inbox.webhooks.dead,
        }
        await handlers[queue](message)

    async def _settle(self, process: Process, delivery: Delivery, run: Run, good: bool) -> None:
        try:
            await process.alive()
            if good:
                self._world.bus.complete(delivery)
            else:
                self._world.bus.abandon(delivery)
        except LockLost:
            self._world.trace(process.name, "lock lost", delivery.message.message_id)
            self.lost_locks.add(delivery.message.message_id)
        except ProcessKilled:
            return
        finally:
            self._forget(process, delivery, run)

    def _forget(self, process: Process, delivery: Delivery, run: Run) -> None:
        if not process.dead:
            self._world.billing.ended(run)
        run.done = True
        self._handling.pop(_key(delivery), None)
        process.busy[delivery.queue] -= 1
        self._world.moved.set()

    def _keep_lock(self, delivery: Delivery) -> None:
        def renew() -> None:
            held = self._handling.get(_key(delivery))
            if held is None or held[0].dead:
                return
            if not held[0].frozen:
                try:
                    self._world.bus.renew(delivery)
                except LockLost:
                    return
            self._world.loop.call_later(self._scenario.lock_seconds / 2, renew)

        self._world.loop.call_later(self._scenario.lock_seconds / 2, renew)

    def _unlock(self, delivery: Delivery) -> None:
        try:
            self._world.bus.abandon(delivery)
        except LockLost:
            return
        self._world.faults.unlocked(delivery.queue)
        self._world.trace("bus", "takes the lock of", delivery.message.message_id)
        self._world.moved.set()

    # -- the timer

    def tick(self) -> None:
        """Have one process sweep, where there is an open job; and again after a while."""
        able = self.able
        if (self._world.records.open_markers() or self.waited_for()) and able:
            process = able[self._rng.randrange(len(able))]
            process.spawn(self._swept(process))
        self._world.loop.call_later(LOOK_SECONDS, self.tick)

    async def _swept(self, process: Process) -> None:
        self._world.trace(process.name, "sweeps")
        with self.handling(process, sweeps=True):
            for work in self.swept(process):
                await work()
        self._world.moved.set()

    def swept(self, process: Process) -> Sequence[Callable[[], Awaitable[object]]]:
        """What the sweeper's timer does. Only where an event was lost is there a file to find."""
        found = process.sweeper.run, process.inbox.drain_dead
        return (*found, process.drops.run) if self.unheard else found

    def waited_for(self) -> bool:
        """Whether a file of which nobody was told is to become a job yet."""
        if not self.unheard:
            return False
        made = {self._world.records.etag_of(job) for job in self._world.records.jobs()}
        return bool(self.unheard & {*self._world.records.current.values()} - made)

    @contextmanager
    def handling(self, process: Process, *, sweeps: bool = False) -> Iterator[None]:
        """A trigger without a message runs its handler: it fails, and nothing comes again."""
        run = Run(process.name, asyncio.current_task(), sweeps)
        RUN.set(run)
        try:
            with self._world.held_open():
                yield
        except Unavailable as error:
            self._world.trace(process.name, "raises", type(error).__name__)
        except asyncio.CancelledError:
            if process.dead or run.struck_at is None:
                raise
            self._world.trace(process.name, "is cancelled")
        except Exception as error:  # noqa: BLE001 - as the host does
            if not process.dead:
                self._failed(process, run, error)
        except (ProcessKilled, BaseExceptionGroup):
            if not process.dead:
                raise


def _key(delivery: Delivery) -> _Key:
    return delivery.queue, delivery.sequence, delivery.delivery_count
