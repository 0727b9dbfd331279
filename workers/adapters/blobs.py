"""`workers.ports.Blobs` over azure-storage-blob: one client and one connection pool a process.

The SDK repeats a call whose answer was lost; `asyncio.timeout` bounds the call with its repeats.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import IO, Any

import aiohttp
from azure.core import MatchConditions
from azure.core.async_paging import AsyncItemPaged
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.core.pipeline.transport import AioHttpTransport
from azure.storage.blob import (
    BlobBlock,
    BlobProperties,
    BlobSasPermissions,
    ContentSettings,
    generate_blob_sas,
)
from azure.storage.blob.aio import BlobClient, BlobLeaseClient, BlobServiceClient, ExponentialRetry

from workers.adapters.storage_errors import deadline, path_of
from workers.errors import (
    BlobChanged,
    BlobExists,
    BlobMissing,
    LeaseHeld,
    LeaseLost,
    SettingsError,
    StorageError,
    Unavailable,
)
from workers.ports import BlobInfo, BlobRef, Stored

# A lease is judged lost 28 s after its last renewal: one must fail in time for another.
LEASE_SECONDS = 10.0
BULK_SECONDS = 150.0
_LEASE_OPTIONS: dict[str, Any] = {"retry_total": 1, "read_timeout": 4.0}
# Seconds of silence on a connection before the SDK gives up on an answer.
SILENCE_SECONDS = 12.0
BULK_SILENCE_SECONDS = 60.0

APPEND_LIMIT = 4 * 1024 * 1024
_SINGLE_GET = 32 * 1024 * 1024
_SINGLE_PUT = 64 * 1024 * 1024
# Bytes taken off a connection at a time; azure-core's default for a transport of one's own is
# 4 KiB.
_BLOCK_BYTES = 256 * 1024
_READS = 3
_SAS_VALIDITY = timedelta(hours=1)
_STORAGE_SCOPE = "https://storage.azure.com/.default"

_log = logging.getLogger(__name__)


@asynccontextmanager
async def connect_blobs(
    connection: str | None = None,
    service_uri: str | None = None,
    credential: AsyncTokenCredential | None = None,
) -> AsyncIterator["AzureBlobs"]:
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
        _service(connection, service_uri, credential, session) as service,
    ):
        yield AzureBlobs(service, credential)


def _service(
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


class AzureBlobs:
    """Blob Storage; see `workers.ports.Blobs` for what each call promises."""

    def __init__(
        self, service: BlobServiceClient, credential: AsyncTokenCredential | None = None
    ) -> None:
        self._service = service
        self._credential = credential
        self._copies_by_url = True
        self._refusals: set[tuple[Any, Any]] = set()

    async def ensure_containers(self, names: Iterable[str]) -> None:
        """Make containers that are not there: for local use, where nothing deploys them."""
        for name in names:
            async with deadline(name, BlobExists):
                try:
                    await self._service.create_container(name)
                except ResourceExistsError:
                    _log.debug("container %s exists", name)

    async def head(self, ref: BlobRef) -> BlobInfo:
        """Properties and metadata of a blob."""
        async with deadline(ref, BlobChanged):
            return _info(ref, await self._blob(ref).get_blob_properties())

    async def read(self, ref: BlobRef) -> Stored:
        """A whole (small) blob."""
        # The SDK's own repeat of a call that was cut off tells its hook nothing, so there is no
        # clock to be read from it; the blob is read again instead.
        for _ in range(_READS):
            stored = await self._read(ref)
            if stored is not None:
                return stored
        raise Unavailable(f"Blob Storage cannot be reached for {path_of(ref)}: connections break")

    async def _read(self, ref: BlobRef) -> Stored | None:
        answered: dict[str, str] = {}
        async with deadline(ref, BlobChanged, BULK_SECONDS):
            download = await self._blob(ref).download_blob(
                decompress=False,
                raw_response_hook=lambda answer: answered.update(
                    {name.lower(): value for name, value in answer.http_response.headers.items()}
                ),
            )
            data = await download.readall()
        if "date" not in answered:
            return None
        properties = download.properties
        return Stored(
            data=data,
            etag=_unquoted(properties.etag),
            last_modified=properties.last_modified.timestamp(),
            server_time=parsedate_to_datetime(answered["date"]).timestamp(),
        )

    async def read_range(
        self, ref: BlobRef, offset: int, length: int, *, etag: str | None = None
    ) -> bytes:
        """Bytes [offset, offset + length), fewer at the end; pinned to `etag` where given."""
        if length == 0:
            return b""
        async with deadline(ref, BlobChanged, BULK_SECONDS):
            try:
                download = await self._blob(ref).download_blob(
                    offset, length, decompress=False, **_if_match(etag)
                )
                data: bytes = await download.readall()
            except HttpResponseError as error:
                if error.status_code not in (412, 416):
                    raise
                changed = error.status_code == 412
            else:
                return data
        # Changed, gone, or read behind its end? Whether the service looks at the condition
        # before it looks for the blob and at the range is not documented.
        now = await self.head(ref)
        if changed or etag not in (None, now.etag):
            raise BlobChanged(f"The blob is not what it was when it was read: {path_of(ref)}")
        return b""

    async def create(
        self,
        ref: BlobRef,
        data: bytes | IO[bytes],
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> str:
        """Write a blob that must not exist (If-None-Match `*`); gives its ETag."""
        if not isinstance(data, bytes):
            data.seek(0)
        async with deadline(ref, BlobExists, BULK_SECONDS):
            answer = await self._blob(ref).upload_blob(
                data,
                overwrite=False,
                metadata=dict(metadata or {}),
                content_settings=ContentSettings(content_type=content_type),
            )
        return _unquoted(answer["etag"])

    async def replace(self, ref: BlobRef, data: bytes, etag: str) -> str:
        """Write a blob that must still be at `etag` (If-Match); gives the new ETag."""
        async with deadline(ref, BlobChanged, BULK_SECONDS):
            answer = await self._blob(ref).upload_blob(
                data,
                overwrite=True,
                content_settings=ContentSettings(content_type="application/json"),
                **_if_match(etag),
            )
        return _unquoted(answer["etag"])

    async def delete(self, ref: BlobRef) -> None:
        """Remove a blob; one that is not there is fine."""
        try:
            async with deadline(ref, BlobChanged):
                await self._blob(ref).delete_blob(delete_snapshots="include")
        except BlobMissing:
            _log.debug("nothing to delete at %s", path_of(ref))

    async def list(self, container: str, prefix: str = "") -> AsyncIterator[BlobInfo]:
        """Blobs below a prefix, by name, with metadata."""
        client = self._service.get_container_client(container)
        async for page in _pages(container, client.list_blobs(prefix, include=["metadata"])):
            for found in page:
                yield _info(BlobRef(container, found.name), found)

    async def children(self, container: str, prefix: str) -> AsyncIterator[str]:
        """Names of the virtual folders right below a prefix (which ends in `/`), by name."""
        client = self._service.get_container_client(container)
        async for page in _pages(container, client.walk_blobs(prefix, delimiter="/")):
            for found in page:
                if not isinstance(found, BlobProperties):
                    yield found.name.removeprefix(prefix).removesuffix("/")

    async def create_append(self, ref: BlobRef) -> None:
        """Make an empty append blob that must not exist."""
        async with deadline(ref, BlobExists):
            await self._blob(ref).create_append_blob(match_condition=MatchConditions.IfMissing)

    async def append(self, ref: BlobRef, data: bytes) -> None:
        """Add at most 4 MiB at the end, in one piece; nothing at all is no call."""
        if len(data) > APPEND_LIMIT:
            raise ValueError(f"An append takes at most {APPEND_LIMIT} bytes, not {len(data)}.")
        if data:
            async with deadline(ref, BlobChanged):
                await self._blob(ref).append_block(data, length=len(data))

    async def acquire_lease(self, ref: BlobRef, lease_id: str, seconds: int) -> None:
        """Take the lease of an existing blob; `lease_id` is a UUID, `seconds` 15 to 60."""
        async with deadline(ref, LeaseHeld, LEASE_SECONDS):
            await self._lease(ref, lease_id).acquire(seconds, **_LEASE_OPTIONS)

    async def renew_lease(self, ref: BlobRef, lease_id: str) -> None:
        """Prolong a lease by its own length."""
        try:
            async with deadline(ref, LeaseLost, LEASE_SECONDS):
                await self._lease(ref, lease_id).renew(**_LEASE_OPTIONS)
        except BlobMissing as error:
            raise LeaseLost(f"The lease went with its blob: {path_of(ref)}") from error

    async def release_lease(self, ref: BlobRef, lease_id: str) -> None:
        """Give a lease back; one that is lost already is fine."""
        try:
            async with deadline(ref, LeaseLost, LEASE_SECONDS):
                await self._lease(ref, lease_id).release(**_LEASE_OPTIONS)
        except (LeaseLost, BlobMissing):
            _log.debug("the lease of %s was lost before its release", path_of(ref))

    async def stage_from(self, ref: BlobRef, block_id: str, source: BlobRef) -> None:
        """Stage a whole blob as one block of another (Put Block From URL, else streamed)."""
        if self._copies_by_url:
            try:
                return await self._stage_by_url(ref, block_id, source)
            except StorageError as error:
                # Not worth telling refusals apart: streaming meets whatever is really wrong.
                self._tell(error)
        return await self._stage_streamed(ref, block_id, source)

    async def commit(
        self, ref: BlobRef, block_ids: Sequence[str], *, content_type: str = "application/jsonl"
    ) -> None:
        """Make a blob that must not exist of staged blocks, in this order."""
        async with deadline(ref, BlobExists, BULK_SECONDS):
            await self._blob(ref).commit_block_list(
                [BlobBlock(block_id=block_id) for block_id in block_ids],
                content_settings=ContentSettings(content_type=content_type),
                match_condition=MatchConditions.IfMissing,
                read_timeout=BULK_SILENCE_SECONDS,
            )

    async def _stage_by_url(self, ref: BlobRef, block_id: str, source: BlobRef) -> None:
        async with deadline(ref, BlobChanged, BULK_SECONDS):
            url, authorization = await self._source(source)
            await self._blob(ref).stage_block_from_url(
                block_id,
                url,
                source_authorization=authorization,
                read_timeout=BULK_SILENCE_SECONDS,
            )

    async def _stage_streamed(self, ref: BlobRef, block_id: str, source: BlobRef) -> None:
        async with deadline(source, BlobChanged, BULK_SECONDS):
            download = await self._blob(source).download_blob(decompress=False)
        async with deadline(ref, BlobChanged, BULK_SECONDS):
            chunks: Any = download.chunks()  # the SDK takes asynchronous iterables, untyped
            await self._blob(ref).stage_block(block_id, chunks, length=download.size)

    def _tell(self, refusal: StorageError) -> None:
        """Say once per kind why copies are streamed; a service that cannot is not asked again."""
        status, code = refusal.details.get("status"), refusal.details.get("code")
        if status == 501:
            self._copies_by_url = False
        if (status, code) not in self._refusals:
            self._refusals.add((status, code))
            _log.warning("no Put Block From URL (%s %s): streaming instead", status, code)

    async def _source(self, source: BlobRef) -> tuple[str, str | None]:
        """The URL the service can read a blob at, and the Authorization it needs for that."""
        blob = self._blob(source)
        if self._credential is not None:
            token = await self._credential.get_token(_STORAGE_SCOPE)
            return blob.url, f"Bearer {token.token}"
        key = getattr(self._service.credential, "account_key", None)
        if key is None:
            return blob.url, None  # made of a shared access signature: the URL has it
        signature = generate_blob_sas(
            str(self._service.account_name),
            source.container,
            source.name,
            account_key=key,
            permission=BlobSasPermissions(read=True),
            expiry=datetime.now(UTC) + _SAS_VALIDITY,
        )
        return f"{blob.url}?{signature}", None

    def _blob(self, ref: BlobRef) -> BlobClient:
        return self._service.get_blob_client(ref.container, ref.name)

    def _lease(self, ref: BlobRef, lease_id: str) -> BlobLeaseClient:
        return BlobLeaseClient(self._blob(ref), lease_id)


async def _pages(container: str, items: AsyncItemPaged[Any]) -> AsyncIterator[list[Any]]:
    """The pages of a listing, each under a deadline of its own."""
    pages = items.by_page()
    while True:
        async with deadline(container, BlobChanged):
            page = await anext(pages, None)
            if page is None:
                return
            found = [item async for item in page]
        yield found


def _info(ref: BlobRef, properties: BlobProperties) -> BlobInfo:
    modified = properties.last_modified.timestamp()
    created = properties.creation_time
    return BlobInfo(
        ref=ref,
        etag=_unquoted(properties.etag),
        size=properties.size,
        last_modified=modified,
        created=created.timestamp() if created else modified,
        metadata={key.lower(): value for key, value in (properties.metadata or {}).items()},
    )


def _if_match(etag: str | None) -> dict[str, Any]:
    if etag is None:
        return {}
    return {"etag": f'"{etag}"', "match_condition": MatchConditions.IfNotModified}


def _unquoted(etag: str | None) -> str:
    return (etag or "").strip('"')
