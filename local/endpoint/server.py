"""Where does it listen? The simulator behind an HTTP server, in a process or in a test."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader

from . import control
from .faults import Rule
from .limits import Limits
from .settings import Settings
from .simulator import Clock, Simulator

HOST = "127.0.0.1"

_MOST_BYTES = 64 * 2**20
_GRACE = 0.01
"""Seconds given to answers under way when the server stops: the point is to stop at once."""


class Endpoint:
    """A running simulator."""

    def __init__(self, url: str, simulator: Simulator) -> None:
        self.url = url
        self._simulator = simulator

    def stats(self, *, rows: bool = False) -> dict[str, Any]:
        """The same report as GET /simulator/stats (with `rows`, ?rows=1)."""
        return control.report(self._simulator, rows=rows)

    def set_faults(self, *rules: Rule) -> None:
        """Replace the rules."""
        self._simulator.set_faults(rules)

    def set_limits(self, **changes: int) -> None:
        """Change some limits by name, as POST /simulator/limits does."""
        self._simulator.set_limits(control.changed(self._simulator.limits, changes))

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        return self._simulator.limits

    def set_key(self, key: str | None) -> None:
        """Ask for another key from now on, as after a rotation; None lets every caller in."""
        self._simulator.key = key

    def reset(self) -> None:
        """Begin again, as POST /simulator/reset does."""
        self._simulator.reset()


@asynccontextmanager
async def simulate(
    settings: Settings | None = None, *, port: int = 0, clock: Clock = time.monotonic
) -> AsyncIterator[Endpoint]:
    """Serve a simulator on 127.0.0.1 while the context lasts; port 0 takes a free one.

    `clock` counts the windows of the quotas and the time of the fault rules, in seconds.
    Raises OSError if the port is taken.
    """
    simulator = Simulator(settings or Settings(), clock)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.path.startswith(control.PREFIX):
            return await control.handle(simulator, request)
        return await simulator.handle(request)

    # The bare server: no router, no middlewares, no access log. A client that hangs up cancels
    # its request, as inference servers abort one whose reader is gone.
    server = web.Server(
        handle, request_factory=_request, handler_cancellation=True, access_log=None
    )
    listener = await asyncio.get_running_loop().create_server(server, HOST, port, backlog=1024)
    bound = listener.sockets[0].getsockname()[1]
    try:
        yield Endpoint(f"http://{HOST}:{bound}", simulator)
    finally:
        listener.close()
        await server.shutdown(_GRACE)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: Any,
    writer: Any,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(
        message, payload, protocol, writer, task, loop, client_max_size=_MOST_BYTES
    )
