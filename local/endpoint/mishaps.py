"""What goes wrong with an answer that was paid for? The faults of the way back."""

import orjson
from aiohttp import web

from . import delivery
from .bodies import Body, stream_chunks
from .contracts import Ask
from .faults import Rule

_STREAM_ERROR = orjson.dumps({"error": {"code": "500", "message": "The simulated model failed."}})


def stream_events(ask: Ask, body: Body) -> list[bytes]:
    """A body as the server-sent events of a whole stream."""
    chunks = (delivery.event(orjson.dumps(chunk)) for chunk in stream_chunks(ask, body))
    return [*chunks, delivery.DONE]


async def spoil(
    request: web.BaseRequest, ask: Ask, body: Body, headers: dict[str, str], rule: Rule
) -> web.StreamResponse | None:
    """Do what the rule says to the answer; None where it still goes out in the usual way."""
    match rule.fault:
        case "reset_after":
            return delivery.reset(request)
        case "hang":
            await delivery.hang(rule.lasts)
            return None
        case "drip":
            parts = stream_events(ask, body) if ask.stream else [orjson.dumps(body)]
            return await delivery.drip(request, parts, headers, rule.lasts)
        case "stream_error" if not ask.stream:
            return delivery.whole(_STREAM_ERROR, headers)
        case "stream_error":
            begun = [*_half(stream_events(ask, body)), delivery.event(_STREAM_ERROR)]
            return await delivery.stream(request, begun, headers, 0)
        case "truncated_body" | "truncated_stream" if not ask.stream:
            return await delivery.cut_body(request, orjson.dumps(body), headers)
        case "truncated_body":
            return await delivery.cut_stream(request, _half(stream_events(ask, body)), headers)
        case "truncated_stream":
            # A clean end: nothing but the missing [DONE] tells.
            return await delivery.stream(request, _half(stream_events(ask, body)), headers, 0)
        case _:
            return None


def _half(events: list[bytes]) -> list[bytes]:
    return events[: len(events) // 2]
