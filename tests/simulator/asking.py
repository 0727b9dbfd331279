"""How the simulator's own tests ask it: raw HTTP, so that nothing but the wire is tested."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from local.endpoint import Endpoint, Settings, simulate

MODEL = "Phi-3-mini-4k-instruct"
UNLIMITED: dict[str, Any] = {
    "requests_per_minute": 0,
    "tokens_per_minute": 0,
    "requests_per_day": 0,
    "max_tokens_per_request": 0,
    "max_concurrency": 0,
}


@dataclass
class FakeClock:
    """A clock that moves when told."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Reply:
    """What came back over the wire, whatever its status."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return orjson.loads(self.raw)

    @property
    def text(self) -> str:
        return str(self.body["choices"][0]["message"]["content"])

    @property
    def events(self) -> list[Any]:
        """The payloads of a server-sent stream; its end mark as the string [DONE]."""
        lines = [line for line in self.raw.decode().split("\n\n") if line]
        data = [line.removeprefix("data: ") for line in lines]
        return [each if each == "[DONE]" else orjson.loads(each) for each in data]


class Asker:
    """A simulator that runs and a session to ask it with."""

    def __init__(self, endpoint: Endpoint, session: aiohttp.ClientSession) -> None:
        self.endpoint = endpoint
        self.session = session

    async def post(
        self,
        path: str,
        body: object,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 10,
    ) -> Reply:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        limit = aiohttp.ClientTimeout(total=timeout)
        url = self.endpoint.url + path
        async with self.session.post(url, data=data, headers=headers, timeout=limit) as response:
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str) -> Reply:
        async with self.session.get(self.endpoint.url + path) as response:
            return Reply(response.status, response.headers, await response.read())

    async def chat(self, content: str = "hello", *, timeout: float = 10, **more: Any) -> Reply:
        """A chat of one turn on the openai contract, which lets every parameter through."""
        messages = [{"role": "user", "content": content}]
        body = {"messages": messages, "max_tokens": 8} | more
        return await self.post("/v1/chat/completions", body, timeout=timeout)


@asynccontextmanager
async def asking(
    settings: Settings | None = None, clock: FakeClock | None = None
) -> AsyncIterator[Asker]:
    running = simulate(settings) if clock is None else simulate(settings, clock=clock)
    async with running as endpoint, aiohttp.ClientSession() as session:
        yield Asker(endpoint, session)
