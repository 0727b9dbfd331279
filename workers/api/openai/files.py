"""Files over HTTP: upload, list, read, delete, download."""

import random
from collections.abc import AsyncIterator, Callable
from typing import Final

from schemas.files import Due, FileRecord, file_key
from schemas.jobs import Job, JobState
from schemas.openai import PURPOSES, File, FileDeleted
from schemas.results import Manifest, ManifestFile
from workers.api.access import Caller
from workers.api.http import AnyReply, BytesReply, HttpCall, HttpRefusal, JsonReply
from workers.api.openai import shapes
from workers.api.openai.forms import Form, FormFile, read_form
from workers.api.openai.operations import ListFiles
from workers.files.names import FileId, file_id, read_file_id, shown_name
from workers.files.store import FileStore
from workers.jobs.results import read_manifest
from workers.jobs.store import JobStore
from workers.ports import BlobRef, Transfers
from workers.ports.errors import BlobMissing
from workers.settings import Settings

MOST_IN_BODY: Final = 32 * 1024 * 1024
"""Bytes of content that go into an answer: the host holds it several times over."""
LINK_SECONDS: Final = 900.0
ORPHAN_SECONDS: Final = 3600.0
"""After which a content is looked at whose process died before it was named."""

_AT_ONCE: Final = 50
_SHORTEST, _LONGEST = 3600, 30 * 86400
_NO_FILE: Final = "there is no such file"


class FilesApi:
    """The operations on files. What belongs to another tenant is answered as if it were not."""

    def __init__(
        self,
        files: FileStore,
        store: JobStore,
        transfers: Transfers,
        *,
        settings: Settings,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._files = files
        self._blobs = files.blobs
        self._store = store
        self._transfers = transfers
        self._settings = settings
        self._clock = clock
        self._rng = rng

    async def create(self, caller: Caller, call: HttpCall) -> JsonReply:
        """Keep the file of a form, and name it."""
        form = read_form(call.headers.get("content-type", ""), call.body)
        file = form.files.get("file")
        if file is None:
            raise _missing("file")
        purpose, kept = purpose_of(form.fields.get("purpose")), _kept(form)
        self.check_size(len(file.data))
        record = await self._keep(caller, file, purpose, kept)
        return _told(shapes.uploaded(record))

    def check_size(self, size: int) -> None:
        """Whether a file may be so large, in bytes. Raises HttpRefusal with 413."""
        most = self._settings.max_file_bytes
        if size > most:
            raise HttpRefusal(
                413,
                "file_too_large",
                f"the file has {size:,} bytes, the limit is {most:,}: split it, or have "
                "MAX_FILE_BYTES raised",
                param="file",
            )

    async def _keep(
        self, caller: Caller, file: FormFile, purpose: str, kept: int | None
    ) -> FileRecord:
        now = self._clock()
        key = file_key(now, self._rng.getrandbits(64))
        await self._files.owe(
            Due(kind="content", tenant=caller.tenant, name=key, at=now + ORPHAN_SECONDS)
        )
        etag = await self._files.write(caller.tenant, key, bytes(file.data))
        record = FileRecord(
            key=key,
            tenant=caller.tenant,
            filename=file.name,
            purpose=purpose,
            bytes=len(file.data),
            etag=etag,
            created=now,
            expires=None if kept is None else now + kept,
        )
        return await self.name(record)

    async def name(self, record: FileRecord) -> FileRecord:
        """Name a file whose content stands; first what is to delete it at its time."""
        if record.expires is not None:
            await self._files.owe(
                Due(kind="file", tenant=record.tenant, name=record.key, at=record.expires)
            )
        return await self._files.add(record)

    async def list(self, caller: Caller, asked: ListFiles) -> JsonReply:
        """A page of the tenant's uploaded files."""
        last = await self._cursor(caller, asked.after)
        found: list[FileRecord] = []
        async for record in self._records(caller, asked.order, last):
            # One more than asked for tells whether others follow.
            if not asked.limit or len(found) > asked.limit:
                break
            if asked.purpose in (None, record.purpose):
                found.append(record)
        page = [shapes.uploaded(each) for each in found[: asked.limit]]
        return shapes.listed(page, more=len(found) > asked.limit)

    async def _cursor(self, caller: Caller, after: str | None) -> str | None:
        """The key of the file that a page begins behind. Raises HttpRefusal with 400."""
        wanted = None if after is None else read_file_id(after)
        key = None if wanted is None else wanted.key
        if after is not None and (
            key is None or await self._files.file(caller.tenant, key, self._clock()) is None
        ):
            message = "after: there is no such file"
            raise HttpRefusal(400, "invalid_value", message, param="after")
        return key

    async def _records(
        self, caller: Caller, order: str, last: str | None
    ) -> AsyncIterator[FileRecord]:
        keys = [
            key async for key in self._files.keys(caller.tenant, last if order == "desc" else None)
        ]
        if order == "asc":
            keys = keys[::-1]
            keys = keys[keys.index(last) + 1 :] if last in keys else keys
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            for record in await self._files.files(caller.tenant, some, self._clock()):
                yield record

    async def read(self, caller: Caller, wanted: FileId) -> JsonReply:
        """What is known of a file."""
        return _told(await self._file(caller, wanted))

    async def delete(self, caller: Caller, wanted: FileId) -> JsonReply:
        """Name a file no more; its content goes as soon as no open job reads it."""
        if wanted.key is not None:
            await self._record(caller, wanted.key)
            now = self._clock()
            due = Due(kind="content", tenant=caller.tenant, name=wanted.key, at=now)
            await self._files.owe(due)
            # Else a completion that is repeated would name it again.
            await self._files.drop(caller.tenant, wanted.key)
            await self._files.remove(caller.tenant, wanted.key)
            return _told(FileDeleted(id=file_id(wanted.key)))
        told, ref, _ = await self._place(caller, wanted)
        job, _ = await self._job(caller, wanted)
        if wanted.part is None or job.door != "http":
            raise HttpRefusal(
                403, "not_deletable", "the file came by another door: it is not deleted here"
            )
        # What it was made of holds the same lines; owed first, for without the file nobody asks.
        due = Due(kind=wanted.part, tenant=caller.tenant, name=job.id, at=self._clock())
        await self._files.owe(due)
        await self._blobs.delete(ref)
        return _told(FileDeleted(id=told.id))

    async def content(self, caller: Caller, wanted: FileId) -> AnyReply:
        """A file's bytes, or a link to them that lasts for minutes."""
        told, ref, etag = await self._place(caller, wanted)
        how = self._settings.downloads
        if how == "redirect" or (how == "auto" and told.bytes > MOST_IN_BODY):
            link = await self._transfers.link(ref, LINK_SECONDS, told.filename)
            return BytesReply(302, headers={"Location": link, "Cache-Control": "no-store"})
        if told.bytes > MOST_IN_BODY:
            raise HttpRefusal(
                413,
                "content_too_large",
                f"DOWNLOADS is body, which carries {MOST_IN_BODY:,} bytes, and the file has "
                f"{told.bytes:,}: read the blob {ref.container}/{ref.name}",
            )
        data = await self._blobs.read_range(ref, 0, told.bytes, etag=etag)
        return BytesReply(200, data)

    async def input(self, caller: Caller, text: str) -> tuple[BlobRef, str, str | None]:
        """The blob that an `input_file_id` means, its ETag, and what its user calls it.

        Raises HttpRefusal with 400.
        """
        wanted = read_file_id(text)
        try:
            if wanted is None or wanted.part is not None:
                raise _no_file()
            if wanted.key is None:
                job, _ = await self._job(caller, wanted)
                return BlobRef(job.container, job.name), job.etag, job.filename
            record = await self._record(caller, wanted.key)
        except HttpRefusal:
            raise HttpRefusal(
                400, "file_not_found", "input_file_id: there is no such file", param="input_file_id"
            ) from None
        if record.purpose != "batch":
            message = f"input_file_id: the file's purpose is {record.purpose!r}, not 'batch'"
            raise HttpRefusal(400, "invalid_value", message, param="input_file_id")
        content = self._files.content(caller.tenant, wanted.key)
        return content, record.etag, shown_name(record.filename)

    async def _file(self, caller: Caller, wanted: FileId) -> File:
        told, _, _ = await self._place(caller, wanted)
        return told

    async def _place(self, caller: Caller, wanted: FileId) -> tuple[File, BlobRef, str | None]:
        """A file, where its content lies, and the ETag that it has to have."""
        if wanted.key is not None:
            record = await self._record(caller, wanted.key)
            ref = self._files.content(caller.tenant, wanted.key)
            return shapes.uploaded(record), ref, record.etag
        job, state = await self._job(caller, wanted)
        if wanted.part is None:
            return shapes.input_of(job), BlobRef(job.container, job.name), job.etag
        if state is None or state.ended is None:
            raise _no_file()
        file = await self._result(job, wanted)
        told = shapes.result_of(job, wanted.part, file, state.ended)
        ref = self._store.result(job, file.name)
        try:
            await self._blobs.head(ref)
        except BlobMissing:
            raise _no_file() from None  # it was deleted
        if told.expires_at is not None and self._clock() >= told.expires_at:
            raise _no_file()
        return told, ref, None

    async def _result(self, job: Job, wanted: FileId) -> ManifestFile:
        try:
            stands = await read_manifest(self._store, job)
        except BlobMissing:
            raise _no_file() from None
        manifest = Manifest.model_validate_json(stands.data)
        file = manifest.output if wanted.part == "output" else manifest.errors
        if not file.rows:
            raise _no_file()
        return file

    async def _record(self, caller: Caller, key: str) -> FileRecord:
        record = await self._files.file(caller.tenant, key, self._clock())
        if record is None:
            raise _no_file()
        return record

    async def _job(self, caller: Caller, wanted: FileId) -> tuple[Job, JobState | None]:
        job = await self._store.job(wanted.job or "")
        if job is None or job.tenant != caller.tenant:
            raise _no_file()
        held = await self._store.state(job.id)
        return job, held.state if held else None


def purpose_of(given: str | None) -> str:
    """What a file is for. Raises HttpRefusal with 400."""
    if given is None:
        raise _missing("purpose")
    if given not in PURPOSES:
        message = f"purpose: {given[:40]!r} is none; known are {', '.join(PURPOSES)}"
        raise HttpRefusal(400, "invalid_value", message, param="purpose")
    return given


def _kept(form: Form) -> int | None:
    """Seconds for which a file is kept; None for ever."""
    anchor = form.fields.get("expires_after[anchor]")
    seconds = form.fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    fits = seconds is not None and seconds.isascii() and seconds.isdecimal() and len(seconds) < 9
    if anchor != "created_at" or not fits or not _SHORTEST <= int(seconds or 0) <= _LONGEST:
        raise HttpRefusal(
            400,
            "invalid_value",
            f"expires_after: anchor is created_at, seconds are {_SHORTEST} to {_LONGEST}",
            param="expires_after",
        )
    return int(seconds or 0)


def _missing(name: str) -> HttpRefusal:
    message = f"{name}: it is required: send a form with the fields purpose and file"
    return HttpRefusal(400, "missing_required_parameter", message, param=name)


def _no_file() -> HttpRefusal:
    return HttpRefusal(404, "file_not_found", _NO_FILE, param="id")


def _told(what: File | FileDeleted) -> JsonReply:
    return JsonReply(200, what.model_dump(mode="json"))
