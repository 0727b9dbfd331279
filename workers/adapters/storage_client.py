"""The client of Blob Storage: how it is reached, and how long it tries."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

import aiohttp
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.pipeline.transport import AioHttpTransport
from azure.storage.blob.aio import BlobClient, BlobServiceClient, ExponentialRetry

from workers.ports import BlobRef
from workers.ports.errors import SettingsError

# Seconds of silence on a connection before the SDK gives up on an answer.
SILENCE_SECONDS = 12.0
_SINGLE_GET = 32 * 1024 * 1024
# What is larger goes in blocks of 4 MiB, for the SDK reads a whole put into memory.
_SINGLE_PUT = 8 * 1024 * 1024
# Bytes taken off a connection at a time; azure-core's default for a transport of one's own is
# 4 KiB.
_BLOCK_BYTES = 256 * 1024
# 32 KB each. Making one costs 6% of a call's processor time, and leaves a cycle to be collected.
_CLIENTS = 64


@asynccontextmanager
async def open_client(
    connection: str | None = None,
    service_uri: str | None = None,
    credential: AsyncTokenCredential | None = None,
) -> AsyncIterator[BlobServiceClient]:
    """A client by connection string, or by `service_uri` and `credential`; no call is made yet.

    `connection` is any storage connection string (`UseDevelopmentStorage=true` too);
    `service_uri` is `https://{account}.blob.core.windows.net`, as the Functions setting
    `{name}__blobServiceUri` has it. The credential stays the caller's to close.
    """
    # Callers bound what they have in flight; a limit here would only let deadlines run out in
    # a queue. Nothing is decompressed: bytes are counted and ranged as they are stored.
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        ) as session,
        _client(connection, service_uri, credential, session) as service,
    ):
        yield service


def blob_clients(service: BlobServiceClient) -> Callable[[BlobRef], BlobClient]:
    """What gives the client of a blob: those that were used last are kept."""

    @lru_cache(maxsize=_CLIENTS)
    def client(ref: BlobRef) -> BlobClient:
        return service.get_blob_client(ref.container, ref.name)

    return client


def _client(
    connection: str | None,
    service_uri: str | None,
    credential: AsyncTokenCredential | None,
    session: aiohttp.ClientSession,
) -> BlobServiceClient:
    transport = AioHttpTransport(
        session=session,
        use_env_settings=False,
        connection_timeout=5,
        read_timeout=SILENCE_SECONDS,
        connection_data_block_size=_BLOCK_BYTES,
    )
    retries = ExponentialRetry(
        initial_backoff=0, increment_base=2, retry_total=2, random_jitter_range=1
    )
    options: dict[str, Any] = {
        "transport": transport,
        "use_env_settings": False,
        "retry_policy": retries,
        "max_single_get_size": _SINGLE_GET,
        "max_single_put_size": _SINGLE_PUT,
    }
    try:
        if connection:
            return BlobServiceClient.from_connection_string(connection, **options)
        if service_uri and credential:
            return BlobServiceClient(service_uri, credential, **options)
    except ValueError:
        # Not chained: the string holds a key.
        raise SettingsError("The storage connection string or URI is malformed.") from None
    raise SettingsError("Storage needs a connection string, or a blob service URI and an identity.")
