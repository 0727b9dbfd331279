"""Deployments and endpoints for tests, and a server that store what it is sent."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from local.endpoint import Settings, simulate
from local.endpoint.server import Endpoint as Simulated
from schemas.deployments import Deployment, EndpointKind
from tests.leaks import ENDPOINT_KEY
from workers.adapters.endpoints import connect
from workers.ports import Endpoint

MODEL = "Phi-3-mini-4k-instruct"
EMBED = "simulated-embed"
SEED = 11
KEY = ENDPOINT_KEY
KINDS: tuple[EndpointKind, ...] = ("model-inference", "openai", "azure-openai", "aml-score")

_SUFFIX = {"openai": "/v1", "aml-score": "/score"}


def written(body: Any) -> Any:
    """An answer's body as it stands in a line of results."""
    return orjson.loads(orjson.dumps(body, default=lambda vector: orjson.Fragment(bytes(vector))))


def deployment(kind: EndpointKind, url: str, **fields: Any) -> Deployment:
    """A deployment of this kind at a server's root URL; fields given replace the usual ones."""
    usual = {"name": kind, "model": MODEL, "key_setting": "KEY", "timeout": 20.0}
    return Deployment(kind=kind, url=url + _SUFFIX.get(kind, ""), **(usual | fields))


@asynccontextmanager
async def asking(kind: EndpointKind, url: str, **fields: Any) -> AsyncIterator[Endpoint]:
    """One endpoint, ready to be asked."""
    each = deployment(kind, url, **fields)
    async with connect([each], {"KEY": KEY}.get) as endpoints:
        yield endpoints[each.name]


@asynccontextmanager
async def simulated(
    kind: EndpointKind, settings: Settings | None = None, **fields: Any
) -> AsyncIterator[tuple[Endpoint, Simulated]]:
    """An endpoint of this kind, and the simulator that it asks."""
    async with (
        simulate(settings or Settings(profile="openai", seed=SEED, key=KEY)) as simulator,
        asking(kind, simulator.url, **fields) as endpoint,
    ):
        yield endpoint, simulator


@dataclass(slots=True)
class Seen:
    """A request as it came over the wire."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass(slots=True)
class Recorder:
    """A server that keeps what it is sent and answers as `answer` says."""

    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
    url: str = ""
    seen: list[Seen] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Keep the request, then answer."""
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.path_qs, headers, orjson.loads(raw) if raw else None))
        return await self.answer(request)


@asynccontextmanager
async def recorder(
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> AsyncIterator[Recorder]:
    """Serve a recorder on a free port of 127.0.0.1 while the context lasts."""
    recording = Recorder(answer)
    runner = web.ServerRunner(web.Server(recording.handle, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1)
    await site.start()
    recording.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield recording
    finally:
        await runner.cleanup()


@asynccontextmanager
async def recorded(
    kind: EndpointKind,
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    **fields: Any,
) -> AsyncIterator[tuple[Endpoint, list[Seen]]]:
    """An endpoint of this kind, and what the server it asks has seen."""
    async with recorder(answer) as server, asking(kind, server.url, **fields) as endpoint:
        yield endpoint, server.seen


def json_answer(
    body: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Always this JSON."""

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(
            body=orjson.dumps(body),
            status=status,
            headers=headers,
            content_type="application/json",
        )

    return answer
