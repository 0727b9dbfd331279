"""azure-core's transport over the shared connection pool, for one plain request and its answer.

`AioHttpTransport` wraps each request's options and each answer in objects that serve every Azure
SDK; for calls by the thousand they cost as much as the connection. The errors are the same.
"""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from azure.core.exceptions import (
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)
from azure.core.pipeline.transport import AioHttpTransport


class EndpointRequest:
    """A request that is sent once, with those attributes of azure-core's that the pipeline uses.

    The pipeline is generic in its request; azure-core's own looks for a body of any kind.
    """

    __slots__ = ("content", "headers", "method", "url")
    multipart_mixed_info = None

    def __init__(
        self, method: str, url: str, content: bytes | None, headers: dict[str, str]
    ) -> None:
        self.method = method
        self.url = url
        self.content = content
        self.headers = headers

    def prepare_multipart_body(self) -> None:
        """Nothing: the pipeline calls this on every request, and none here has several parts."""

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> "EndpointRequest":
        # azure-ai-inference copies a request before it makes its URL whole.
        return self


class HttpReply:
    """An answer whose body is still to be read, as far as calls use azure-core's responses."""

    __slots__ = ("_answer", "headers", "status_code")

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status_code = answer.status
        self.headers = answer.headers

    async def read(self) -> bytes:
        """The whole body."""
        return await self._answer.read()

    async def iter_raw(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        async for piece in self._answer.content.iter_any():
            yield piece

    async def close(self) -> None:
        """Give the connection back, or end it where the body was not read to its end."""
        self._answer.close()

    async def __aenter__(self) -> "HttpReply":
        return self

    async def __aexit__(self, *error: object) -> None:
        self._answer.close()


class PlainTransport(AioHttpTransport):  # type: ignore[misc]  # untyped there
    """A transport over a session that its maker closes; the caller sets the deadline."""

    def __init__(self, session: aiohttp.ClientSession, connect_timeout: float) -> None:
        super().__init__(session=session, session_owner=False)
        self._pool = session
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)

    async def send(self, request: Any, **_options: Any) -> Any:
        """Send a request, without redirects; the body of its answer is left to be read."""
        content = request.content
        try:
            answer = await self._pool.request(
                request.method,
                request.url,
                headers=request.headers,
                data=content,
                timeout=self._timeout,
                allow_redirects=False,
                skip_auto_headers=None if content else ("Content-Type",),
            )
        except aiohttp.ClientResponseError as error:
            raise ServiceResponseError(error, error=error) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise ServiceRequestTimeoutError(error, error=error) from error
        except TimeoutError as error:
            raise ServiceResponseTimeoutError(error, error=error) from error
        except aiohttp.ClientError as error:
            raise ServiceRequestError(error, error=error) from error
        return HttpReply(answer)
