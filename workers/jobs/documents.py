"""Stored documents of any kind: created once, or changed by compare-and-swap."""

import contextlib
from dataclasses import dataclass
from typing import IO, Any, Generic, TypeVar

import orjson
from pydantic import BaseModel

from schemas.jobs import NEWEST_VERSION, SCHEMA_VERSION
from workers.clock import ServiceClock
from workers.errors import BlobChanged, BlobExists, BlobMissing, NewerVersion, Unreadable
from workers.ports import BlobRef, Blobs, Stored

Document = TypeVar("Document", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Versioned(Generic[Document]):
    """A document as read, with the ETag that a swap has to meet."""

    document: Document
    etag: str
    last_modified: float


class Documents:
    """Stored documents. Errors are those of the blob primitives, `NewerVersion` and `Unreadable`.

    The clock hears the service's time with each document that is read.
    """

    def __init__(self, blobs: Blobs, clock: ServiceClock | None) -> None:
        self.blobs = blobs
        self._clock = clock

    async def read(self, ref: BlobRef) -> Stored:
        """A whole document; the clock hears the service's time with it."""
        if self._clock is None:
            return await self.blobs.read(ref)
        asked = self._clock()
        stored = await self.blobs.read(ref)
        self._clock.heard(stored.server_time, asked)
        return stored

    async def create_once(
        self, ref: BlobRef, data: bytes | IO[bytes], *, content_type: str
    ) -> bool:
        """Write a blob that must be written once; gives whether this call has written it.

        A 409 may be about one's own success whose answer was lost, so callers use what stands.
        """
        try:
            await self.blobs.create(ref, data, content_type=content_type)
        except BlobExists:
            return False
        return True

    async def create_document(self, ref: BlobRef, document: Document) -> Document:
        """Write a document once; gives the one that stands, one's own or an earlier one."""
        if await self.create_once(ref, dump(document), content_type="application/json"):
            return document
        return load(type(document), (await self.read(ref)).data)

    async def held(self, model: type[Document], ref: BlobRef) -> Versioned[Document] | None:
        """A stored document with its version, or None."""
        try:
            stored = await self.read(ref)
        except BlobMissing:
            return None
        return Versioned(load(model, stored.data), stored.etag, stored.last_modified)

    async def find(self, model: type[Document], ref: BlobRef) -> Document | None:
        """A stored document, or None."""
        held = await self.held(model, ref)
        return None if held is None else held.document

    async def replace(
        self, ref: BlobRef, document: Document, etag: str
    ) -> Versioned[Document] | None:
        """Swap a document; gives what stands then, None where that is somebody else's."""
        with contextlib.suppress(BlobChanged):
            await self.blobs.replace(ref, dump(document), etag)
        # After a lost answer the conflict is one's own success: what stands tells.
        held = await self.held(type(document), ref)
        return held if held is not None and held.document == document else None


def dump(document: BaseModel) -> bytes:
    """A document as it is stored."""
    return orjson.dumps(document.model_dump(mode="json"))


def load(model: type[Document], data: bytes) -> Document:
    """A document as it was stored. Raises NewerVersion, and Unreadable for anything else."""
    try:
        raw: Any = orjson.loads(data)
        version = raw.get("schema_version", SCHEMA_VERSION) if isinstance(raw, dict) else 0
        if isinstance(version, int) and version > NEWEST_VERSION:
            raise NewerVersion(model.__name__, version)
        return model.model_validate(raw)
    except ValueError:
        # Not chained: what is quoted may be a prompt of the options.
        raise Unreadable(f"a {model.__name__} is not what this service writes") from None
