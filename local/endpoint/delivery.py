"""How does an answer travel? Whole, streamed, slowly, cut short, or not at all."""

import asyncio
import socket
import struct
from collections.abc import Mapping, Sequence

from aiohttp import web

DRIP_SECONDS = 600.0
"""How long a dripping body takes unless a rule says otherwise: longer than any sane deadline."""

_DRIP_PAUSE = 0.5
_DRIP_STEPS = 10
_MOST_PAUSES = 20
"""A stream with latency per token pauses this often, not at every token."""

_LINGER_ZERO = struct.pack("ii", 1, 0)


def whole(
    body: bytes, headers: Mapping[str, str], status: int = 200, kind: str = "application/json"
) -> web.Response:
    """An answer as it should be."""
    return web.Response(body=body, status=status, headers=headers, content_type=kind)


def is_gone(request: web.BaseRequest) -> bool:
    """Whether the client has hung up."""
    return request.transport is None or request.transport.is_closing()


def reset(request: web.BaseRequest) -> web.StreamResponse:
    """Break the connection with a TCP reset instead of an answer."""
    transport = request.transport
    if transport is not None:
        # With no time to linger, closing sends RST where it would have sent FIN.
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
        transport.abort()
    return web.Response()


async def hang(seconds: float | None) -> None:
    """Say nothing, for some seconds or until the client hangs up and so cancels this."""
    await (asyncio.Event().wait() if seconds is None else asyncio.sleep(seconds))


async def cut_body(
    request: web.BaseRequest, body: bytes, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Announce the whole body, send half of it, close the connection."""
    response = web.StreamResponse(headers=headers)
    response.content_type = "application/json"
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    _close(request)
    return response


async def drip(
    request: web.BaseRequest,
    parts: Sequence[bytes],
    headers: Mapping[str, str],
    seconds: float | None,
) -> web.StreamResponse:
    """Send an answer so slowly that it takes `seconds`, a few bytes at a time."""
    body = b"".join(parts)
    length = DRIP_SECONDS if seconds is None else seconds
    steps = max(1, min(len(body), max(_DRIP_STEPS, round(length / _DRIP_PAUSE))))
    size = -(-len(body) // steps)
    response = web.StreamResponse(headers=headers)
    if len(parts) == 1:
        response.content_type = "application/json"
        response.content_length = len(body)
    else:
        response.content_type = "text/event-stream"
    await response.prepare(request)
    for start in range(0, len(body), size):
        await asyncio.sleep(length / steps)
        await response.write(body[start : start + size])
    await response.write_eof()
    return response


async def stream(
    request: web.BaseRequest, events: Sequence[bytes], headers: Mapping[str, str], seconds: float
) -> web.StreamResponse:
    """Send server-sent events over `seconds`; the last of `events` is the end of the stream."""
    response = web.StreamResponse(headers=headers)
    response.content_type = "text/event-stream"
    await response.prepare(request)
    size = max(1, -(-len(events) // _MOST_PAUSES)) if seconds else len(events)
    for start in range(0, len(events), size):
        if seconds:
            await asyncio.sleep(seconds * size / len(events))
        await response.write(b"".join(events[start : start + size]))
    await response.write_eof()
    return response


async def cut_stream(
    request: web.BaseRequest, events: Sequence[bytes], headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send the events of a begun stream, then close the connection without ending it."""
    response = web.StreamResponse(headers=headers)
    response.content_type = "text/event-stream"
    await response.prepare(request)
    await response.write(b"".join(events))
    _close(request)
    return response


def event(payload: bytes) -> bytes:
    """One server-sent event."""
    return b"data: " + payload + b"\n\n"


DONE = event(b"[DONE]")


def _close(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.close()
