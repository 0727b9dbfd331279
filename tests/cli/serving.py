"""The doors over the in-memory service, behind a real port: what the SDK sends arrives there."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from schemas.deployments import Task
from schemas.outcomes import Outcome
from tests.api.client import KEYS
from tests.doubles.service import Answering, Bench, bench
from tests.doubles.webhooks import HOOK
from workers.api.http import HttpCall
from workers.jobs.outbox import SHARDS

T = TypeVar("T")


class Failing(Answering):
    """An endpoint that refuses rows with a word in them, as long as `word` is one."""

    word = "bad"

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        if self.word and self.word in json.dumps(body):
            await asyncio.sleep(0)
            return Outcome("bad_request", 400, code="refused", message="no")
        return await super().ask(task, body)


class Served:
    """A service that works after each call it has answered, unless it is held.

    `polls` are the calls for which its shards are held back; `calls` are all that came; of so many
    answers with content as `cut` says only a half arrives.
    """

    def __init__(self, service: Bench, loop: asyncio.AbstractEventLoop) -> None:
        self.service = service
        self.polls = 0
        self.held = False
        self.cut = 0
        self.calls: list[HttpCall] = []
        self._loop = loop
        self._turn = threading.Lock()
        self.url = ""

    def run(self, doing: Awaitable[T]) -> T:
        """Have something done where the service lives."""

        async def done() -> T:
            return await doing

        future: Future[T] = asyncio.run_coroutine_threadsafe(done(), self._loop)
        return future.result(60)

    def answer(self, call: HttpCall) -> Any:
        """The answer to a call, and what follows from it."""
        with self._turn:
            reply = self.run(self.service.openai.answer(call))
            self.calls.append(call)
            if not self.held:
                self.polls -= 1
                holding = self.polls >= 0
                self.run(self.service.settle(lambda due: holding and due.queue == SHARDS))
            return reply


class _Handler(BaseHTTPRequestHandler):
    served: Served

    def _any(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("content-length", "0"))
        call = HttpCall(
            method=self.command,
            path=parts.path,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(length),
        )
        reply = self.served.answer(call)
        self.send_response(reply.code)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("content-type", reply.content_type)
        self.send_header("content-length", str(len(reply.data)))
        self.end_headers()
        cut = self.served.cut > 0 and parts.path.endswith("/content")
        self.served.cut -= cut
        self.wfile.write(reply.data[: len(reply.data) // 2] if cut else reply.data)

    do_GET = do_POST = do_DELETE = _any  # noqa: N815 - as http.server looks for them

    def log_message(self, *_: object) -> None:
        """Tests' output is for failures."""


@contextmanager
def serving(endpoint: Answering | None = None, **settings: Any) -> Iterator[Served]:
    """The service on a port of its own, with settings of one's own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    made = bench(api_keys=KEYS, endpoint=endpoint, webhooks={"default": HOOK}, **settings)

    async def start() -> Bench:
        return await made.__aenter__()

    async def stop() -> None:
        await made.__aexit__(None, None, None)

    served = Served(asyncio.run_coroutine_threadsafe(start(), loop).result(60), loop)
    handler = type("Handler", (_Handler,), {"served": served})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        served.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield served
        finally:
            server.shutdown()
            asyncio.run_coroutine_threadsafe(stop(), loop).result(60)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(60)
            loop.close()
