"""Deletes what is due: files past their time or named no more, results, remembered requests."""

import logging
from collections.abc import Callable
from typing import Final

from pydantic import BaseModel, ValidationError

from schemas.files import Due, DueKind
from schemas.jobs import Job
from schemas.results import Manifest
from workers.files.store import CREATION_SECONDS, FileStore
from workers.jobs.results import read_manifest
from workers.jobs.store import JobStore
from workers.ports import BlobRef
from workers.ports.errors import BlobMissing, NewerVersion, Unreadable, WorkerError

AGAIN_SECONDS: Final = 3600.0
"""After which results are looked at again whose job has not ended."""

_OF_FILES: Final = frozenset({"file", "content", "upload"})

log = logging.getLogger(__name__)


class _Input(BaseModel):
    """What markers and jobs of every version say of the file that is read."""

    container: str
    name: str


class Retention:
    """One look at all that is due. What an open job reads stays until a later one.

    Each thing goes before what says that it is due, so a look that broke off is made again.
    """

    def __init__(self, files: FileStore, store: JobStore, *, clock: Callable[[], float]) -> None:
        self._files = files
        self._store = store
        self._blobs = store.blobs
        self._clock = clock

    async def run(self) -> None:
        """Delete what is due, also what comes after something that cannot be deleted."""
        read: frozenset[BlobRef] | None = None
        async for due in self._files.due(self._clock()):
            try:
                if due.kind in _OF_FILES and read is None:
                    read = await self._read_by_jobs()
                if await self._done(due, read or frozenset()):
                    await self._files.settle(due)
            except WorkerError as error:
                log.warning(
                    "[DELETION_FAILED] a %s that is due could not be deleted: %s", due.kind, error
                )
            except Exception:
                log.exception(
                    "[DELETION_BUG] a %s that is due could not be deleted: report this", due.kind
                )

    async def _done(self, due: Due, read: frozenset[BlobRef]) -> bool:
        """Whether nothing is left to be done about something that is due."""
        match due.kind:
            case "creation":
                return await self._forget(due)
            case "file":
                await self._files.remove(due.tenant, due.name)
                return await self._delete_content(due, read)
            case "upload":
                await self._files.drop(due.tenant, due.name)
                return await self._delete_content(due, read)
            case "content":
                return await self._delete_content(due, read)
            case "output" | "errors":
                return await self._delete_results(due, due.kind)

    async def _forget(self, due: Due) -> bool:
        known = await self._files.creation(due.tenant, due.name)
        # A later request may have taken its place; that one is due at a time of its own.
        if known is not None and known.created + CREATION_SECONDS <= self._clock():
            await self._files.forget(due.tenant, due.name)
        return True

    async def _delete_content(self, due: Due, read: frozenset[BlobRef]) -> bool:
        if await self._files.file(due.tenant, due.name, 0.0) is not None:
            return True  # it is named: whoever removes the name has it deleted
        content = self._files.content(due.tenant, due.name)
        if content in read:
            return False
        await self._blobs.delete(content)
        return True

    async def _read_by_jobs(self) -> frozenset[BlobRef]:
        """The inputs of all open jobs but those of which a webhook alone is owed.

        A record goes before this is read, and a job is marked before it is answered: one of both
        sees the other.
        """
        found: set[BlobRef] = set()
        async for job, _ in self._store.open_jobs():
            found |= await self._read_by(job)
        return frozenset(found)

    async def _read_by(self, job: str) -> set[BlobRef]:
        try:
            if await self._store.done(job) is not None:
                return set()
            announced = await self._store.announcement(job)
        except (NewerVersion, Unreadable) as error:
            log.warning("[INPUT_KEPT] what open job %s names as its input stays: %s", job, error)
            marker, pinned = self._store.marker(job), self._store.ref(job, "job.json")
            return await self._named(marker) | await self._named(pinned)
        return set() if announced is None else {BlobRef(announced.container, announced.name)}

    async def _named(self, ref: BlobRef) -> set[BlobRef]:
        """The input that a document names which this version cannot read as a whole."""
        try:
            named = _Input.model_validate_json((await self._store.read(ref)).data)
        except (BlobMissing, ValidationError):
            return set()
        return {BlobRef(named.container, named.name)}

    async def _delete_results(self, due: Due, part: DueKind) -> bool:
        """Delete a result file, and what it was made of."""
        job = await self._store.job(due.name)
        if job is None:
            return True
        held = await self._store.state(job.id)
        if held is None or held.state.ended is None:
            await self._files.owe(due.model_copy(update={"at": self._clock() + AGAIN_SECONDS}))
            return True
        result = await self._result(job, part)
        until = held.state.ended + (job.options.output_expires_after or 0)
        if result is not None and self._clock() < until:
            await self._files.owe(due.model_copy(update={"at": until}))
            return True
        if result is not None:
            await self._blobs.delete(result)
        for folder in (part, "journal"):
            below = self._store.ref(job.id, folder, "")
            async for info in self._blobs.list(below.container, below.name):
                await self._blobs.delete(info.ref)
        return True

    async def _result(self, job: Job, part: DueKind) -> BlobRef | None:
        """A result file that stands."""
        try:
            stands = await read_manifest(self._store, job)
            manifest = Manifest.model_validate_json(stands.data)
            file = manifest.output if part == "output" else manifest.errors
            return (await self._blobs.head(self._store.result(job, file.name))).ref
        except BlobMissing:
            return None
