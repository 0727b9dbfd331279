"""The stored documents of docs/protocol.md over the blob primitives: what lies where, and how it is
written once.
"""

import asyncio
import contextlib
import struct
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, Generic, NamedTuple, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from schemas.jobs import Job, JobState, Reason
from schemas.listing import Done
from schemas.messages import Announcement
from schemas.plans import PlannedShard, Verdict
from schemas.results import Receipt
from schemas.versions import NEWEST_VERSION, SCHEMA_VERSION, only_unknown
from workers.clock import ServiceClock
from workers.ports import BlobInfo, BlobRef, Blobs, Stored
from workers.ports.errors import (
    BlobChanged,
    BlobExists,
    BlobMissing,
    NewerVersion,
    Unreadable,
    first_of,
)
from workers.ports.together import all_of

# One width for every line, so that a shard's line is one ranged read, whatever the plan's length.
PLAN_WIDTH: Final = 160
_LINE_NUMBER: Final = struct.Struct("<I")
_KEPT_JOBS: Final = 256
# A read of so many lines takes no longer than that of one.
_PLAN_LINES: Final = 64
_KEPT_PLANS: Final = 64


Document = TypeVar("Document", bound=BaseModel)
_Key = TypeVar("_Key")
_Kept = TypeVar("_Kept")


@dataclass(frozen=True, slots=True)
class Versioned(Generic[Document]):
    """A document as read, with the ETag that a swap has to meet."""

    document: Document
    etag: str
    last_modified: float


@dataclass(frozen=True, slots=True)
class Held:
    """A state document as read, with the ETag that a swap has to meet."""

    state: JobState
    etag: str
    last_modified: float


class ShardStanding(NamedTuple):
    """What decides on a shard's message: no more is asked once the receipt stands."""

    job: Job
    receipt: Receipt | None
    held: Held | None


class JobStore:
    """The documents of all jobs. Errors are those of the blob primitives, `NewerVersion` and
    `Unreadable`. The clock hears the service's time with each document that is read.
    """

    def __init__(
        self,
        blobs: Blobs,
        *,
        state_container: str,
        results_container: str,
        clock: ServiceClock | None = None,
    ) -> None:
        self.blobs = blobs
        self._clock = clock
        self.state_container = state_container
        self.results_container = results_container
        self._jobs: dict[str, Job] = {}
        self._plans: dict[tuple[str, int], bytes] = {}

    def ref(self, job: str, *parts: str) -> BlobRef:
        """A document of a job in the state container."""
        return BlobRef(self.state_container, "/".join(("jobs", job, *parts)))

    def result(self, job: Job, name: str) -> BlobRef:
        """A file among a job's results."""
        return BlobRef(self.results_container, f"{job.results}/{name}")

    # -- documents of any kind

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

    # -- open markers

    def marker(self, job: str) -> BlobRef:
        """Where the open marker of a job lies."""
        return BlobRef(self.state_container, f"open/{job}")

    async def open(self, announcement: Announcement) -> bool:
        """Mark a job as open, with what it takes to announce it again.

        The result is false where a marker stands already. Whose does not matter, and by now it may
        be gone: the job may just have ended.
        """
        return await self.create_once(
            self.marker(announcement.job), dump(announcement), content_type="application/json"
        )

    async def announcement(self, job: str) -> Announcement | None:
        """The announcement in a job's open marker; None when the job is not open."""
        return await self.find(Announcement, self.marker(job))

    async def is_open(self, job: str) -> bool:
        """Whether the job's last event may not have been sent yet."""
        try:
            await self.blobs.head(self.marker(job))
        except BlobMissing:
            return False
        return True

    async def close(self, job: str) -> None:
        """Remove the marker of a job."""
        await self.blobs.delete(self.marker(job))

    async def end(self, done: Done) -> None:
        """Remember that a job has ended, and that its last event is out."""
        await self.create_document(self._done(done.id), done)

    def _done(self, job: str) -> BlobRef:
        return BlobRef(self.state_container, f"done/{job}")

    async def done(self, job: str) -> Done | None:
        """How a job has ended; None where it has not."""
        return await self.find(Done, self._done(job))

    async def open_jobs(
        self, page: int | None = None, after: str = ""
    ) -> AsyncGenerator[tuple[str, float]]:
        """The ids of the open jobs behind one, in order, and when each was marked; `page` as in
        `Blobs.list`.
        """
        start = f"open/{after}" if after else None
        async for info in self.blobs.list(self.state_container, "open/", start=start, page=page):
            if info.ref.name != start:
                yield info.ref.name.removeprefix("open/"), info.last_modified

    # -- job, plan, duplicates

    async def create_job(self, job: Job) -> Job:
        """Create a job's document; gives the one that stands."""
        return await self.create_document(self.ref(job.id, "job.json"), job)

    async def job(self, job: str) -> Job | None:
        """A job, or None. It never changes, so it is kept."""
        if job in self._jobs:
            return self._jobs[job]
        found = await self.find(Job, self.ref(job, "job.json"))
        if found is None:
            return None
        _keep(self._jobs, job, found, _KEPT_JOBS)
        return found

    async def create_plan(self, job: str, shards: Sequence[PlannedShard]) -> None:
        """Write the plan once; a loser uses the plan that exists."""
        data = b"".join(_plan_line(shard) for shard in shards)
        await self.create_once(self.ref(job, "plan.jsonl"), data, content_type="application/jsonl")

    async def plan_totals(self, job: str) -> tuple[int, int] | None:
        """How many shards and rows the plan has that stands; None before there is one."""
        try:
            data = (await self.read(self.ref(job, "plan.jsonl"))).data
        except BlobMissing:
            return None
        rows = sum(orjson.loads(line)["rows"] for line in data.splitlines())
        return len(data) // PLAN_WIDTH, rows

    async def create_verdict(self, job: str, verdict: Verdict) -> None:
        """Why planning found that the job has to fail; stands before the plan does."""
        await self.create_document(self.ref(job, "verdict.json"), verdict)

    async def verdict(self, job: str) -> Reason | None:
        """Why the job has to fail, if planning found so."""
        found = await self.find(Verdict, self.ref(job, "verdict.json"))
        told = {} if found is None else found.model_dump(exclude={"schema_version", "lines"})
        return Reason(**told) if told else None

    async def planned(self, job: str, shard: int) -> PlannedShard:
        """One line of the plan. It never changes, so those beside it are kept."""
        part, line = divmod(shard, _PLAN_LINES)
        lines = self._plans.get((job, part))
        if lines is None:
            size = _PLAN_LINES * PLAN_WIDTH
            lines = await self.blobs.read_range(self.ref(job, "plan.jsonl"), part * size, size)
            _keep(self._plans, (job, part), lines, _KEPT_PLANS)
        return load(PlannedShard, lines[line * PLAN_WIDTH : (line + 1) * PLAN_WIDTH])

    async def create_duplicates(self, job: str, lines: Iterable[int]) -> None:
        """Keep the line numbers whose custom_id stood earlier: 4 bytes each, in order, and twice
        where the numbered id is given too.
        """
        data = b"".join(map(_LINE_NUMBER.pack, lines))
        if data:
            await self.create_once(
                self.ref(job, "duplicates"), data, content_type="application/octet-stream"
            )

    async def duplicates(self, job: str, shard: PlannedShard) -> Counter[int]:
        """The duplicates among a shard's lines: 2 where the numbered id is given too."""
        first, count = shard.duplicates
        if not count:
            return Counter()
        size = _LINE_NUMBER.size
        data = await self.blobs.read_range(self.ref(job, "duplicates"), first * size, count * size)
        return Counter(line for (line,) in _LINE_NUMBER.iter_unpack(data))

    # -- state

    async def state(self, job: str) -> Held | None:
        """A job's state, or None before there is one."""
        held = await self.held(JobState, self.ref(job, "state.json"))
        return None if held is None else Held(held.document, held.etag, held.last_modified)

    async def swap(self, job: str, before: Held | None, after: JobState) -> bool:
        """Store the new state if the old one still stands, and return whether it did.

        The result is false, too, where this very swap succeeded and its answer was lost.
        """
        ref = self.ref(job, "state.json")
        try:
            if before is None:
                await self.blobs.create(ref, dump(after))
            else:
                await self.blobs.replace(ref, dump(after), before.etag)
        except (BlobExists, BlobChanged):
            return False
        return True

    # -- shards

    def _receipt(self, job: str, shard: int) -> BlobRef:
        return self.ref(job, "receipts", str(shard))

    async def receipt(self, job: str, shard: int) -> Receipt | None:
        """A shard's receipt: it is done when this exists."""
        return await self.find(Receipt, self._receipt(job, shard))

    async def create_receipt(self, job: str, receipt: Receipt) -> Receipt:
        """Finish a shard; gives the receipt that stands, whoever wrote it."""
        return await self.create_document(self._receipt(job, receipt.shard), receipt)

    async def receipts(
        self, job: str, shards: Sequence[int], *, at_once: int = 16
    ) -> list[Receipt]:
        """The receipts of these shards, in this order. Raises BlobMissing where one lacks."""

        async def read(shard: int) -> Receipt:
            return load(Receipt, (await self.read(self._receipt(job, shard))).data)

        return await all_of(read, shards, at_once=at_once)

    async def standing(self, job: str, shard: int) -> ShardStanding | None:
        """What stands of a shard and its job, read at the same time; None where no job does."""
        try:
            async with asyncio.TaskGroup() as group:
                found = group.create_task(self.job(job))
                receipt = group.create_task(self.receipt(job, shard))
                held = group.create_task(self.state(job))
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors
        known = found.result()
        return None if known is None else ShardStanding(known, receipt.result(), held.result())

    async def lease_blob(self, job: str, shard: int) -> BlobRef:
        """The blob that carries a shard's lease and nothing else."""
        ref = self.ref(job, "leases", str(shard))
        await self.create_once(ref, b"", content_type="application/octet-stream")
        return ref

    async def plan_and_journals(self, job: str, shard: int) -> tuple[PlannedShard, list[BlobInfo]]:
        """A shard's line of the plan and its journals, read at the same time."""
        try:
            async with asyncio.TaskGroup() as group:
                planned = group.create_task(self.planned(job, shard))
                journals = group.create_task(self.journals(job, shard))
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors
        return planned.result(), journals.result()

    async def journals(self, job: str, shard: int) -> list[BlobInfo]:
        """A shard's journals, oldest attempt first (their names sort so)."""
        prefix = self.ref(job, "journal", str(shard), "")
        return [info async for info in self.blobs.list(prefix.container, prefix.name)]

    async def refuse(self, what: str, data: bytes) -> BlobRef:
        """Keep what a newer version wrote, for that version to look at."""
        ref = BlobRef(self.state_container, f"refused/{what}")
        await self.create_once(ref, data, content_type="application/octet-stream")
        return ref


def _keep(kept: dict[_Key, _Kept], key: _Key, value: _Kept, most: int) -> None:
    """Keep one more; of `most` that are kept the oldest goes."""
    if len(kept) >= most:
        kept.pop(next(iter(kept)))
    kept[key] = value


def dump(document: BaseModel) -> bytes:
    """A document as it is stored."""
    return orjson.dumps(document.model_dump(mode="json"))


def load(model: type[Document], data: bytes) -> Document:
    """A document or message as it was written. Raises NewerVersion; Unreadable for all else."""
    try:
        raw = orjson.loads(data)
        version = check_version(model.__name__, raw)
        return model.model_validate(raw)
    except (orjson.JSONDecodeError, ValidationError) as error:
        # Not chained: what is quoted may be a prompt of the options.
        if isinstance(error, ValidationError) and only_unknown(error):
            raise NewerVersion(model.__name__, version) from None
        raise Unreadable(f"a {model.__name__} is not what this service writes") from None


def check_version(what: str, raw: Any) -> object:
    """The schema version of a parsed document or message. Raises NewerVersion."""
    version: object = raw.get("schema_version", SCHEMA_VERSION) if isinstance(raw, dict) else 0
    if isinstance(version, int) and version > NEWEST_VERSION:
        raise NewerVersion(what, version)
    return version


def _plan_line(shard: PlannedShard) -> bytes:
    line = orjson.dumps(shard.model_dump())
    if len(line) >= PLAN_WIDTH:
        raise ValueError(f"a plan line of {len(line)} bytes does not fit {PLAN_WIDTH}")
    return line.ljust(PLAN_WIDTH - 1) + b"\n"
