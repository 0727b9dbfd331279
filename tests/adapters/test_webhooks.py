"""The way to receivers, against receivers that misbehave and names that lead elsewhere."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from schemas.webhooks import Reception
from workers.adapters.webhooks import WebhookHttp, connect_webhooks
from workers.webhooks.addresses import ReceiverAddresses

PUBLIC = ReceiverAddresses(private=False, secure=True)
LOCAL = ReceiverAddresses(private=True, secure=False)
BODY = b'{"object":"event"}'
HEADERS = {"webhook-id": "evt_1"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A receiver; gives its port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def speaking(answer: bytes) -> AsyncIterator[int]:
    """A receiver that answers anything with these bytes, and then for ever with nothing."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def posted(port: int, *, deadline: float = 5.0) -> Reception:
    async with connect_webhooks(deadline) as http:
        return await http.post(f"http://127.0.0.1:{port}/hook", HEADERS, BODY, LOCAL)


async def test_body_and_headers_arrive_as_they_are() -> None:
    seen: list[tuple[str, bytes, str | None, str | None]] = []

    async def take(request: web.Request) -> web.Response:
        said = request.headers
        seen.append((request.path, await request.read(), said["webhook-id"], said["content-type"]))
        assert "cookie" not in said
        return web.Response(status=204, headers={"set-cookie": "a=b"})

    async with serving(take) as port, connect_webhooks() as http:
        for _ in range(2):
            reception = await http.post(f"http://127.0.0.1:{port}/hook", HEADERS, BODY, LOCAL)
            assert reception == Reception(204)
    assert seen == [("/hook", BODY, "evt_1", "application/json")] * 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, headers={"location": "/other"})

    async with serving(elsewhere) as port:
        assert await posted(port) == Reception(status)
    assert asked == ["/hook"]


async def test_a_receiver_says_when_it_wants_to_be_asked_again() -> None:
    async def busy(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": "120"})

    async with serving(busy) as port:
        assert await posted(port) == Reception(503, 120.0)


async def test_quotas_of_a_receiver_are_not_a_request_to_come_later() -> None:
    async def busy(request: web.Request) -> web.Response:
        told = {"x-ratelimit-reset": "3600", "retry-after-ms": "9000", "x-ms-retry-after-ms": "9"}
        return web.Response(status=500, headers=told)

    async with serving(busy) as port:
        assert await posted(port) == Reception(500)


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
async def test_a_name_that_can_be_none_is_a_failure(host: str) -> None:
    async with connect_webhooks() as http:
        reception = await http.post(f"http://{host}/hook", HEADERS, BODY, LOCAL)
    assert reception.status is None
    assert reception.why


async def test_one_that_hangs_costs_a_deadline() -> None:
    async with speaking(b"") as port:
        began = time.monotonic()
        reception = await posted(port, deadline=0.3)
    assert reception == Reception(None, why="it does not answer in time")
    assert time.monotonic() - began < 3.0


async def test_an_endless_body_is_not_read() -> None:
    broken = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"x" * 65536)
        finally:
            broken.set()

    async with serving(endless) as port, asyncio.timeout(10.0):
        assert await posted(port) == Reception(200)
        await broken.wait()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nx-long: " + b"x" * 100_000 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.0\r\n",
        b"HTTP/1.1 999999999 What\r\n\r\n",
    ],
    ids=["endless header", "no http", "no status"],
)
async def test_an_answer_that_is_none_is_a_failure(answer: bytes) -> None:
    async with speaking(answer) as port:
        reception = await posted(port, deadline=1.0)
    assert reception.status is None
    assert reception.why


async def test_one_that_is_not_there_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert await posted(port) == Reception(None, why="it cannot be connected to")


async def test_one_whose_certificate_nobody_knows_is_told_nothing(certificate: Path) -> None:
    seen: list[str] = []

    async def take(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    rule = ReceiverAddresses(private=True, secure=True)
    async with serving(take, context) as port, connect_webhooks(2.0) as http:
        reception = await http.post(f"https://127.0.0.1:{port}/hook", HEADERS, BODY, rule)
    assert reception == Reception(None, why="its certificate is not trusted")
    assert seen == []


class Names(aiohttp.abc.AbstractResolver):
    """A resolver whose answers change from one look-up to the next."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[Any]:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": 0,
                "flags": 0,
            }
            for address in answer
        ]

    async def close(self) -> None: ...


async def by_name(http: WebhookHttp, names: Names, url: str, rule: ReceiverAddresses) -> Reception:
    client = http._clients.get(rule) or await http._connect(rule)
    assert isinstance(client.connector, aiohttp.TCPConnector)
    client.connector._resolver = names
    return await http.post(url, HEADERS, BODY, rule)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "10.1.2.3"]
)
async def test_a_name_that_leads_inside_is_not_followed(address: str) -> None:
    asked: list[str] = []

    async def inside(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    async with serving(inside) as port, connect_webhooks(2.0) as http:
        url = f"https://receiver.example:{port}/hook"
        reception = await by_name(http, Names([address]), url, PUBLIC)
        assert reception == Reception(None, why="its address is not allowed")
        # A literal is looked up by nobody, and judged all the same.
        literal = f"[{address}]" if ":" in address else address
        reception = await http.post(f"https://{literal}:{port}/hook", HEADERS, BODY, PUBLIC)
        assert reception == Reception(None, why="its address is not allowed")
    assert asked == []


async def test_a_name_that_leads_elsewhere_the_next_time_gains_nothing() -> None:
    asked: list[str] = []

    async def inside(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    async with serving(inside) as port, connect_webhooks(0.3) as http:
        url = f"https://receiver.example:{port}/hook"
        names = Names(["192.0.2.1"], ["127.0.0.1"], ["127.0.0.1"])
        for _ in range(3):
            reception = await by_name(http, names, url, PUBLIC)
            assert reception.why == "its address is not allowed"
        # Nor does a mixture: each address is judged by itself.
        mixed = Names(["127.0.0.1", "169.254.169.254"])
        assert (await by_name(http, mixed, url, PUBLIC)).why == "its address is not allowed"
    assert names.asked == 3
    assert asked == []


async def test_metadata_is_out_of_reach_where_private_addresses_are_allowed() -> None:
    async with connect_webhooks(2.0) as http:
        reception = await http.post("http://169.254.169.254/metadata", HEADERS, BODY, LOCAL)
    assert reception == Reception(None, why="its address is not allowed")


async def test_a_proxy_of_the_environment_does_not_come_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def take(request: web.Request) -> web.Response:
        return web.Response()

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving(take) as port:
        assert await posted(port) == Reception(200)
