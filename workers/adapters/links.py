"""Links that let anybody read one blob for minutes: signed by the account's key, or an identity."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from azure.core.credentials_async import AsyncTokenCredential
from azure.storage.blob import BlobSasPermissions, UserDelegationKey, generate_blob_sas
from azure.storage.blob.aio import BlobServiceClient

from workers.adapters.storage_errors import deadline
from workers.ports import BlobRef
from workers.ports.errors import BlobChanged, StorageError

# A delegation key lives for seven days at most, and is asked for again within its last hour.
_KEY_VALIDITY = timedelta(days=1)
_KEY_LEAST = timedelta(hours=1)
# Clocks differ: a link that is not valid yet is refused as if it were none.
_EARLIER = timedelta(minutes=5)


class Links:
    """Signs links; the delegation key is kept for a day."""

    def __init__(self, service: BlobServiceClient, credential: AsyncTokenCredential | None) -> None:
        self._service = service
        self._credential = credential
        self._key: UserDelegationKey | None = None
        self._until = datetime.min.replace(tzinfo=UTC)

    async def link(self, ref: BlobRef, seconds: float, filename: str) -> str:
        """See `workers.ports.Transfers`."""
        now = datetime.now(UTC)
        blob = self._service.get_blob_client(ref.container, ref.name)
        signature = generate_blob_sas(
            str(self._service.account_name),
            ref.container,
            ref.name,
            permission=BlobSasPermissions(read=True),
            start=now - _EARLIER,
            expiry=now + timedelta(seconds=seconds),
            protocol="https" if blob.url.startswith("https:") else None,
            content_disposition=f"attachment; filename*=UTF-8''{quote(filename, safe='')}",
            content_type="application/octet-stream",
            **await self._signer(now),
        )
        return f"{blob.url}?{signature}"

    async def _signer(self, now: datetime) -> dict[str, Any]:
        if self._credential is None:
            key = getattr(self._service.credential, "account_key", None)
            if key is None:
                raise StorageError("a link needs the account's key or an identity")
            return {"account_key": key}
        if self._key is None or self._until - now < _KEY_LEAST:
            until = now + _KEY_VALIDITY
            async with deadline("a delegation key", BlobChanged):
                self._key = await self._service.get_user_delegation_key(now - _EARLIER, until)
            self._until = until
        return {"user_delegation_key": self._key}
