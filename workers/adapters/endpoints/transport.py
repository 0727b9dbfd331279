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


class HttpReply:
    """An answer whose body is still to be read: what of azure-core's responses calls use."""

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
    """Sends over a session that is somebody else's; the caller has the deadline."""

    def __init__(self, session: aiohttp.ClientSession, connect_timeout: float) -> None:
        super().__init__(session=session, session_owner=False)
        self._pool = session
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)

    async def send(self, request: Any, **_options: Any) -> Any:
        """One request, without redirects; the body of its answer is left to be read."""
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
