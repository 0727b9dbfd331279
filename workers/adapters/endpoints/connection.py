"""Deployments made ready to be called: one pool of connections, clients, keys and tokens.

`azure-ai-inference` is used through its public constructor arguments, without its policies for
retries, redirects, logging and tracing: retries are the dispatcher's, and redirects would carry
keys elsewhere. Replacing it touches `_client` only.
"""

import functools
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from azure.ai.inference.aio import ChatCompletionsClient
from azure.core import AsyncPipelineClient
from azure.core.credentials import AzureKeyCredential
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy

from schemas.deployments import LOOPBACK, Deployment, EndpointKind
from workers.adapters.endpoints.aml_score import AmlScore
from workers.adapters.endpoints.azure_openai import AzureOpenAI
from workers.adapters.endpoints.calling import Client, HttpEndpoint
from workers.adapters.endpoints.contract import Contract
from workers.adapters.endpoints.model_inference import ModelInference
from workers.adapters.endpoints.openai import OpenAI
from workers.adapters.endpoints.transport import PlainTransport
from workers.ports import Endpoint
from workers.ports.errors import SettingsError

CONNECT_TIMEOUT = 10.0
"""Seconds to reach an endpoint; what fails within them was certainly not billed."""

IDLE_SECONDS = 30.0
"""How long an idle connection is kept: below the idle time-outs of Azure's front ends."""

CONTRACTS: dict[EndpointKind, Callable[[Deployment], Contract]] = {
    "model-inference": ModelInference,
    "openai": OpenAI,
    "azure-openai": AzureOpenAI,
    "aml-score": AmlScore,
}

KeyOf = Callable[[str], str | None]


@asynccontextmanager
async def connect(
    deployments: Sequence[Deployment],
    key_of: KeyOf = os.environ.get,
    *,
    credential: AsyncTokenCredential | None = None,
    env_proxies: bool = False,
) -> AsyncIterator[Mapping[str, Endpoint]]:
    """The deployments' endpoints by name, usable until the context ends.

    `key_of` gives the value of a setting; it is asked once for each here, and again after a 401.
    `credential` is for `auth: entra` (default: azure-identity's DefaultAzureCredential).
    `env_proxies` lets HTTP_PROXY and its like decide the way. No connection is opened
    yet. Errors: `SettingsError` if a key is missing.
    """
    # Deployments may share a setting, and whoever asks a second time is given a newer key.
    first = functools.cache(key_of)
    keys = {
        each.name: _Key(each, CONTRACTS[each.kind](each), first, key_of) for each in deployments
    }
    missing = [key.problem for key in keys.values() if key.problem]
    if missing:
        raise SettingsError("\n".join(missing))
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(_session(env_proxies))
        if credential is None and any(each.auth == "entra" for each in deployments):
            credential = await stack.enter_async_context(_default_credential())
        endpoints: dict[str, Endpoint] = {}
        for each in deployments:
            key = keys[each.name]
            client = _client(each, key.contract, session, credential)
            endpoints[each.name] = HttpEndpoint(
                each, key.contract, client, key, options=_options(each)
            )
        yield endpoints


class _Key:
    """A deployment's key as headers, read from its setting."""

    def __init__(
        self, deployment: Deployment, contract: Contract, first: KeyOf, fresh: KeyOf
    ) -> None:
        self.contract = contract
        self._setting = deployment.key_setting if deployment.auth == "key" else None
        self._fresh = fresh
        self._headers: Mapping[str, str] = {}
        self.problem: str | None = None
        if self._setting is not None and not self._read(first):
            self.problem = (
                f"DEPLOYMENTS, deployment {deployment.name!r}, field 'key_setting': the setting "
                "that it names is missing, empty, or holds what no HTTP header can carry"
            )

    def headers(self) -> Mapping[str, str]:
        """The headers with the key as last read."""
        return self._headers

    def renew(self, refused: Mapping[str, str]) -> bool:
        """Read the key again, unless another call has done so since `refused` was sent."""
        if self._headers is refused and self._setting is not None:
            self._read(self._fresh)
        return self._headers != refused

    def _read(self, key_of: KeyOf) -> bool:
        key = (key_of(self._setting or "") or "").strip()
        if not key or not (key.isascii() and key.isprintable()):
            return False
        self._headers = self.contract.key_headers(key)
        return True


def _session(env_proxies: bool) -> aiohttp.ClientSession:
    """Concurrency is the dispatcher's to limit, so the pool has no limit of its own."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=IDLE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=env_proxies,
    )


def _default_credential() -> Any:
    # It is slow to import, and most deployments use keys.
    from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415

    return DefaultAzureCredential()


def _client(
    deployment: Deployment,
    contract: Contract,
    session: aiohttp.ClientSession,
    credential: AsyncTokenCredential | None,
) -> Client:
    transport = PlainTransport(session, CONNECT_TIMEOUT)
    policies: list[Any] = []
    if deployment.auth == "entra" and credential is not None:
        scope = deployment.scope or contract.scope
        policies.append(AsyncBearerTokenCredentialPolicy(credential, scope))
    if deployment.kind == "model-inference":
        # It insists on a credential, and with policies of our own it never looks at it.
        unused = AzureKeyCredential("unused")
        return ChatCompletionsClient(deployment.url, unused, transport=transport, policies=policies)
    return AsyncPipelineClient(deployment.url, transport=transport, policies=policies)


def _options(deployment: Deployment) -> dict[str, Any]:
    """azure-core sends no token over plain http; a stand-in on this machine may have it."""
    local = urlsplit(deployment.url).hostname in LOOPBACK
    return {"enforce_https": False} if deployment.auth == "entra" and local else {}
