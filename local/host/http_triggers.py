"""HTTP triggers: routes, function keys, answers; and the host's own admin routes.

https://learn.microsoft.com/azure/azure-functions/functions-bindings-http-webhook-trigger
`POST /admin/functions/NAME` runs a timer at once, as it does under `func start`
(https://learn.microsoft.com/azure/azure-functions/functions-manually-run-non-http).
"""

import hmac
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from azure.functions.meta import Datum

from local.host.invoking import InvocationFailedError, Invoker, encode_response
from local.host.loading import Function, LoadError
from local.host.timer_triggers import TimerListener
from local.keys import HEADER
from local.settings import BODY_LIMIT

DEFAULT_BODY_BYTES = 104_857_600

logger = logging.getLogger("local.host")


def build(
    functions: list[Function],
    timers: Mapping[str, TimerListener],
    invoker: Invoker,
    *,
    prefix: str,
    key: str | None,
) -> web.Application:
    """The host's web application. Without a `key`, all may call, as under `func start`."""
    application = web.Application(
        client_max_size=_body_limit(), middlewares=[_limited, _own_origin]
    )
    # The host's own come first: a function's route for everything takes none of them.
    application.router.add_get("/admin/host/status", _status)
    application.router.add_post("/admin/functions/{name}", _run_timer(timers, key))
    for function in sorted(functions, key=_precedence):
        route = aiohttp_route(function.trigger.get("route") or function.name)
        path = "/" + "/".join(part for part in (prefix, route) if part)
        handler = _handler(function, invoker, key)
        for method in function.trigger.get("methods") or ["*"]:
            application.router.add_route(method, path, handler)
            if path != (without := _CATCH_ALL.sub("", path)):
                application.router.add_route(method, without, handler)
    return application


# As Kestrel has them, on which Azure's host runs:
# https://learn.microsoft.com/dotnet/api/microsoft.aspnetcore.server.kestrel.core.kestrelserverlimits
MOST_LINE_BYTES = 8 * 1024
MOST_HEADER_BYTES = 32 * 1024
MOST_HEADERS = 100


@web.middleware
async def _limited(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse what the server before Azure's host refuses, without a body, as it does."""
    if len(f"{request.method} {request.raw_path} HTTP/1.1\r\n") > MOST_LINE_BYTES:
        return web.Response(status=414)
    headers = request.raw_headers
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    if len(headers) > MOST_HEADERS or size > MOST_HEADER_BYTES:
        return web.Response(status=431)
    return await handler(request)


# What a page may name this host by; a page of somebody else's may have its name lead here too.
_HERE = frozenset({"localhost", "127.0.0.1", "[::1]"})
_OWN = frozenset({"same-origin", "none"})


@web.middleware
async def _own_origin(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse what a browser asks for the page of another site, whatever the method.

    Browsers say whose page asks (https://www.w3.org/TR/fetch-metadata/), and the name that they
    looked up. Programs that are no browsers say nothing of it, and may call.
    """
    name = re.sub(r":[0-9]+$", "", request.host).lower()
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if name not in _HERE:
        return web.Response(status=403, text=f"call this host localhost, not {name[:100]!r}\n")
    foreign = origin is not None and origin.partition("://")[2].lower() != request.host.lower()
    if foreign or (site is not None and site not in _OWN):
        return web.Response(status=403, text="another site's page may not call this host\n")
    return await handler(request)


def _precedence(function: Function) -> list[int]:
    """Of routes that fit, ASP.NET takes the one that says most, from the first segment on.

    A literal says more than a parameter, one with a constraint more than one without, and either
    more than what takes all that is left.
    """
    route = str(function.trigger.get("route") or function.name).strip("/")
    return [
        3 if part.startswith("{*") else 0 if "{" not in part else 1 if ":" in part else 2
        for part in route.split("/")
    ]


_CONSTRAINTS = {"int": "[0-9]+", "alpha": "[A-Za-z]+", "guid": "[0-9A-Fa-f-]{36}"}
# ASP.NET's `{*rest}` matches nothing too, and needs no slash before it then.
_ANYTHING = r"[\s\S]*"  # a line feed too
_CATCH_ALL = re.compile(rf"(?<=[^/])/\{{\w+:{re.escape(_ANYTHING)}\}}$")
_PARAMETER = re.compile(r"\{(\*{0,2})(\w+)(?::(regex\((.+?)\)|\w+))?\}(?=/|$)")


def aiohttp_route(route: str) -> str:
    """An ASP.NET route as aiohttp writes it: `{id}`, `{id:int}`, `{a:regex(^(b|c)$)}`, `{*rest}`.

    Errors: `LoadError` at a constraint that is not known here.
    """

    def parameter(match: re.Match[str]) -> str:
        rest, name, constraint, pattern = match.groups()
        if rest:
            return f"{{{name}:{_ANYTHING}}}"
        if constraint is None:
            return f"{{{name}}}"
        pattern = pattern or _CONSTRAINTS.get(constraint)
        if pattern is None:
            raise LoadError(f"route {route!r}: the local host does not know {constraint!r}")
        return f"{{{name}:{pattern.removeprefix('^').removesuffix('$')}}}"

    return _PARAMETER.sub(parameter, route.strip("/"))


def _handler(
    function: Function, invoker: Invoker, key: str | None
) -> Callable[[web.Request], Awaitable[web.Response]]:
    anonymous = function.trigger.get("authLevel") == "ANONYMOUS"

    async def handle(request: web.Request) -> web.Response:
        if key and not anonymous and not _may_call(request, key):
            return web.Response(status=401)
        try:
            body = await _body(request)
        except web.HTTPRequestEntityTooLarge:
            # Azure's host answers so, and not 413.
            return web.Response(status=500)
        try:
            result = await invoker.invoke(
                function,
                _request_datum(request, body),
                {},
                reason="This function was programmatically called via the host APIs.",
                trace_parent=request.headers.get("traceparent"),
            )
            return web.Response(status=204) if result is None else _response(result)
        except InvocationFailedError:
            return web.Response(status=500)

    return handle


def _body_limit() -> int:
    """Bytes of a body that the host takes (FUNCTIONS_REQUEST_BODY_SIZE_LIMIT)."""
    return int(os.environ.get(BODY_LIMIT) or DEFAULT_BODY_BYTES)


async def _body(request: web.Request) -> bytes:
    """The body as a function gets it: without a Content-Length nothing arrives of it."""
    body = await request.read()
    return body if request.content_length is not None else b""


def _may_call(request: web.Request, key: str) -> bool:
    given = request.headers.get(HEADER) or request.query.get("code", "")
    return hmac.compare_digest(given.encode(), key.encode())


def _request_datum(request: web.Request, body: bytes) -> Datum:
    return Datum(
        {
            "method": Datum(request.method, "string"),
            "url": Datum(str(request.url), "string"),
            "headers": _texts(_fronted(request)),
            "query": _texts(request.query),
            "params": _texts(request.match_info),
            "body": Datum(body, "bytes"),
        },
        "http",
    )


def _fronted(request: web.Request) -> Mapping[str, str]:
    """The headers with the caller's address, as App Service's front end overwrites it."""
    host, port, *_ = (request.transport and request.transport.get_extra_info("peername")) or ("", 0)
    headers = request.headers.copy()
    headers["client-ip"] = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return headers


def _texts(values: Mapping[str, str]) -> dict[str, Datum]:
    return {name: Datum(value, "string") for name, value in values.items()}


def _response(result: Any) -> web.Response:
    encoded: Any = encode_response(result)
    response = web.Response(
        status=int(encoded["status_code"].value),
        headers={name: datum.value for name, datum in encoded["headers"].items()},
        body=encoded["body"].value,
    )
    for cookie in encoded["cookies"] or []:
        response.cookies.update(cookie)
    return response


async def _status(_request: web.Request) -> web.Response:
    return web.json_response({"state": "Running"})


def _run_timer(
    timers: Mapping[str, TimerListener], key: str | None
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def run(request: web.Request) -> web.Response:
        if key and not _may_call(request, key):
            return web.Response(status=401)
        timer = timers.get(request.match_info["name"])
        if timer is None:
            return web.Response(status=404)
        await timer.fire("This function was programmatically called via the host APIs.")
        return web.Response(status=202)

    return run
