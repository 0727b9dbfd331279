"""What comes and goes over HTTP, whatever serves it.

Errors have the form of the OpenAI API, so that its clients read them
(https://platform.openai.com/docs/guides/error-codes).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A request as it came. Names of `headers` are in lower case; `path` is not decoded again."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class JsonReply:
    """An HTTP status code, a JSON body and headers."""

    code: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


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
        self.headers = headers or {}
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
