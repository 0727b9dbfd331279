"""HTTP triggers: routes, function keys, answers; and the host's own admin routes.

https://learn.microsoft.com/azure/azure-functions/functions-bindings-http-webhook-trigger
`POST /admin/functions/NAME` runs a timer at once, as it does under `func start`
(https://learn.microsoft.com/azure/azure-functions/functions-manually-run-non-http).
"""

import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from azure.functions.meta import Datum

from local.host.invoking import InvocationFailedError, Invoker, encode_response
from local.host.loading import Function
from local.host.timer_triggers import TimerListener

logger = logging.getLogger("local.host")

KEY_SETTING = "LOCAL_FUNCTION_KEY"


def build(
    functions: list[Function],
    timers: Mapping[str, TimerListener],
    invoker: Invoker,
    *,
    prefix: str,
    key: str | None,
) -> web.Application:
    """The host's web application. Without a `key`, all may call, as under `func start`."""
    application = web.Application()
    for function in functions:
        route = _aiohttp_route(function.trigger.get("route") or function.name)
        path = "/" + "/".join(part for part in (prefix, route) if part)
        handler = _handler(function, invoker, key)
        for method in function.trigger.get("methods") or ["*"]:
            application.router.add_route(method, path, handler)
    application.router.add_get("/admin/host/status", _status)
    application.router.add_post("/admin/functions/{name}", _run_timer(timers))
    return application


def _aiohttp_route(route: str) -> str:
    """`{id}`, `{id:guid}` and `{*rest}` of ASP.NET's routes as aiohttp writes them."""
    route = re.sub(r"\{\*(\w+)\}", r"{\1:.*}", route.strip("/"))
    route = re.sub(r"\{(\w+):int\}", r"{\1:[0-9]+}", route)
    return re.sub(r"\{(\w+):(?:guid|alpha)\}", r"{\1}", route)


def _handler(
    function: Function, invoker: Invoker, key: str | None
) -> Callable[[web.Request], Awaitable[web.Response]]:
    anonymous = function.trigger.get("authLevel") == "ANONYMOUS"

    async def handle(request: web.Request) -> web.Response:
        if key and not anonymous and not _may_call(request, key):
            return web.Response(status=401)
        body = await request.read()
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


def _may_call(request: web.Request, key: str) -> bool:
    given = request.headers.get("x-functions-key") or request.query.get("code", "")
    return hmac.compare_digest(given.encode(), key.encode())


def _request_datum(request: web.Request, body: bytes) -> Datum:
    return Datum(
        {
            "method": Datum(request.method, "string"),
            "url": Datum(str(request.url), "string"),
            "headers": _texts(request.headers),
            "query": _texts(request.query),
            "params": _texts(request.match_info),
            "body": Datum(body, "bytes"),
        },
        "http",
    )


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
    timers: Mapping[str, TimerListener],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def run(request: web.Request) -> web.Response:
        timer = timers.get(request.match_info["name"])
        if timer is None:
            return web.Response(status=404)
        await timer.fire("This function was programmatically called via the host APIs.")
        return web.Response(status=202)

    return run
