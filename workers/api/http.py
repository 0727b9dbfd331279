"""What comes and goes over HTTP, whatever serves it.

Errors have the form of the OpenAI API, so that its clients read them
(https://platform.openai.com/docs/guides/error-codes).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

# The SDK repeats these otherwise: a conflict that stands, a body that stays too large.
_NOT_RETRIED: Final = frozenset({409, 411, 413})


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A request as it came. Names of `headers` are in lower case; `path` is not decoded again.

    `repeated` are the names that its query gives more than once; hosts keep one value or join them.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    repeated: frozenset[str] = frozenset()


def repeated_in(url: str) -> frozenset[str]:
    """The names that the query of a url gives more than once."""
    names = Counter(name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True))
    return frozenset(name for name, count in names.items() if count > 1)


@dataclass(frozen=True, slots=True)
class JsonReply:
    """An HTTP status code, a JSON body and headers."""

    code: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    @property
    def data(self) -> bytes:
        """The body as it is sent."""
        return json.dumps(self.body).encode()

    def with_headers(self, headers: Mapping[str, str]) -> "JsonReply":
        """The same with further headers."""
        return replace(self, headers={**self.headers, **headers})


@dataclass(frozen=True, slots=True)
class BytesReply:
    """An HTTP status code and a body of any type."""

    code: int
    data: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/octet-stream"

    def with_headers(self, headers: Mapping[str, str]) -> "BytesReply":
        """The same with further headers."""
        return replace(self, headers={**self.headers, **headers})


AnyReply = JsonReply | BytesReply


def unless_known(call: HttpCall, reply: AnyReply) -> AnyReply:
    """An answer with its ETag; without its body where the caller has that already."""
    if call.method != "GET" or reply.code != 200 or "Cache-Control" in reply.headers:
        return reply
    etag = f'"{hashlib.sha256(reply.data).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if etag in call.headers.get("if-none-match", ""):
        return BytesReply(304, headers=headers, content_type=reply.content_type)
    return reply.with_headers(headers)


class HttpRefusal(Exception):
    """A request that is not done. `param` is the part of the request that is wrong."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.param = param
        hint = {"x-should-retry": "false"} if status in _NOT_RETRIED else {}
        self.headers = {**hint, **(headers or {})}
        super().__init__(message)

    def reply(self) -> JsonReply:
        """The refusal as an answer."""
        error = {
            "message": str(self),
            "type": "server_error" if self.status >= 500 else "invalid_request_error",
            "param": self.param,
            "code": self.code,
        }
        return JsonReply(self.status, {"error": error}, self.headers)
