"""The listener, and the turns in which all its work is done."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..broker.broker import Broker
from ..broker.configuration import load
from ..broker.entity import Surroundings
from ..broker.journal import NoJournal
from .connection import Connection
from .context import Limits
from .faults import Faults
from .store import Store
from .tokens import KEY_NAME, WELL_KNOWN_KEY

_log = logging.getLogger(__name__)

HOST = "127.0.0.1"


def system_now() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Server:
    """A broker with its connections. Made by `serve`."""

    def __init__(
        self,
        broker: Broker,
        *,
        now: Callable[[], int],
        store: Store | None = None,
        faults: Faults | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.broker, self.now, self.limits = broker, now, limits or Limits()
        self.faults = faults or Faults()
        self.key = WELL_KNOWN_KEY
        self.name = f"local-servicebus-{uuid4().hex[:8]}"
        self.port = 0
        self.connections: set[Connection] = set()
        self.answering: set[Connection] = set()
        self._store = store
        self._turn_is_due = self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0
        self.loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self.loop.create_future()

    @property
    def connection_string(self) -> str:
        """What a Service Bus client connects with."""
        return (
            f"Endpoint=sb://{HOST}:{self.port};SharedAccessKeyName={KEY_NAME};"
            f"SharedAccessKey={self.key};UseDevelopmentEmulator=true;"
        )

    def wake(self) -> None:
        """Ask for a turn after what is being done now."""
        if not (self._turn_is_due or self._stopped):
            self._turn_is_due = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Hand out messages, make all changes durable, and only then tell the clients."""
        self._turn_is_due = False
        if self.failed.done() or self._stopped:
            return
        self.broker.pump()
        try:
            if self._store is not None:
                self._store.commit()
        except Exception as error:  # noqa: BLE001 - the top of the loop over turns
            # What cannot be kept must not be promised: nobody gets an answer any more.
            _log.exception("the store failed; the broker stops")
            for connection in list(self.connections):
                connection.abort()
            if not self.failed.done():
                self.failed.set_exception(error)
            return
        while self.answering:
            self.answering.pop().flush()
        self._set_timer()

    def _set_timer(self) -> None:
        due = self.broker.next_due()
        if due is None or (self._timer is not None and self._timer_due <= due):
            return  # an earlier timer will look again
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = self.loop.call_later(max(0, due - self.now()) / 1000, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.broker.tick()
        self.wake()

    def stop(self) -> None:
        """Do nothing more: neither a timer nor a late answer may find the store closed."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.connections):
            connection.abort()


@asynccontextmanager
async def serve(
    config: str | Path | Mapping[str, Any],
    *,
    port: int = 0,
    data: str | Path | None = None,
    faults: Faults | None = None,
    limits: Limits | None = None,
    now: Callable[[], int] = system_now,
) -> AsyncIterator[Server]:
    """Run a broker on 127.0.0.1 for as long as the context lasts.

    `config` is a Config.json in the format of Microsoft's emulator, or its content. `port` 0 takes
    a free one. With `data`, messages outlive the process in that SQLite file.

    Raises:
        ConfigurationError: the configuration cannot be used.
        StoreInUseError: another broker has the data file open.
        OSError: the port is taken.
    """
    store = Store(data) if data is not None else None
    try:
        broker = Broker(load(config), Surroundings(now, store or NoJournal()))
        if store is not None:
            _log.info("%d messages restored", store.restore(broker))
        server = Server(broker, now=now, store=store, faults=faults, limits=limits)
        listener = await server.loop.create_server(lambda: Connection(server), HOST, port)
        server.port = listener.sockets[0].getsockname()[1]
        server.wake()
        try:
            yield server
        finally:
            listener.close()
            server.stop()
            await asyncio.sleep(0)  # let the connections take note
    finally:
        if store is not None:
            store.close()
