"""Blob Storage in memory: the behaviour of `workers.ports.Blobs`, on any clock, no I/O.

Every call gives way to other tasks once before it takes effect, as a real one would.
"""

import asyncio
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import floor
from typing import IO
from urllib.parse import quote

from workers.ports import BlobInfo, BlobRef, Stored
from workers.ports.errors import (
    BlobChanged,
    BlobExists,
    BlobFull,
    BlobMissing,
    LeaseHeld,
    LeaseLost,
    StorageError,
)

APPEND_BYTES = 4 * 1024 * 1024
APPEND_BLOCKS = 50_000


@dataclass(slots=True)
class Lease:
    lease_id: str
    seconds: int
    until: float


@dataclass(slots=True)
class MemoryBlob:
    """What is stored under a name. `appends` counts blocks; None for a block blob."""

    data: bytes | bytearray
    etag: str
    created: float
    last_modified: float
    content_type: str
    metadata: dict[str, str] = field(default_factory=dict)
    appends: int | None = None
    lease: Lease | None = None


class Shelves(dict[BlobRef, MemoryBlob]):
    """Blobs by where they are, and in the order of their names."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[str, list[str]] = {}

    def __setitem__(self, ref: BlobRef, blob: MemoryBlob) -> None:
        if ref not in self:
            insort(self._names.setdefault(ref.container, []), ref.name)
        super().__setitem__(ref, blob)

    def __delitem__(self, ref: BlobRef) -> None:
        super().__delitem__(ref)
        names = self._names[ref.container]
        del names[bisect_left(names, ref.name)]

    def below(self, container: str, prefix: str = "") -> Sequence[BlobRef]:
        """What lies below a prefix now, by name."""
        return [BlobRef(container, name) for name in self.names(container, prefix)]

    def names(self, container: str, prefix: str, start: str = "") -> Sequence[str]:
        """The names below a prefix now, in order, from `start` on."""
        names = self._names.get(container, [])
        end = len(names)
        if prefix:
            after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
            end = bisect_left(names, after)
        return names[bisect_left(names, max(prefix, start), 0, end) : end]


class MemoryBlobs:
    """`containers` None: every container exists; else these, and what `ensure_containers` adds.

    `blobs` and `staged` are open to tests that look at, or put there, what no port can.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        containers: Iterable[str] | None = None,
        *,
        append_blocks: int = APPEND_BLOCKS,
    ) -> None:
        self.blobs = Shelves()
        self.staged_blocks: dict[BlobRef, dict[str, bytes]] = {}
        self._clock = clock
        self._containers = None if containers is None else set(containers)
        self._append_blocks = append_blocks
        self._etags = count(1)

    async def ensure_containers(self, names: Iterable[str]) -> None:
        if self._containers is not None:
            self._containers.update(names)

    async def head(self, ref: BlobRef) -> BlobInfo:
        await asyncio.sleep(0)
        return _info(ref, self._existing(ref))

    async def read(self, ref: BlobRef) -> Stored:
        await asyncio.sleep(0)
        blob = self._existing(ref)
        return Stored(bytes(blob.data), blob.etag, blob.last_modified, floor(self._clock()))

    async def read_range(
        self, ref: BlobRef, offset: int, length: int, *, etag: str | None = None
    ) -> bytes:
        await asyncio.sleep(0)
        if length == 0:
            return b""
        blob = self._existing(ref)
        if etag is not None and blob.etag != etag:
            raise BlobChanged
        return bytes(blob.data[offset : offset + length])

    async def create(
        self,
        ref: BlobRef,
        data: bytes | IO[bytes],
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> str:
        await asyncio.sleep(0)
        self._absent(ref)
        if not isinstance(data, bytes):
            data.seek(0)
            data = data.read()
        return self._put(ref, data, content_type, metadata)

    async def replace(self, ref: BlobRef, data: bytes, etag: str) -> str:
        await asyncio.sleep(0)
        self._container(ref.container)
        blob = self.blobs.get(ref)
        if blob is None:
            raise BlobChanged
        self._unleased(blob)
        if blob.etag != etag:
            raise BlobChanged
        self._put(ref, data, "application/json", None)
        self.blobs[ref].created = blob.created
        return self.blobs[ref].etag

    async def delete(self, ref: BlobRef, etag: str | None = None) -> None:
        await asyncio.sleep(0)
        blob = self.blobs.get(ref)
        if blob is not None:
            self._unleased(blob)
        if etag is not None and (blob is None or blob.etag != etag):
            raise BlobChanged
        if blob is not None:
            del self.blobs[ref]

    async def list(
        self, container: str, prefix: str = "", *, start: str | None = None, page: int | None = None
    ) -> AsyncIterator[BlobInfo]:
        await asyncio.sleep(0)
        self._container(container)
        for name in self.blobs.names(container, prefix, start or ""):
            ref = BlobRef(container, name)
            if ref in self.blobs:
                yield _info(ref, self.blobs[ref])

    async def create_append(self, ref: BlobRef) -> None:
        await asyncio.sleep(0)
        self._absent(ref)
        self._put(ref, bytearray(), "application/octet-stream", None)
        self.blobs[ref].appends = 0

    async def append(self, ref: BlobRef, data: bytes) -> None:
        if len(data) > APPEND_BYTES:
            raise ValueError(f"An append takes at most {APPEND_BYTES} bytes, not {len(data)}.")
        await asyncio.sleep(0)
        if not data:
            return
        blob = self._existing(ref)
        if blob.appends is None or not isinstance(blob.data, bytearray):
            raise StorageError("not an append blob")
        self._unleased(blob)
        if blob.appends >= self._append_blocks:
            raise BlobFull
        blob.data += data
        blob.appends += 1
        blob.etag, blob.last_modified = self._etag(), floor(self._clock())

    async def acquire_lease(self, ref: BlobRef, lease_id: str, seconds: int) -> None:
        if not 15 <= seconds <= 60:
            raise StorageError("a lease lasts 15 to 60 s")
        await asyncio.sleep(0)
        blob = self._existing(ref)
        if self._leased(blob) and blob.lease and blob.lease.lease_id != lease_id:
            raise LeaseHeld
        blob.lease = Lease(lease_id, seconds, self._clock() + seconds)

    async def renew_lease(self, ref: BlobRef, lease_id: str) -> None:
        await asyncio.sleep(0)
        self._container(ref.container)
        blob = self.blobs.get(ref)
        # One that ran out can be renewed while nobody took it and nothing was written.
        if blob is None or blob.lease is None or blob.lease.lease_id != lease_id:
            raise LeaseLost
        blob.lease.until = self._clock() + blob.lease.seconds

    async def release_lease(self, ref: BlobRef, lease_id: str) -> None:
        await asyncio.sleep(0)
        blob = self.blobs.get(ref)
        if blob is not None and blob.lease is not None and blob.lease.lease_id == lease_id:
            blob.lease = None

    async def stage_from(self, ref: BlobRef, block_id: str, source: BlobRef) -> None:
        await asyncio.sleep(0)
        self._container(ref.container)
        data = bytes(self._existing(source).data)
        self.staged_blocks.setdefault(ref, {})[block_id] = data

    async def commit(
        self,
        ref: BlobRef,
        block_ids: Sequence[str],
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/jsonl",
    ) -> None:
        await asyncio.sleep(0)
        self._absent(ref)
        staged = self.staged_blocks.get(ref, {})
        if not staged.keys() >= set(block_ids):
            raise StorageError("a block of the list is not there")
        self._put(ref, b"".join(staged[block] for block in block_ids), content_type, metadata)

    async def stage(self, ref: BlobRef, block_id: str, data: bytes | memoryview) -> None:
        await asyncio.sleep(0)
        self._container(ref.container)
        self.staged_blocks.setdefault(ref, {})[block_id] = bytes(data)

    async def staged(self, ref: BlobRef) -> Mapping[str, int]:
        await asyncio.sleep(0)
        return {block: len(data) for block, data in self.staged_blocks.get(ref, {}).items()}

    async def link(self, ref: BlobRef, seconds: float, filename: str) -> str:
        await asyncio.sleep(0)
        until = self._clock() + seconds
        return f"https://memory.invalid/{ref.container}/{quote(ref.name)}?until={until:.0f}"

    def _container(self, name: str) -> None:
        if self._containers is not None and name not in self._containers:
            raise BlobMissing(f"no container {name}")

    def _existing(self, ref: BlobRef) -> MemoryBlob:
        if ref not in self.blobs:
            raise BlobMissing(f"The blob does not exist: {ref.container}/{ref.name}")
        return self.blobs[ref]

    def _absent(self, ref: BlobRef) -> None:
        self._container(ref.container)
        if ref in self.blobs:
            raise BlobExists(f"The blob exists already: {ref.container}/{ref.name}")

    def _leased(self, blob: MemoryBlob) -> bool:
        return blob.lease is not None and self._clock() < blob.lease.until

    def _unleased(self, blob: MemoryBlob) -> None:
        if self._leased(blob):
            raise LeaseHeld
        blob.lease = None  # a write ends what was left of a lease that ran out

    def _etag(self) -> str:
        return f"0x{next(self._etags):X}"

    def _put(
        self,
        ref: BlobRef,
        data: bytes | bytearray,
        content_type: str,
        metadata: Mapping[str, str] | None,
    ) -> str:
        now = floor(self._clock())  # the service's times are whole seconds
        self.blobs[ref] = MemoryBlob(
            data=data,
            etag=self._etag(),
            created=now,
            last_modified=now,
            content_type=content_type,
            metadata={key.lower(): value for key, value in (metadata or {}).items()},
        )
        self.staged_blocks.pop(ref, None)
        return self.blobs[ref].etag


def _info(ref: BlobRef, blob: MemoryBlob) -> BlobInfo:
    return BlobInfo(
        ref=ref,
        etag=blob.etag,
        size=len(blob.data),
        last_modified=blob.last_modified,
        created=blob.created,
        metadata=dict(blob.metadata),
    )
