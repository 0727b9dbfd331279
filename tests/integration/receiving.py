"""A receiver of webhooks on this machine, as its owner writes it: with the `openai` package."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from openai import OpenAI

Answering = Callable[[int], Awaitable[web.StreamResponse]]
"""What a receiver answers to its nth request, counted from 1."""


async def taken(_nth: int) -> web.StreamResponse:
    """As a receiver should."""
    return web.Response(status=200)


@dataclass
class Receiver:
    """What came: each event as the package gives it out once its signature holds."""

    secret: str
    answering: Answering = taken
    url: str = ""
    events: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        client = OpenAI(api_key="none", webhook_secret=self.secret)
        self.events.append(client.webhooks.unwrap(body, dict(request.headers)))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return await self.answering(len(self.events))


@asynccontextmanager
async def receiver(secret: str, answering: Answering = taken) -> AsyncIterator[Receiver]:
    """A receiver on a free port."""
    made = Receiver(secret, answering)
    app = web.Application()
    app.router.add_post("/hook", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield made
    finally:
        await runner.cleanup()


async def silence(_nth: int) -> web.StreamResponse:
    """As a receiver that hangs."""
    await asyncio.sleep(3600.0)
    raise AssertionError
