"""`workers.ports.Blobs` over azure-storage-blob: one client and one connection pool a process.

The SDK repeats a call whose answer was lost; `asyncio.timeout` bounds the call with its repeats.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import IO, Any

from azure.core import MatchConditions
from azure.core.async_paging import AsyncItemPaged
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import HttpResponseError, ResourceExistsError
from azure.storage.blob import (
    BlobBlock,
    BlobProperties,
    ContentSettings,
)
from azure.storage.blob.aio import BlobLeaseClient, BlobServiceClient

from workers.adapters.block_copies import BlockCopies
from workers.adapters.links import Links
from workers.adapters.pieces import Parts, Pieces
from workers.adapters.storage_client import blob_clients, open_client
from workers.adapters.storage_errors import (
    BULK_SECONDS,
    BULK_SILENCE_SECONDS,
    deadline,
    path_of,
)
from workers.ports import BlobInfo, BlobRef, Stored
from workers.ports.errors import (
    BlobChanged,
    BlobExists,
    BlobMissing,
    LeaseHeld,
    LeaseLost,
    Unavailable,
)

# A lease is judged lost 28 s after its last renewal: one must fail in time for another.
LEASE_SECONDS = 10.0
_LEASE_OPTIONS: dict[str, Any] = {"retry_total": 1, "read_timeout": 4.0}

APPEND_LIMIT = 4 * 1024 * 1024
_READS = 3
# The SDK holds up to 8 MiB of what is larger than this, and 16 shards may end at a time.
_LARGE_UPLOAD = 1024 * 1024
_UPLOADS = 4

_log = logging.getLogger(__name__)


@asynccontextmanager
async def connect_blobs(
    connection: str | None = None,
    service_uri: str | None = None,
    credential: AsyncTokenCredential | None = None,
) -> AsyncIterator["AzureBlobs"]:
    """Blob Storage as `open_client` reaches it; no call is made yet."""
    async with open_client(connection, service_uri, credential) as service:
        yield AzureBlobs(service, credential)


class AzureBlobs:
    """Blob Storage; see `Blobs` and `Transfers` of `workers.ports` for what each call promises."""

    def __init__(
        self, service: BlobServiceClient, credential: AsyncTokenCredential | None = None
    ) -> None:
        self._service = service
        self._uploads = asyncio.Semaphore(_UPLOADS)
        self._blob = blob_clients(service)
        self._copies = BlockCopies(service, self._blob, credential)
        self._links = Links(service, credential)

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
                parts = Parts()
                sink: Any = parts  # the SDK takes whatever can be written to, typed as a file
                await download.readinto(sink)
            except HttpResponseError as error:
                if error.status_code not in (412, 416):
                    raise
                changed = error.status_code == 412
            else:
                return b"".join(parts)
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
        length = len(data) if isinstance(data, bytes) else data.seek(0, os.SEEK_END)
        if not isinstance(data, bytes):
            data.seek(0)
        turn = self._uploads if length > _LARGE_UPLOAD else contextlib.nullcontext()
        async with turn, deadline(ref, BlobExists, BULK_SECONDS):
            answer = await self._blob(ref).upload_blob(
                data,
                # Else the SDK asks for a file descriptor, and what is in memory goes to disk.
                length=length,
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

    async def delete(self, ref: BlobRef, etag: str | None = None) -> None:
        """Remove a blob, if it is there; one that must still be at `etag` has to be (If-Match)."""
        try:
            async with deadline(ref, BlobChanged):
                await self._blob(ref).delete_blob(delete_snapshots="include", **_if_match(etag))
        except BlobMissing:
            # Which of the two a condition on what is gone meets is not documented.
            if etag is not None:
                raise BlobChanged(f"The blob to delete is gone: {path_of(ref)}") from None
            _log.debug("nothing to delete at %s", path_of(ref))

    async def list(
        self, container: str, prefix: str = "", *, start: str | None = None, page: int | None = None
    ) -> AsyncIterator[BlobInfo]:
        """Blobs below a prefix, by name, with metadata."""
        client = self._service.get_container_client(container)
        items = client.list_blobs(
            prefix, include=["metadata"], start_from=start, results_per_page=page
        )
        async for each in _pages(container, items):
            for found in each:
                yield _info(BlobRef(container, found.name), found)

    async def create_append(self, ref: BlobRef) -> None:
        """Make an empty append blob that must not exist."""
        async with deadline(ref, BlobExists):
            await self._blob(ref).create_append_blob(match_condition=MatchConditions.IfMissing)

    async def append(self, ref: BlobRef, data: bytes) -> None:
        """Add at most 4 MiB at the end, in one piece; empty data makes no call."""
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
        """Give a lease back, if it is still held."""
        try:
            async with deadline(ref, LeaseLost, LEASE_SECONDS):
                await self._lease(ref, lease_id).release(**_LEASE_OPTIONS)
        except (LeaseLost, BlobMissing):
            _log.debug("the lease of %s was lost before its release", path_of(ref))

    async def stage_from(self, ref: BlobRef, block_id: str, source: BlobRef) -> None:
        """Stage a whole blob as one block of another (Put Block From URL, else streamed)."""
        await self._copies.stage(ref, block_id, source)

    async def commit(
        self,
        ref: BlobRef,
        block_ids: Sequence[str],
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/jsonl",
    ) -> None:
        """Make a blob that must not exist of staged blocks, in this order."""
        async with deadline(ref, BlobExists, BULK_SECONDS):
            await self._blob(ref).commit_block_list(
                [BlobBlock(block_id=block_id) for block_id in block_ids],
                metadata=dict(metadata or {}),
                content_settings=ContentSettings(content_type=content_type),
                match_condition=MatchConditions.IfMissing,
                read_timeout=BULK_SILENCE_SECONDS,
            )

    async def stage(self, ref: BlobRef, block_id: str, data: bytes | memoryview) -> None:
        """Stage bytes as a block of a blob."""
        async with deadline(ref, BlobChanged, BULK_SECONDS):
            pieces: Any = Pieces(data)  # the SDK takes asynchronous iterables, untyped
            await self._blob(ref).stage_block(
                block_id, pieces, length=len(data), read_timeout=BULK_SILENCE_SECONDS
            )

    async def staged(self, ref: BlobRef) -> Mapping[str, int]:
        """The sizes of the blocks that are staged for a blob, by their ids."""
        try:
            async with deadline(ref, BlobChanged):
                _, staged = await self._blob(ref).get_block_list("uncommitted")
        except BlobMissing:
            return {}
        return {block.id: block.size for block in staged}

    async def link(self, ref: BlobRef, seconds: float, filename: str) -> str:
        """A URL at which anybody may read a blob for so long: see `workers.ports.Transfers`."""
        return await self._links.link(ref, seconds, filename)

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
