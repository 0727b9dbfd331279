"""Whatever bytes a server sends: an outcome, in time, and never an exception."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from schemas.outcomes import OutcomeKind
from tests.adapters.clients import asking

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
OK = b"HTTP/1.1 200 OK\r\n"
JSON = b"Content-Type: application/json\r\n"
EVENTS = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def saying(raw: bytes) -> AsyncIterator[str]:
    """A server that reads a request's head, says these bytes and hangs up."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def outcome_of(raw: bytes, timeout: float = 5.0) -> tuple[OutcomeKind, str | None]:
    async with saying(raw) as url, asking("openai", url, timeout=timeout) as endpoint:
        outcome = await endpoint.ask("chat", CHAT)
    assert outcome.billed == (outcome.kind not in ("throttled", "bad_request"))
    return outcome.kind, outcome.code


@pytest.mark.parametrize(
    ("raw", "kind", "code"),
    [
        (b"", "transient", "connection_lost"),
        (b"nonsense\r\n\r\n", "transient", "connection_lost"),
        (b"HTTP/1.1 999 Odd\r\n\r\n", "transient", "http_999"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", "transient", "connection_lost"),
        (OK + b"Content-Length: 10\r\n\r\n{", "transient", "connection_lost"),
        (OK + b"Content-Length: -3\r\n\r\n{}", "transient", "connection_lost"),
        (
            OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
            "transient",
            "connection_lost",
        ),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}", "transient", "connection_lost"),
        (OK + JSON + b"\r\n\xff\xfe{}", "transient", "unreadable_answer"),
        (OK + EVENTS + b"5\r\ndata:\r\n", "transient", "truncated_stream"),
        (OK + EVENTS + b"8\r\ndata: {\n\r\n1\r\n\n\r\n0\r\n\r\n", "transient", "unreadable_answer"),
        (OK + EVENTS + b"0\r\n\r\n", "transient", "truncated_stream"),
        # The status of a refusal counts even where its body breaks off.
        (b"HTTP/1.1 429 No\r\nContent-Length: 90\r\n\r\n{", "throttled", "http_429"),
        (b"HTTP/1.1 400 No\r\nContent-Length: 90\r\n\r\n{", "bad_request", "http_400"),
    ],
)
async def test_broken_answers(raw: bytes, kind: OutcomeKind, code: str) -> None:
    assert await outcome_of(raw) == (kind, code)


async def test_a_good_answer_mutilated_at_random_never_raises() -> None:
    good = (
        OK + JSON + b"Content-Length: 96\r\n\r\n"
        b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}}], '
        b'"usage": {"a": 1}}'
    )
    rng = random.Random(5)
    kinds = set()
    for _ in range(150):
        raw = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        async with saying(bytes(raw)) as url, asking("openai", url, timeout=5) as endpoint:
            kinds.add((await endpoint.ask("chat", CHAT)).kind)
    assert {"ok", "transient"} <= kinds
