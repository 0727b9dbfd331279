"""The stored documents of files, creations and what is due: what lies where."""

from collections.abc import AsyncIterator, Sequence
from typing import Final

from schemas.files import Creation, Due, FileRecord, UploadRecord, due_name
from workers.files.names import content_name
from workers.jobs.store import JobStore, Versioned
from workers.ports import BlobRef
from workers.ports.errors import BlobExists
from workers.ports.together import all_of

CREATION_SECONDS: Final = 86400.0
"""For so long it is remembered which job a request has made."""


class FileStore:
    """Documents of files. Errors are those of the blob primitives and of `Documents`."""

    def __init__(self, documents: JobStore, *, files_container: str) -> None:
        self._documents = documents
        self.blobs = documents.blobs
        self._container = documents.state_container
        self._files_container = files_container

    # -- files

    def content(self, tenant: str, key: str) -> BlobRef:
        """Where an uploaded file's content lies."""
        return BlobRef(self._files_container, content_name(tenant, key))

    async def write(self, tenant: str, key: str, data: bytes) -> str:
        """Write a new file's content; gives its ETag."""
        ref = self.content(tenant, key)
        try:
            return await self.blobs.create(ref, data, content_type="application/jsonl")
        except BlobExists:
            # The key is nobody else's: it is one's own success, whose answer was lost.
            return (await self.blobs.head(ref)).etag

    def _record(self, tenant: str, key: str) -> BlobRef:
        return BlobRef(self._container, f"files/{tenant}/{key}")

    async def add(self, record: FileRecord) -> FileRecord:
        """Have a file be named from now on; gives the record that stands."""
        return await self._documents.create_document(
            self._record(record.tenant, record.key), record
        )

    async def file(self, tenant: str, key: str, now: float) -> FileRecord | None:
        """A file of a tenant; None where it has none of that key, or it has expired."""
        record = await self._documents.find(FileRecord, self._record(tenant, key))
        return record if record is not None and _lives(record, now) else None

    async def remove(self, tenant: str, key: str) -> None:
        """Have a file be named no more; its content stays until it is due."""
        await self.blobs.delete(self._record(tenant, key))

    async def keys(self, tenant: str, after: str | None = None) -> AsyncIterator[str]:
        """The keys of a tenant's files, or of those behind one of them, newest first."""
        folder = self._record(tenant, "")
        start = None if after is None else folder.name + after
        async for info in self.blobs.list(folder.container, folder.name, start=start):
            if info.ref.name != start:
                yield info.ref.name.removeprefix(folder.name)

    async def files(self, tenant: str, keys: Sequence[str], now: float) -> list[FileRecord]:
        """Those of these files that stand still, in this order."""
        found = await all_of(lambda key: self.file(tenant, key, now), keys)
        return [record for record in found if record is not None]

    # -- uploads

    def _upload(self, tenant: str, key: str) -> BlobRef:
        return BlobRef(self._container, f"uploads/{tenant}/{key}")

    async def begin(self, upload: UploadRecord) -> UploadRecord:
        """Store a new upload; gives the one that stands."""
        return await self._documents.create_document(
            self._upload(upload.tenant, upload.key), upload
        )

    async def upload(self, tenant: str, key: str) -> Versioned[UploadRecord] | None:
        """An upload of a tenant, or None."""
        return await self._documents.held(UploadRecord, self._upload(tenant, key))

    async def end(self, upload: UploadRecord, etag: str) -> bool:
        """Swap an upload, and return whether it still stood as it was read."""
        ref = self._upload(upload.tenant, upload.key)
        return await self._documents.replace(ref, upload, etag) is not None

    async def drop(self, tenant: str, key: str) -> None:
        """Remember an upload no more."""
        await self.blobs.delete(self._upload(tenant, key))

    # -- creations

    def _creation(self, tenant: str, digest: str) -> BlobRef:
        return BlobRef(self._container, f"creations/{tenant}/{digest}")

    async def creation(self, tenant: str, digest: str) -> Creation | None:
        """The latest request of a kind."""
        return await self._documents.find(Creation, self._creation(tenant, digest))

    async def create(self, tenant: str, digest: str, creation: Creation) -> Creation:
        """Remember a request where none of its kind is remembered; gives the one that stands."""
        return await self._documents.create_document(self._creation(tenant, digest), creation)

    async def renew(self, tenant: str, digest: str, creation: Creation) -> Creation:
        """Remember a request in the place of an earlier one; gives the one that stands."""
        ref = self._creation(tenant, digest)
        held = await self._documents.held(Creation, ref)
        if held is None:
            return await self.create(tenant, digest, creation)
        replaced = await self._documents.replace(ref, creation, held.etag)
        if replaced is not None:
            return replaced.document
        return await self.creation(tenant, digest) or creation

    async def forget(self, tenant: str, digest: str) -> None:
        """Remember a request no more."""
        await self.blobs.delete(self._creation(tenant, digest))

    # -- what is due

    async def owe(self, due: Due) -> None:
        """Have something be forgotten at its time."""
        ref = BlobRef(self._container, f"due/{due_name(due)}")
        await self._documents.create_document(ref, due)

    async def due(self, now: float) -> AsyncIterator[Due]:
        """What is to be forgotten by now, the earliest first."""
        folder, until = "due/", f"due/{round(now * 1000) + 1:013d}"
        async for info in self.blobs.list(self._container, folder):
            if info.ref.name > until:
                return
            if (found := await self._documents.find(Due, info.ref)) is not None:
                yield found

    async def settle(self, due: Due) -> None:
        """It is forgotten."""
        await self.blobs.delete(BlobRef(self._container, f"due/{due_name(due)}"))


def _lives(record: FileRecord, now: float) -> bool:
    return record.expires is None or now < record.expires
