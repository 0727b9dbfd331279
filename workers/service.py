"""The parts of one process, put together from its settings."""

import asyncio
import gc
import json
import logging
import os
import random
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from azure.identity.aio import DefaultAzureCredential

from workers.adapters.blobs import connect_blobs
from workers.adapters.bus import ServiceBus, connect_bus
from workers.adapters.endpoints import connect
from workers.api.jobs import Api
from workers.clock import ServiceClock
from workers.dispatch.dispatcher import Dispatcher
from workers.errors import WorkerError
from workers.inbox import Inbox
from workers.intake.intake import Intake
from workers.jobs.finisher import Finisher
from workers.jobs.store import Records
from workers.jobs.transitions import JOBS, SHARDS, STATUS, Steps
from workers.quota.ledger import Ledger
from workers.settings import read_settings
from workers.shards.runner import Runner
from workers.sweeper import Sweeper

# The names of the connections, as the triggers use them: a connection string in the setting of
# that name, or an identity where `{name}__...` says where the service is.
BLOBS: Final = "AzureWebJobsStorage"
BUS: Final = "ServiceBusConnection"

START_RETRY_SECONDS: Final = 5.0

# Thousands of calls in flight are so many live objects that the collector, at its default of 700
# new ones, takes a third of the CPU to look through them over and over.
GC_THRESHOLD: Final = (20_000, 20, 20)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """What the triggers hand their work to."""

    intake: Intake
    inbox: Inbox
    runner: Runner
    sweeper: Sweeper
    api: Api
    open: AsyncExitStack
    background: asyncio.Task[None]

    async def close(self) -> None:
        """Close every connection."""
        self.background.cancel()
        await self.open.aclose()


class Keys:
    """Keys of endpoints by the names of their settings.

    On Azure a change of settings restarts the app. Locally a key that is refused is looked up again
    in local.settings.json, so that one mends it without losing what runs.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._file = folder / "local.settings.json"
        self._given: set[str] = set()

    def __call__(self, name: str) -> str | None:
        """The value of a setting; read afresh from the file when it is asked for again."""
        fresh = self._in_file(name) if name in self._given else None
        self._given.add(name)
        return self._environment.get(name) if fresh is None else fresh

    def _in_file(self, name: str) -> str | None:
        try:
            value = json.loads(self._file.read_text(encoding="utf-8-sig"))["Values"][name]
        except (OSError, ValueError, LookupError, TypeError):
            return None  # not there, or just being written
        return value if isinstance(value, str) else None


async def start(environment: Mapping[str, str] = os.environ) -> Service:
    """Make the parts, and begin to connect. Raises SettingsError that says what to mend."""
    settings = read_settings(environment)
    gc.set_threshold(*GC_THRESHOLD)
    rng, clock = random.SystemRandom(), ServiceClock(time.time)
    async with AsyncExitStack() as stack:
        identity = None
        if not (environment.get(BLOBS) and environment.get(BUS)):
            identity = await stack.enter_async_context(DefaultAzureCredential())
        blobs = await stack.enter_async_context(
            connect_blobs(
                environment.get(BLOBS), environment.get(f"{BLOBS}__blobServiceUri"), identity
            )
        )
        bus = await stack.enter_async_context(
            connect_bus(
                environment.get(BUS), environment.get(f"{BUS}__fullyQualifiedNamespace"), identity
            )
        )
        keys = Keys(environment, Path(__file__).parent.parent)
        endpoints = await stack.enter_async_context(
            connect(
                settings.deployments,
                keys,
                credential=identity,
                env_proxies=settings.environment_proxies,
            )
        )
        dispatcher = Dispatcher(
            settings.deployments,
            endpoints,
            rng=rng,
            ledger=Ledger(blobs, settings.state_container, rng=rng),
            routes=settings.routes,
            wall=clock,
        )
        records = Records(
            blobs,
            state_container=settings.state_container,
            results_container=settings.results_container,
            clock=clock,
        )
        steps = Steps(records, bus, clock=clock, rng=rng)
        intake = Intake(records, steps, dispatcher, settings, clock=clock)
        runner = Runner(records, steps, dispatcher, clock=clock, rng=rng, settings=settings)
        finisher = Finisher(records, steps, clock=clock)
        return Service(
            intake=intake,
            inbox=Inbox(records, steps, intake, runner, finisher, clock=clock),
            runner=runner,
            sweeper=Sweeper(records, steps, intake, clock=clock),
            api=Api(records, steps, clock=clock),
            open=stack.pop_all(),
            background=asyncio.create_task(_attend(dispatcher, bus), name="shares and links"),
        )


async def _attend(dispatcher: Dispatcher, bus: ServiceBus) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(bus.open((JOBS, SHARDS, STATUS)))
        group.create_task(dispatcher.run())


async def _started() -> Service:
    try:
        return await start()
    except WorkerError as error:
        # A message whose handler fails comes back at once, and a dead letter for ever: until the
        # settings are mended, nobody is to be asked as fast as the bus can.
        log.error("the service does not start: %s", error)  # noqa: TRY400 - it says what to mend
        await asyncio.sleep(START_RETRY_SECONDS)
        raise


class OneService:
    """A process's one service, made at its first use."""

    def __init__(self) -> None:
        self._starting: asyncio.Task[Service] | None = None

    async def __call__(self) -> Service:
        """The service. A start that failed is tried again at the next use."""
        if self._starting is None or (self._starting.done() and self._starting.exception()):
            self._starting = asyncio.create_task(_started(), name="start")
        # One caller's end is not to take the start from the others.
        return await asyncio.shield(self._starting)

    async def drain(self) -> None:
        """Journal what is there: for hosts that say when they stop."""
        if self._starting is not None:
            await (await self()).runner.drain()
