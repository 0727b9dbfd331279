"""The parts of one process, put together from its settings."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from azure.identity.aio import DefaultAzureCredential

from schemas.deployments import prices_of
from workers.adapters.blobs import connect_blobs
from workers.adapters.bus import ServiceBus, connect_bus
from workers.adapters.endpoints import connect
from workers.adapters.entra import connect_tokens
from workers.adapters.telemetry import connect_telemetry
from workers.adapters.webhooks import connect_webhooks
from workers.api.acting import JobActions
from workers.api.budgets import BudgetsApi
from workers.api.deployments import DeploymentsApi
from workers.api.health import HealthApi
from workers.api.jobs import Api
from workers.api.links import ResultLinks
from workers.api.openai.door import OpenAiDoor
from workers.clock import ServiceClock
from workers.dispatch.dispatcher import Dispatcher
from workers.dispatch.reporting import Reporter
from workers.files.retention import Retention
from workers.files.store import FileStore
from workers.inbox import Inbox
from workers.inbox.receivers import Receiver
from workers.inbox.webhooks import WebhookInbox
from workers.intake.doors import Doors
from workers.intake.drops import Drops
from workers.intake.intake import Intake
from workers.intake.nightly import Nightly
from workers.jobs.finisher import SLICE_SECONDS, Finisher
from workers.jobs.history import History
from workers.jobs.outbox import JOBS, SHARDS, STATUS, WEBHOOKS, Outbox
from workers.jobs.store import JobStore
from workers.jobs.transitions import Transitions
from workers.ports import Blobs, Bus, Endpoint, SignedTokens, Transfers, WebhookSender
from workers.ports.errors import WorkerError
from workers.ports.telemetry import SILENT, ProcessReading, Telemetry
from workers.quota.claims import ProbeClaims
from workers.quota.health import HealthBoard
from workers.quota.ledger import Ledger
from workers.service import memory
from workers.service.background import Background
from workers.service.entrance import Entrance
from workers.service.keys import Keys
from workers.service.openai import Jobs, openai_door
from workers.settings import Settings, read_settings
from workers.shards.runner import Runner
from workers.sweeper import Sweeper

# The names of the connections, as the triggers use them: a connection string in the setting of
# that name, or an identity where `{name}__...` says where the service is.
BLOBS: Final = "AzureWebJobsStorage"
BUS: Final = "ServiceBusConnection"

PROJECT: Final = Path(__file__).parents[2]

START_RETRY_SECONDS: Final = 5.0

# The SDKs tell each request at INFO, with the names of blobs, which are other people's.
SDK_LOG: Final = "azure"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one process: what the triggers hand their work to."""

    store: JobStore
    dispatcher: Dispatcher
    doors: Doors
    intake: Intake
    nightly: Nightly
    drops: Drops
    inbox: Inbox
    runner: Runner
    sweeper: Sweeper
    retention: Retention
    api: Api
    openai: OpenAiDoor
    reporter: Reporter
    background: Background


def compose(
    settings: Settings,
    blobs: Blobs,
    bus: Bus,
    endpoints: Mapping[str, Endpoint],
    *,
    transfers: Transfers,
    tokens: SignedTokens | None = None,
    webhooks: WebhookSender | None = None,
    ledger: Ledger | None,
    clock: ServiceClock | Callable[[], float],
    rng: random.Random,
    process: str = "process",
    telemetry: Telemetry = SILENT,
    slice_seconds: float = SLICE_SECONDS,
) -> Service:
    """Make the parts over open ports; `ledger` as in `Dispatcher`, `process` as in `Reporter`."""
    known, background = settings.deployments, Background()
    dispatcher = _dispatcher(settings, blobs, endpoints, ledger, rng=rng, clock=clock)
    store = _store(settings, blobs, clock)
    receivers, results = _receivers(settings, webhooks), settings.results_container
    outbox = Outbox(bus, results_container=results, clock=clock, rng=rng, hooked=receivers)
    history = History(store)
    transitions = Transitions(store, outbox, history, rng=rng, telemetry=telemetry)
    parts = (store, transitions, outbox)
    board = HealthBoard(blobs, settings.state_container)
    entrance = Entrance.of(
        *(*parts, dispatcher, board), telemetry=telemetry, settings=settings, clock=clock, rng=rng
    )
    index, doors, intake = entrance.index, entrance.doors, entrance.intake
    runner = Runner(
        *(*parts, dispatcher), telemetry=telemetry, clock=clock, rng=rng, settings=settings
    )
    finisher = Finisher(store, transitions, history, clock=clock, slice_seconds=slice_seconds)
    inbox = Inbox(
        *(*parts, entrance.rejections, bus),
        telemetry=telemetry,
        doors=doors,
        intake=intake,
        runner=runner,
        finisher=finisher,
        webhooks=WebhookInbox(store, outbox, receivers, telemetry=telemetry, clock=clock, rng=rng),
        clock=clock,
    )
    sweeper = Sweeper(*parts, doors, clock=clock)
    lanes, moved, ill = dispatcher.lanes, dispatcher.moved, background.failing
    reporter = Reporter(board, process, wall=clock, lanes=lanes, moved=moved, failing=ill)
    deployments = DeploymentsApi(known, board, store, transitions, clock=clock)
    actions = JobActions(store, transitions, doors, clock=clock)
    files = FileStore(store, files_container=settings.files_container)
    jobs = Jobs(store, index, doors, intake, actions, outbox, entrance.estimates)
    api = _api(jobs, history, deployments, bus, transfers, settings=settings, clock=clock)
    openai = openai_door(jobs, files, transfers, tokens, settings, clock=clock, rng=rng)
    retention = Retention(files, store, clock=clock)
    telemetry.watch(partial(_standing, dispatcher, runner, ledger))
    return Service(
        *(store, dispatcher, doors, intake, entrance.nightly, entrance.drops, inbox, runner),
        *(sweeper, retention, api, openai, reporter, background),
    )


def _api(
    jobs: Jobs,
    history: History,
    deployments: DeploymentsApi,
    bus: Bus,
    transfers: Transfers,
    *,
    settings: Settings,
    clock: Callable[[], float],
) -> Api:
    may_link = settings.downloads != "body"
    prices = prices_of(settings.deployments).values()
    currency = next((price.currency for price in prices), None)
    return Api(
        *(jobs.store, jobs.actions, jobs.index, history, jobs.doors),
        budgets=BudgetsApi(jobs.store, jobs.index, settings.tenants, currency, clock=clock),
        deployments=deployments,
        health=HealthApi(jobs.store, bus, deployments, clock=clock),
        estimates=jobs.estimates,
        links=ResultLinks(jobs.store, transfers, allowed=may_link, clock=clock),
        clock=clock,
    )


def _standing(dispatcher: Dispatcher, runner: Runner, ledger: Ledger | None) -> ProcessReading:
    conflicts = ledger.conflicts if ledger else 0
    return ProcessReading(dispatcher.readings(), runner.active, conflicts)


def _dispatcher(
    settings: Settings,
    blobs: Blobs,
    endpoints: Mapping[str, Endpoint],
    ledger: Ledger | None,
    *,
    rng: random.Random,
    clock: Callable[[], float],
) -> Dispatcher:
    return Dispatcher(
        settings.deployments,
        endpoints,
        ledger=ledger,
        claims=ProbeClaims(blobs, settings.state_container) if ledger else None,
        rng=rng,
        routes=settings.routes,
        wall=clock,
    )


def _store(settings: Settings, blobs: Blobs, clock: ServiceClock | Callable[[], float]) -> JobStore:
    return JobStore(
        blobs,
        state_container=settings.state_container,
        results_container=settings.results_container,
        clock=clock if isinstance(clock, ServiceClock) else None,
    )


def _receivers(settings: Settings, sender: WebhookSender | None) -> Mapping[str, Receiver]:
    """Each tenant's receiver; none where there is no way to them."""
    if sender is None:
        return {}
    return {tenant: Receiver(tenant, hook, sender) for tenant, hook in settings.webhooks.items()}


class Running:
    """A service with its connections, and what it does besides answering triggers."""

    def __init__(
        self, service: Service, bus: ServiceBus, open_: AsyncExitStack, telemetry: Telemetry
    ) -> None:
        self.service = service
        self._telemetry = telemetry
        self._bus = bus
        self._open = open_
        # Nothing of the invocation that came first is to be found in what runs from then on.
        self._attending = asyncio.create_task(self._attend(), name="background", context=Context())

    async def drain(self) -> None:
        """Journal what is there, and hand over what was told of it."""
        await self.service.runner.drain()
        await self._telemetry.flush()

    async def _attend(self) -> None:
        works = {
            "opening links": lambda: self._bus.open((JOBS, SHARDS, WEBHOOKS, STATUS)),
            "sharing quotas": self.service.dispatcher.run,
            "telling of deployments": self.service.reporter.run,
        }
        async with asyncio.TaskGroup() as group:
            for name, work in works.items():
                group.create_task(self.service.background.keep(name, work), name=name)


def _silence_sdks() -> None:
    """Let warnings of the Azure SDKs through, and what somebody has asked for."""
    sdks = logging.getLogger(SDK_LOG)
    if sdks.level == logging.NOTSET:
        sdks.setLevel(logging.WARNING)


async def start(environment: Mapping[str, str] = os.environ) -> Running:
    """Make the parts, and begin to connect. Raises SettingsError that says what to mend."""
    settings = read_settings(environment)
    memory.tune()
    _silence_sdks()
    rng, clock = random.SystemRandom(), ServiceClock(time.time)
    async with AsyncExitStack() as stack:
        identity = None
        if not (environment.get(BLOBS) and environment.get(BUS)):
            identity = await stack.enter_async_context(DefaultAzureCredential())
        blob_uri = environment.get(f"{BLOBS}__blobServiceUri")
        blobs = await stack.enter_async_context(
            connect_blobs(environment.get(BLOBS), blob_uri, identity)
        )
        namespace = environment.get(f"{BUS}__fullyQualifiedNamespace")
        bus = await stack.enter_async_context(
            connect_bus(environment.get(BUS), namespace, identity)
        )
        keys = Keys(environment, PROJECT)
        proxies = settings.environment_proxies
        endpoints = await stack.enter_async_context(
            connect(settings.deployments, keys, credential=identity, env_proxies=proxies)
        )
        ledger = Ledger(blobs, settings.state_container, rng=rng)
        telemetry = await stack.enter_async_context(
            connect_telemetry(environment, process=ledger.holder, clock=clock)
        )
        service = compose(
            *(settings, blobs, bus, endpoints),
            transfers=blobs,
            tokens=await stack.enter_async_context(connect_tokens(settings.entra)),
            webhooks=await stack.enter_async_context(connect_webhooks()),
            ledger=ledger,
            clock=clock,
            rng=rng,
            process=ledger.holder,
            telemetry=telemetry,
        )
        return Running(service, bus, stack.pop_all(), telemetry)


async def _started() -> Running:
    try:
        return await start()
    except WorkerError as error:
        # A message whose handler fails comes back at once, and a dead letter for ever: until the
        # settings are mended, nobody is to be asked as fast as the bus can.
        log.error("[NOT_STARTED] the service does not start: %s", error)  # noqa: TRY400 - it says what to mend
        await asyncio.sleep(START_RETRY_SECONDS)
        raise


class OneService:
    """A process's one service, made at its first use."""

    def __init__(self) -> None:
        self._starting: asyncio.Task[Running] | None = None

    async def __call__(self) -> Service:
        """The service. A start that failed is tried again at the next use."""
        if self._starting is None or (self._starting.done() and self._starting.exception()):
            self._starting = asyncio.create_task(_started(), name="start", context=Context())
        # One caller's end is not to take the start from the others.
        return (await asyncio.shield(self._starting)).service

    async def drain(self) -> None:
        """Journal what is there: for hosts that say when they stop."""
        if self._starting is not None:
            await (await asyncio.shield(self._starting)).drain()
