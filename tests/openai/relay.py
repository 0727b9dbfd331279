"""Stands between a client and a server: counts requests, loses answers, sees what is sent on.

Nothing but the standard library, for the probes run in environments that hold the SDK alone.
"""

import http.client
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})

Seen = list[tuple[str, str, dict[str, str]]]


class Relay:
    """A proxy for one server. `seen` holds method, path and headers of each request."""

    def __init__(self, target: str, rewrite: Callable[[str], str] = str) -> None:
        self.target = urlsplit(target)
        self.rewrite = rewrite
        self.seen: Seen = []
        self.lose = 0
        """Answers that are still to be lost."""
        self.loses: Callable[[Seen], bool] = lambda _: False
        """Whether the answer to the latest of these requests is lost."""
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:
                    self.close_connection = True

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return lambda: relay.pass_on(self)
                raise AttributeError(name)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def pass_on(self, request: BaseHTTPRequestHandler) -> None:
        """One request and its answer."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.command, request.path, headers))
        lost = self.loses(self.seen)
        body = request.rfile.read(int(headers.get("content-length", 0)))
        kept = {name: value for name, value in headers.items() if name not in HOP}
        onward = http.client.HTTPConnection(self.target.netloc, timeout=120)
        onward.request(
            request.command, request.path, body, kept | {"Content-Length": str(len(body))}
        )
        answer = onward.getresponse()
        data = answer.read()
        if self.lose > 0 or lost:
            self.lose -= self.lose > 0
            request.close_connection = True
            request.connection.close()
            return
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                location = name.lower() == "location"
                request.send_header(name, self.rewrite(value) if location else value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def __enter__(self) -> "Relay":
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
