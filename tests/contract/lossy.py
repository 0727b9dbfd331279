"""Azurite behind a proxy that loses, refuses and delays what a test tells it to."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
from aiohttp import web
from yarl import URL

from local.azurite import Azurite


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with an error of the service's, without any effect."""

    status: int
    code: str


# "lose": it takes effect and its answer is lost. "silent": no effect and no answer. "cut": half
# an answer.
Mishap = Literal["pass", "lose", "silent", "cut"] | Refuse


@dataclass(eq=False)
class Lossy:
    """`plan` is used up by the requests that `concerns` picks; others pass.

    `met` is set when the first mishap begins.
    """

    connection_string: str = ""
    plan: deque[Mishap] = field(default_factory=deque)
    concerns: Callable[[web.Request], bool] = lambda request: True
    concerned: int = 0
    met: asyncio.Event = field(default_factory=asyncio.Event)

    def next(self, request: web.Request) -> Mishap:
        if not self.concerns(request):
            return "pass"
        self.concerned += 1
        if self.plan:
            self.met.set()
        return self.plan.popleft() if self.plan else "pass"


@asynccontextmanager
async def lossy(azurite: Azurite) -> AsyncIterator[Lossy]:
    """A proxy in front of `azurite`, on a port of its own."""
    mishaps, stopping = Lossy(), asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        mishap = mishaps.next(request)
        if isinstance(mishap, Refuse):
            return web.Response(status=mishap.status, headers={"x-ms-error-code": mishap.code})
        if mishap == "silent":
            await stopping.wait()
        answer = await _forwarded(session, request, azurite.port)
        if mishap == "cut" and isinstance(answer.body, bytes):
            answer.body = answer.body[: len(answer.body) // 2]
        elif mishap != "pass" and request.transport is not None:
            request.transport.abort()
        return answer

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        mishaps.connection_string = azurite.connection_string.replace(
            f":{azurite.port}/", f":{port}/"
        )
        try:
            yield mishaps
        finally:
            stopping.set()
            await runner.cleanup()


async def _forwarded(
    session: aiohttp.ClientSession, request: web.Request, port: int
) -> web.Response:
    # Path and headers exactly as they came: they are signed.
    url = URL(f"http://127.0.0.1:{port}{request.raw_path}", encoded=True)
    async with session.request(
        request.method,
        url,
        headers=request.headers,
        data=await request.read() or None,
        skip_auto_headers=["Content-Type"],
    ) as answer:
        hop = ("Transfer-Encoding", "Connection", "Keep-Alive", "Content-Length")
        headers = [(name, value) for name, value in answer.headers.items() if name not in hop]
        return web.Response(status=answer.status, headers=dict(headers), body=await answer.read())
