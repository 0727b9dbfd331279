"""What does our client cost, beside raw aiohttp in the same run?

    python -m benchmarks.endpoint_client

A server in a process of its own answers chat completions at once, and then after 200 ms. Rounds
of raw aiohttp and of the client take turns; the CPU is this process's own. Raw aiohttp encodes
and decodes the same JSON, for no client can do without. Ends with status 1 if the client needs
more than 2.5 times the CPU, or reaches less than 0.85 of the rate with 256 requests in flight.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from schemas.deployments import Deployment, EndpointKind
from workers.adapters.endpoints import connect

MOST_CPU = 2.5
LEAST_RATE = 0.85
SLOW_SECONDS = 0.2

BODY = {
    "messages": [{"role": "user", "content": "What is the capital of France? " * 20}],
    "max_tokens": 64,
    "temperature": 0.2,
}
ANSWER = orjson.dumps(
    {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "phi",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The capital is Paris. " * 20},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 150, "completion_tokens": 110, "total_tokens": 260},
    }
)

Ask = Callable[[], Awaitable[object]]


async def serve() -> None:
    """The server's process: prints its port, then answers until it is ended."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        if request.path.startswith("/slow"):
            await asyncio.sleep(SLOW_SECONDS)
        return web.Response(body=ANSWER, content_type="application/json")

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def many(ask: Ask, requests: int, in_flight: int) -> tuple[float, float]:
    """Seconds of CPU and of the clock for so many requests, so many at a time."""
    left = iter(range(requests))

    async def worker() -> None:
        for _ in left:
            await ask()

    cpu, clock = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(worker())
    return time.process_time() - cpu, time.perf_counter() - clock


def raw(session: aiohttp.ClientSession, url: str) -> Ask:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer key"}

    async def ask() -> object:
        async with session.post(url, data=orjson.dumps(BODY), headers=headers) as response:
            return orjson.loads(await response.read())

    return ask


def ours(endpoint: Any) -> Ask:
    async def ask() -> object:
        outcome = await endpoint.ask("chat", BODY)
        if outcome.kind != "ok":
            raise SystemExit(f"the client failed: {outcome}")
        return outcome

    return ask


async def compare(url: str, kind: EndpointKind, rounds: int, requests: int) -> tuple[float, float]:
    """Ratios to raw aiohttp: CPU for each request, and the rate with 256 in flight.

    The best of many short rounds counts, for both: what else runs on the machine only slows.
    """

    def deployment(name: str) -> Deployment:
        base = f"{url}/{name}"
        return Deployment(name=name, kind=kind, url=base, model="phi", key_setting="KEY")

    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        connect([deployment("fast"), deployment("slow")], {"KEY": "key"}.get) as endpoints,
    ):
        fast = (raw(session, f"{url}/fast"), ours(endpoints["fast"]))
        slow = (raw(session, f"{url}/slow"), ours(endpoints["slow"]))
        for ask in (*fast, *slow):
            await many(ask, 512, 256)
        cpu = [[(await many(ask, requests, 16))[0] for ask in fast] for _ in range(rounds)]
        slept = [[(await many(ask, 2560, 256))[1] for ask in slow] for _ in range(4)]
    cpus = [1e6 * min(each) / requests for each in zip(*cpu, strict=True)]
    rates = [2560 / min(each) for each in zip(*slept, strict=True)]
    cost, reach = cpus[1] / cpus[0], rates[1] / rates[0]
    print(
        f"{kind}: CPU per request {cpus[1]:.0f} us, raw aiohttp {cpus[0]:.0f} us, ratio {cost:.2f};"
        f" 256 in flight {rates[1]:.0f} requests/s, raw aiohttp {rates[0]:.0f}, ratio {reach:.2f}",
        flush=True,
    )
    return cost, reach


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=11, help="of CPU, for each kind")
    parser.add_argument("--requests", type=int, default=800, help="in each round")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
    command = [sys.executable, "-m", "benchmarks.endpoint_client", "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            kinds: tuple[EndpointKind, ...] = ("model-inference", "openai")
            pairs = [
                asyncio.run(compare(url, kind, options.rounds, options.requests)) for kind in kinds
            ]
        finally:
            server.terminate()
    good = all(cost <= MOST_CPU and reach >= LEAST_RATE for cost, reach in pairs)
    print("within the limits" if good else f"beyond CPU {MOST_CPU} or rate {LEAST_RATE}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
