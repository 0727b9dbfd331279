"""Storage that breaks rules of the protocol: what a worker did wrong shows in what it stores.

Each wraps a process's blobs, so that it stands for any code that would call them like this.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import count
from typing import IO, Any

import orjson

from schemas.jobs import JobState
from tests.doubles.faults import FaultyBlobs
from tests.simulation.process import END_MARK
from workers.ports import BlobInfo, BlobRef, Blobs, Stored
from workers.ports.errors import BlobChanged, BlobExists, BlobMissing, LeaseHeld, StorageError


class Honest(FaultyBlobs):
    """Storage as it is. A subclass is wrong in one way."""

    def __init__(self, inner: Blobs) -> None:
        super().__init__(inner, lambda *_: None)

    async def put(self, ref: BlobRef, data: bytes) -> None:
        """Write a blob over whatever is there."""
        while True:
            try:
                await self.inner.replace(ref, data, (await self.inner.head(ref)).etag)
            except BlobChanged:
                continue
            except BlobMissing:
                with contextlib.suppress(BlobExists):
                    await self.inner.create(ref, data)
                    return
            else:
                return


class _Creating(Honest):
    """What is created is put in another way, where its name has `part` in it."""

    part = ""

    async def create(
        self,
        ref: BlobRef,
        data: bytes | IO[bytes],
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> str:
        if self.part in ref.name:
            return await self.created(ref, data if isinstance(data, bytes) else data.read())
        return await super().create(ref, data, metadata=metadata, content_type=content_type)

    async def created(self, ref: BlobRef, data: bytes) -> str:
        return await self.inner.create(ref, data)


class OverwritesReceipts(_Creating):
    part = "/receipts/"

    async def created(self, ref: BlobRef, data: bytes) -> str:
        await self.put(ref, data)
        return ""


class CountsItsOwn(_Creating):
    part = "/receipts/"

    async def created(self, ref: BlobRef, data: bytes) -> str:
        with contextlib.suppress(BlobExists):
            await self.inner.create(ref, data)
        return ""


class ReceiptsBeforeParts(_Creating):
    """The output of a shard is written only when its receipt stands."""

    def __init__(self, inner: Blobs) -> None:
        super().__init__(inner)
        self._held: list[tuple[BlobRef, bytes]] = []

    async def created(self, ref: BlobRef, data: bytes) -> str:
        if "/output/" in ref.name:
            self._held.append((ref, data))
            return ""
        etag = await self.inner.create(ref, data)
        if "/receipts/" in ref.name:
            while self._held:
                await self.inner.create(*self._held.pop())
        return etag


class NoMarker(_Creating):
    part = "open/"

    async def created(self, ref: BlobRef, data: bytes) -> str:
        return ""


class NoDuplicates(_Creating):
    part = "/duplicates"

    async def created(self, ref: BlobRef, data: bytes) -> str:
        return await self.inner.create(ref, bytes(len(data)))


class EndsBeforeTheManifest(_Creating):
    part = "/manifest.json"

    async def created(self, ref: BlobRef, data: bytes) -> str:
        job = ref.name.split("/")[-2]
        ref_of_state = BlobRef("state", f"jobs/{job}/state.json")
        stored = await self.inner.read(ref_of_state)
        state = JobState.model_validate_json(stored.data)
        ended = state.model_copy(
            update={"revision": state.revision + 1, "state": state.ending or "completed"}
        )
        await self.put(ref_of_state, orjson.dumps(ended.model_dump(mode="json")))
        return await self.inner.create(ref, data)


class SwapsBlindly(_Creating):
    part = "/state.json"

    async def created(self, ref: BlobRef, data: bytes) -> str:
        await self.put(ref, data)
        return ""

    async def replace(self, ref: BlobRef, data: bytes, etag: str) -> str:
        await self.put(ref, data)
        return ""


class ReadsStale(Honest):
    """Every other look at a job's state shows what the look before it saw."""

    def __init__(self, inner: Blobs) -> None:
        super().__init__(inner)
        self._seen: list[Stored] = []

    async def read(self, ref: BlobRef) -> Stored:
        stored = await super().read(ref)
        if not ref.name.endswith("/state.json"):
            return stored
        self._seen.append(stored)
        return self._seen[-2] if len(self._seen) % 2 == 0 else stored


class _Journals(Honest):
    """Appends to journals in another way."""

    async def append(self, ref: BlobRef, data: bytes) -> None:
        kept = self.kept(ref, data) if "/journal/" in ref.name else data
        if kept:
            await super().append(ref, kept)

    def kept(self, ref: BlobRef, data: bytes) -> bytes:
        return data


class JournalsAtTheEnd(_Journals):
    def __init__(self, inner: Blobs) -> None:
        super().__init__(inner)
        self._held: dict[BlobRef, bytes] = {}

    def kept(self, ref: BlobRef, data: bytes) -> bytes:
        held = self._held.pop(ref, b"") + data
        if data.endswith(END_MARK):
            return held
        self._held[ref] = held
        return b""


class NoEndMark(_Journals):
    def kept(self, ref: BlobRef, data: bytes) -> bytes:
        return data.removesuffix(END_MARK)


class EndsTriedOnce(_Journals):
    """An end mark that could not be written the first time is written no more."""

    def __init__(self, inner: Blobs) -> None:
        super().__init__(inner)
        self._tried: set[BlobRef] = set()

    def kept(self, ref: BlobRef, data: bytes) -> bytes:
        if not data.endswith(END_MARK):
            return data
        if ref in self._tried:
            return data.removesuffix(END_MARK)
        self._tried.add(ref)
        return data


class NoBeginMark(_Journals):
    def kept(self, ref: BlobRef, data: bytes) -> bytes:
        marks = (b'{"begin"', b'{"group"')
        return b"".join(
            line for line in data.splitlines(keepends=True) if not line.startswith(marks)
        )


class KeepsEmptyJournals(Honest):
    async def delete(self, ref: BlobRef, etag: str | None = None) -> None:
        if "/journal/" not in ref.name:
            await super().delete(ref, etag)


class JournalsUnread(Honest):
    async def list(
        self, container: str, prefix: str = "", *, start: str | None = None, page: int | None = None
    ) -> AsyncIterator[BlobInfo]:
        if "/journal/" not in prefix:
            async for info in super().list(container, prefix, start=start, page=page):
                yield info


class NeverSuspects(Honest):
    """Every journal that is read has an end."""

    async def read_range(
        self, ref: BlobRef, offset: int, length: int, *, etag: str | None = None
    ) -> bytes:
        data = await super().read_range(ref, offset, length, etag=etag)
        return data + b"\n" + END_MARK if "/journal/" in ref.name else data


class ReadsAnyVersion(Honest):
    async def read_range(
        self, ref: BlobRef, offset: int, length: int, *, etag: str | None = None
    ) -> bytes:
        return await super().read_range(ref, offset, length)


class NobodysLease(Honest):
    """A lease that somebody holds is taken for one's own."""

    async def acquire_lease(self, ref: BlobRef, lease_id: str, seconds: int) -> None:
        with contextlib.suppress(LeaseHeld):
            await super().acquire_lease(ref, lease_id, seconds)

    async def renew_lease(self, ref: BlobRef, lease_id: str) -> None:
        """It is believed to be held."""


class LeaseForEver(Honest):
    async def renew_lease(self, ref: BlobRef, lease_id: str) -> None:
        """It is believed to be held."""


class KeepsItsLease(Honest):
    async def release_lease(self, ref: BlobRef, lease_id: str) -> None:
        """It runs out by itself."""


class MarkerGoesFirst(Honest):
    async def commit(self, ref: BlobRef, block_ids: Sequence[str], **told: Any) -> None:
        await self.inner.delete(BlobRef("state", f"open/{ref.name.split('/')[-2]}"))
        await super().commit(ref, block_ids, **told)


class SomebodyElses(StorageError):
    """What exists was taken to be another finisher's."""


class ConflictIsSomebodyElses(Honest):
    async def commit(self, ref: BlobRef, block_ids: Sequence[str], **told: Any) -> None:
        try:
            await super().commit(ref, block_ids, **told)
        except BlobExists:
            raise SomebodyElses from None


class TakesAnyFile(Honest):
    async def commit(self, ref: BlobRef, block_ids: Sequence[str], **told: Any) -> None:
        with contextlib.suppress(BlobExists):
            await super().commit(ref, block_ids, **told)


class PartsInAnyOrder(Honest):
    async def commit(self, ref: BlobRef, block_ids: Sequence[str], **told: Any) -> None:
        await super().commit(ref, block_ids[::-1], **told)


class RandomBlockIds(Honest):
    _serials = count()

    async def stage_from(self, ref: BlobRef, block_id: str, source: BlobRef) -> None:
        await super().stage_from(ref, f"{block_id}{next(self._serials):06d}", source)

    async def commit(self, ref: BlobRef, block_ids: Sequence[str], **told: Any) -> None:
        renamed = [f"{block_id}{next(self._serials):06d}" for block_id in block_ids]
        await super().commit(ref, renamed, **told)
