"""The host: everything that triggers functions, running until SIGTERM.

A stop goes as in Azure, only gentler: nothing more is received, the app's own `drain()` (where
function_app has one) may hand its work back, and what is not finished then is abandoned.
"""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import ModuleType

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from azure.servicebus.aio import ServiceBusClient
from azure.storage.blob.aio import BlobServiceClient

from local import keys
from local.host import connections, http_triggers, options
from local.host.blob_triggers import BlobListener
from local.host.invoking import Invoker
from local.host.loading import Function, load
from local.host.servicebus_triggers import ServiceBusListener
from local.host.singleton import run_as_only_one
from local.host.timer_triggers import TimerListener

logger = logging.getLogger("local.host")
_http_logger = logging.getLogger("local.host.http")

DRAIN_SECONDS = 2.0
# After so long the process ends, whatever still hangs.
STOP_SECONDS = 6.0
STORAGE = "AzureWebJobsStorage"


class Host:
    """One instance: an app's functions and what triggers them."""

    def __init__(self, app_module: ModuleType, folder: Path) -> None:
        self._options = options.read(folder)
        self._drain: Callable[[], Awaitable[None]] | None = getattr(app_module, "drain", None)
        self.functions = load(app_module)
        self._invoker = Invoker(self._options.function_timeout)
        self._timers = {
            each.name: TimerListener(each, self._invoker) for each in self._of("timerTrigger")
        }
        self._queues: list[ServiceBusListener] = []

    def _of(self, kind: str) -> list[Function]:
        return [each for each in self.functions if each.kind == kind]

    async def run(self, stop: asyncio.Event, port: int, announce: Callable[[str], None]) -> None:
        """Serve until `stop` is set, then drain. `announce` is told the HTTP address."""
        async with AsyncExitStack() as stack:
            buses = {
                name: await stack.enter_async_context(connections.service_bus(name))
                for name in self._connections("serviceBusTrigger")
            }
            storages = {
                name: await stack.enter_async_context(connections.blobs(name))
                for name in {STORAGE, *self._connections("blobTrigger")}
            }
            await stack.enter_async_context(self._http(port, announce))
            await self._listen(stop, buses, storages)

    def _connections(self, kind: str) -> set[str]:
        return {each.trigger["connection"] for each in self._of(kind)}

    async def _listen(
        self,
        stop: asyncio.Event,
        buses: dict[str, ServiceBusClient],
        storages: dict[str, BlobServiceClient],
    ) -> None:
        self._queues = [
            ServiceBusListener(
                each, buses[each.trigger["connection"]], self._invoker, self._options
            )
            for each in self._of("serviceBusTrigger")
        ]
        blobs = [
            BlobListener(
                each,
                storages[each.trigger["connection"]],
                self._invoker,
                self._options.blob_parallelism,
            )
            for each in self._of("blobTrigger")
        ]

        async def alone() -> None:
            async with asyncio.TaskGroup() as tasks:
                for blob in blobs:
                    tasks.create_task(blob.run())
                for timer in self._timers.values():
                    tasks.create_task(timer.run())

        async with asyncio.TaskGroup() as tasks:
            queues = [tasks.create_task(each.run()) for each in self._queues]
            rest = tasks.create_task(run_as_only_one(storages[STORAGE], alone))
            await stop.wait()
            await self._stop(queues, rest)

    async def _stop(self, queues: list[asyncio.Task[None]], rest: asyncio.Task[None]) -> None:
        logger.info("stopping: receiving no more, %d calls running", len(self._invoker.running))
        self._invoker.stopping = True
        for queue in self._queues:
            queue.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                if self._drain is not None:
                    await self._drain()
                if queues:
                    await asyncio.wait(queues)
        for task in [*queues, rest]:
            task.cancel()

    @asynccontextmanager
    async def _http(self, port: int, announce: Callable[[str], None]) -> AsyncIterator[None]:
        application = http_triggers.build(
            self._of("httpTrigger"),
            self._timers,
            self._invoker,
            prefix=self._options.route_prefix,
            key=os.environ.get(keys.SETTING),
        )
        runner = web.AppRunner(
            application,
            access_log=None,
            logger=_http_logger,
            shutdown_timeout=1.0,
            # Wider than what the application refuses itself; bodies come as they were sent.
            max_line_size=4 * http_triggers.MOST_LINE_BYTES,
            max_field_size=2 * http_triggers.MOST_HEADER_BYTES,
            max_headers=2 * http_triggers.MOST_HEADERS,
            auto_decompress=False,
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", port)
            await site.start()
            announce(f"http://127.0.0.1:{runner.addresses[0][1]}")
            yield
        finally:
            await runner.cleanup()


def _without_its_bytes(record: logging.LogRecord) -> bool:
    """What is no HTTP is told of without being quoted: it may be a prompt or a key."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.exc_info = None
        record.msg, record.args = "what is no HTTP was refused: %s", (type(error).__name__,)
    return True


_http_logger.addFilter(_without_its_bytes)


def stop_at_signals(stop: asyncio.Event) -> Callable[[], None]:
    """Set `stop` at SIGTERM, SIGINT or a call of what is returned.

    The process ends at once when it is asked a second time, or when stopping takes too long.
    """
    loop = asyncio.get_running_loop()

    def stopping() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()
        loop.call_later(STOP_SECONDS, os._exit, 1)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping)
    return stopping
