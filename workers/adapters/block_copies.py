"""One blob as a block of another: copied by the service where it can, else streamed."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.core.credentials_async import AsyncTokenCredential
from azure.storage.blob import BlobSasPermissions, generate_blob_sas
from azure.storage.blob.aio import BlobClient, BlobServiceClient

from workers.adapters.storage_errors import BULK_SECONDS, BULK_SILENCE_SECONDS, deadline
from workers.ports import BlobRef
from workers.ports.errors import BlobChanged, StorageError

_SAS_VALIDITY = timedelta(hours=1)
# It holds what a download takes at a time, up to 32 MiB.
_STREAMS = 1
_STORAGE_SCOPE = "https://storage.azure.com/.default"

_log = logging.getLogger(__name__)


class BlockCopies:
    """Stages blobs as blocks. A service without Put Block From URL is not asked for it again."""

    def __init__(
        self,
        service: BlobServiceClient,
        blob: Callable[[BlobRef], BlobClient],
        credential: AsyncTokenCredential | None,
    ) -> None:
        self._service = service
        self._blob = blob
        self._credential = credential
        self._by_url = True
        self._streams = asyncio.Semaphore(_STREAMS)
        self._refusals: set[tuple[Any, Any]] = set()

    async def stage(self, ref: BlobRef, block_id: str, source: BlobRef) -> None:
        """Stage a whole blob as one block of another."""
        if self._by_url:
            try:
                return await self._stage_by_url(ref, block_id, source)
            except StorageError as error:
                # Not worth telling refusals apart: streaming meets whatever is really wrong.
                self._tell(error)
        return await self._stage_streamed(ref, block_id, source)

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
        async with self._streams:
            async with deadline(source, BlobChanged, BULK_SECONDS):
                download = await self._blob(source).download_blob(decompress=False)
            async with deadline(ref, BlobChanged, BULK_SECONDS):
                chunks: Any = download.chunks()  # the SDK takes asynchronous iterables, untyped
                await self._blob(ref).stage_block(block_id, chunks, length=download.size)

    def _tell(self, refusal: StorageError) -> None:
        """Say once for each kind of refusal why copies are streamed."""
        status, code = refusal.details.get("status"), refusal.details.get("code")
        if status == 501:
            self._by_url = False
        if (status, code) not in self._refusals:
            self._refusals.add((status, code))
            _log.warning(
                "[PARTS_STREAMED] no Put Block From URL (%s %s): streaming instead", status, code
            )

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
