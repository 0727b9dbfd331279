"""One call to an endpoint, from an OpenAI-shaped body to an Outcome.

Whatever the endpoint does, the answer is an `Outcome`; only cancellation and bugs are raised.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

import aiohttp
import orjson
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseTimeoutError,
)
from azure.core.pipeline.policies import UserAgentPolicy
from azure.core.rest import AsyncHttpResponse

from schemas.deployments import Deployment, Task
from schemas.outcomes import Outcome
from workers.adapters.endpoints.answers import answer, choices_of, inputs_of, unusable
from workers.adapters.endpoints.contract import Contract, Unsupported
from workers.adapters.endpoints.refusals import (
    NO_SUCH_PATH,
    TASK_UNSUPPORTED,
    refusal,
    reported,
    task_unsupported,
)
from workers.adapters.endpoints.streaming import Fold, Malformed
from workers.adapters.endpoints.transport import EndpointRequest
from workers.adapters.endpoints.vectors import parsed_vectors
from workers.ports import EndpointInfo

USER_AGENT = "phi3-batch-worker"

CONNECT_FAILED = "connect_failed"

INFO_TIMEOUT = 10.0
"""Seconds that an endpoint has to say what it is."""

LARGE_ANSWER = 1024 * 1024

LARGEST_ANSWER = 64 * 1024 * 1024
"""Bytes of one answer. 2,048 vectors of 1,536 numbers are about 40 MB of JSON."""


class Client(Protocol):
    """What sends a request: an azure-ai-inference client, or the azure-core pipeline it is of."""

    def send_request(
        self, request: Any, *, stream: bool = False, **kwargs: Any
    ) -> Awaitable[AsyncHttpResponse]:
        """One request without retries; the body is read by the caller if `stream`."""


class Credentials(Protocol):
    """The key of a deployment, where it has one."""

    def headers(self) -> Mapping[str, str]:
        """The headers that the next request carries."""

    def renew(self, refused: Mapping[str, str]) -> bool:
        """Look for a newer key after a 401 to the headers `refused`; gives whether there is one."""


class _TooLarge(Exception):
    """The answer is larger than LARGEST_ANSWER."""


class HttpEndpoint:
    """An `Endpoint` (workers.ports) over HTTP, in the contract it is given."""

    def __init__(
        self,
        deployment: Deployment,
        contract: Contract,
        client: Client,
        credentials: Credentials,
        *,
        options: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._deployment = deployment
        self._contract = contract
        self._client = client
        self._credentials = credentials
        self._options = dict(options or {})
        self._clock = clock
        self._done: set[Task] = set()
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            # With what AZURE_HTTP_USER_AGENT adds: who of many it was, in the endpoint's own logs.
            "User-Agent": UserAgentPolicy(USER_AGENT).user_agent,
            **contract.headers,
            **deployment.headers,
        }

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        """One call under the deployment's total deadline, as the port promises."""
        outcome = await self._ask(task, body)
        if outcome.kind == "ok":
            self._done.add(task)
        elif outcome.code == NO_SUCH_PATH and self._done and task not in self._done:
            # Servers are set up for chat and no more: that must not stop their chat.
            outcome = task_unsupported(outcome)
        return outcome

    async def info(self) -> EndpointInfo | None:
        """What the endpoint says of itself; None where it cannot or will not say."""
        if self._contract.info_url is None:
            return None
        try:
            async with asyncio.timeout(min(INFO_TIMEOUT, self._deployment.timeout)):
                response = await self._send("GET", self._contract.info_url, None)
                async with response:
                    raw = await _read(response)
        except (TimeoutError, AzureError, aiohttp.ClientError, OSError, _TooLarge):
            return None
        return self._contract.read_info(_parsed(raw)) if response.status_code == 200 else None

    async def _ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        url = self._contract.url(task)
        if url is None:
            kind = self._deployment.kind
            return _not_sent(TASK_UNSUPPORTED, f"endpoints of kind {kind!r} cannot do {task}")
        try:
            content = orjson.dumps(self._contract.encode(task, body))
        except Unsupported as error:
            return _not_sent("unsupported_parameter", str(error))
        except TypeError:
            return _not_sent("unencodable", "the request holds what JSON in UTF-8 cannot carry")
        try:
            async with asyncio.timeout(self._deployment.timeout):
                response = await self._send("POST", url, content)
                async with response:
                    return await self._outcome(task, body, response)
        except (TimeoutError, AzureError, aiohttp.ClientError, OSError) as error:
            return _failure(error)

    async def _send(self, method: str, url: str, content: bytes | None) -> AsyncHttpResponse:
        """Send, and once more if the key was refused and a newer one is there."""
        keys = self._credentials.headers()
        response = await self._send_with(keys, method, url, content)
        if response.status_code != 401 or not self._credentials.renew(keys):
            return response
        await response.close()
        return await self._send_with(self._credentials.headers(), method, url, content)

    async def _send_with(
        self, keys: Mapping[str, str], method: str, url: str, content: bytes | None
    ) -> AsyncHttpResponse:
        request = EndpointRequest(method, url, content, {**self._headers, **keys})
        return await self._client.send_request(request, stream=True, **self._options)

    async def _outcome(
        self, task: Task, body: Mapping[str, Any], response: AsyncHttpResponse
    ) -> Outcome:
        status, headers = response.status_code, response.headers
        if not 200 <= status < 300:
            return refusal(status, headers, await _error_in(response), self._clock())
        try:
            if _is_stream(headers):
                return await _folded(task, body, response)
            parsed = _answer(task, await _read(response))
        except _TooLarge:
            what = f"The answer is larger than {LARGEST_ANSWER >> 20} MiB"
            return unusable("answer_too_large", what, status, headers)
        if isinstance(parsed, dict):
            parsed = self._contract.decode(parsed)
        return answer(task, status, headers, parsed, inputs_of(task, body))


async def _error_in(response: AsyncHttpResponse) -> Any:
    """The body of a refusal, if it can be had: the status alone tells most."""
    try:
        return _parsed(await _read(response))
    except (AzureError, aiohttp.ClientError, OSError, _TooLarge):
        return None


def _is_stream(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith("text/event-stream")


async def _folded(task: Task, body: Mapping[str, Any], response: AsyncHttpResponse) -> Outcome:
    """The outcome of a stream of server-sent events."""
    status, headers = response.status_code, response.headers
    fold = Fold(choices_of(body))
    try:
        async for piece in _pieces(response):
            fold.feed(piece)
        fold.close()
    except Malformed:
        return unusable("unreadable_answer", "The stream is malformed", status, headers)
    except (AzureError, aiohttp.ClientError, OSError):
        if not fold.whole and fold.error is None:
            return unusable("truncated_stream", "The stream was cut off", status, headers)
    if fold.error is not None:
        return reported(status, headers, fold.error)
    if not fold.whole:
        return unusable("truncated_stream", "The stream ended early", status, headers)
    return answer(task, status, headers, fold.body(), None)


async def _read(response: AsyncHttpResponse) -> bytes | bytearray:
    """The whole body; in one go where it is short, into its place where its length is told."""
    headers = response.headers
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > LARGEST_ANSWER:
        raise _TooLarge
    told = int(length) if length.isdigit() and "content-encoding" not in headers else None
    if told is not None and told < LARGE_ANSWER:
        return await response.read()
    # Pieces that are joined, and a body that grows, would be twice the answer for a moment.
    body, size = bytearray(told or 0), 0
    async for piece in _pieces(response):
        body[size : size + len(piece)] = piece
        size += len(piece)
    return body


async def _pieces(response: AsyncHttpResponse) -> AsyncIterator[bytes]:
    size = 0
    # aiohttp has unpacked the body already: iter_bytes would try it again.
    async for piece in response.iter_raw():
        size += len(piece)
        if size > LARGEST_ANSWER:
            raise _TooLarge
        yield piece


def _answer(task: Task, raw: bytes | bytearray) -> Any:
    vectors = parsed_vectors(raw) if task in ("embeddings", "image-embeddings") else None
    return _parsed(raw) if vectors is None else vectors


def _parsed(raw: bytes | bytearray) -> Any:
    try:
        return orjson.loads(raw)
    except ValueError:
        return None


def _not_sent(code: str, what: str) -> Outcome:
    message = f"The row was not sent: {what}"
    return Outcome(kind="bad_request", code=code, message=message, billed=False)


def _failure(error: BaseException) -> Outcome:
    """What an error in place of an answer means; texts of errors may hold URLs and are dropped.

    azure-core raises ServiceRequestError ("no request was sent") also for connections lost later:
    only an error in connecting proves that nothing ran.
    """
    inner = getattr(error, "inner_exception", None) or error
    if isinstance(error, ClientAuthenticationError):
        what = "No token could be had for the endpoint: check the identity and its role"
        return Outcome("auth", code="token_unavailable", message=what, billed=False)
    if isinstance(error, ServiceRequestTimeoutError) or isinstance(
        inner, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError
    ):
        what = "The endpoint could not be reached: check the url and the network"
        return Outcome("transient", code=CONNECT_FAILED, message=what, billed=False)
    if isinstance(error, TimeoutError | ServiceResponseTimeoutError):
        what = "No whole answer came in time: ask the row again or raise the timeout"
        return Outcome("timeout", code="deadline", message=what, billed=True)
    if isinstance(error, ServiceRequestError) and (
        isinstance(inner, aiohttp.InvalidURL) or not isinstance(inner, aiohttp.ClientError)
    ):
        what = "The request could not be sent: check the deployment's url and headers"
        return Outcome("transient", code="not_sent", message=what, billed=False)
    return unusable("connection_lost", "The connection broke before the answer was whole", None)
