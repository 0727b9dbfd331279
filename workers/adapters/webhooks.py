"""The way to the receivers of webhooks: one POST each, to an address that may be connected to."""

import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import aiohttp

from schemas.webhooks import Reception
from workers.adapters.endpoints.hints import retry_after
from workers.ports import AddressRule

DEADLINE_SECONDS: Final = 10.0
"""Of one try, from the look-up of the name to the answer's headers."""


class AddressForbiddenError(OSError):
    """The receiver's name leads to an address that webhooks may not reach."""


@asynccontextmanager
async def connect_webhooks(
    deadline: float = DEADLINE_SECONDS,
) -> AsyncIterator["WebhookHttp"]:
    """The way to all receivers; nothing is connected yet."""
    async with AsyncExitStack() as stack:
        yield WebhookHttp(stack, deadline)


class WebhookHttp:
    """See `workers.ports.WebhookSender`. There is one client for each rule, made when it is due.

    A rule is asked when a socket is made, with the very address that is then connected to: a name
    that leads elsewhere the next time it is looked up gains nothing.
    """

    def __init__(self, stack: AsyncExitStack, deadline: float) -> None:
        self._stack = stack
        self._timeout = aiohttp.ClientTimeout(total=deadline)
        self._clients: dict[AddressRule, aiohttp.ClientSession] = {}

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, rule: AddressRule
    ) -> Reception:
        """Send a body once. Of an answer only its status counts, and when to come again."""
        client = self._clients.get(rule) or await self._connect(rule)
        sent = {"content-type": "application/json", **headers}
        try:
            async with client.post(url, data=body, headers=sent, allow_redirects=False) as answer:
                answer.close()  # its body may be endless
                # No other header is a request to come later: reset times are endpoints' quotas.
                asked = {"retry-after": answer.headers.get("retry-after", "")}
                return Reception(answer.status, retry_after(asked, "", now=time.time()))
        except (aiohttp.ClientError, OSError, ValueError) as error:  # of a name that cannot be one
            return Reception(None, why=_why(error))

    async def _connect(self, rule: AddressRule) -> aiohttp.ClientSession:
        def allowed(info: Any) -> socket.socket:
            family, kind, protocol, _, address = info
            if not rule.allows(address[0]):
                raise AddressForbiddenError("address not allowed")
            return socket.socket(family, kind, protocol)

        client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                socket_factory=allowed, force_close=True, use_dns_cache=False, limit=0
            ),
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"user-agent": "phi3-batch-worker"},
        )
        self._clients[rule] = client
        return await self._stack.enter_async_context(client)


def _why(error: Exception) -> str:
    """What went wrong, without the address: it may hold a secret of the receiver's."""
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted"
    if isinstance(error, aiohttp.ClientConnectorError):
        forbidden = isinstance(error.os_error, AddressForbiddenError)
        return "its address is not allowed" if forbidden else "it cannot be connected to"
    return f"the exchange broke off ({type(error).__name__})"
