"""Uploads over HTTP: parts staged as blocks by storage, which makes a file of them."""

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Final

from schemas.files import Due, FileRecord, UploadRecord, file_key
from schemas.openai import UploadComplete, UploadCreate, UploadPart
from workers.api.access import Caller
from workers.api.http import HttpCall, HttpRefusal, JsonReply
from workers.api.openai import shapes
from workers.api.openai.files import FilesApi, purpose_of
from workers.api.openai.forms import read_form
from workers.api.openai.operations import read_body
from workers.files.names import part_id, read_part_id, upload_id
from workers.files.store import FileStore
from workers.ports import BlobInfo, BlobRef, Transfers
from workers.ports.errors import BlobExists, BlobMissing

PENDING_SECONDS: Final = 3600.0
"""For so long parts are taken."""
REMEMBERED_SECONDS: Final = 86400.0
"""For so long a repeated completion is answered."""
MOST_HASHED: Final = 4 * 1024**3
"""Bytes of a file whose MD5 is checked: it is read back for that, within one call."""
MOST_TIMES: Final = 8
"""All parts of an upload to its bytes: one whose answer is lost is sent again, under a new id."""
_PIECE: Final = 8 * 1024 * 1024
# A longer piece would hold the event loop for more than a moment.
_HASHED_AT_ONCE: Final = 1024 * 1024
_PATIENCE: Final = 5


class UploadsApi:
    """The operations on uploads. An upload and the file that it becomes have one key.

    Completing stores which parts are meant before it makes the file of them, so that whoever
    repeats it, after whatever crash, comes to the same file.
    """

    def __init__(
        self,
        files_api: FilesApi,
        files: FileStore,
        transfers: Transfers,
        *,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._files_api = files_api
        self._files = files
        self._blobs = files.blobs
        self._transfers = transfers
        self._clock = clock
        self._rng = rng

    async def create(self, caller: Caller, call: HttpCall) -> JsonReply:
        """Begin an upload."""
        body = read_body(UploadCreate, call)
        self._files_api.check_size(body.bytes)
        now = self._clock()
        record = UploadRecord(
            key=file_key(now, self._rng.getrandbits(64)),
            tenant=caller.tenant,
            filename=body.filename,
            purpose=purpose_of(body.purpose),
            bytes=body.bytes,
            created=now,
            expires=now + PENDING_SECONDS,
            kept=None if body.expires_after is None else body.expires_after.seconds,
        )
        due = Due(kind="upload", tenant=caller.tenant, name=record.key, at=now + REMEMBERED_SECONDS)
        await self._files.owe(due)
        return self._told(await self._files.begin(record))

    async def add_part(self, caller: Caller, key: str, call: HttpCall) -> JsonReply:
        """Stage a part."""
        record = await self._record(caller, key)
        self._pending(record)
        data = read_form(call.headers.get("content-type", ""), call.body).files.get("data")
        if data is None:
            message = "data: it is required: send a form with the field data"
            raise HttpRefusal(400, "missing_required_parameter", message, param="data")
        ref = self._files.content(caller.tenant, key)
        await self._refuse_too_many(ref, record, len(data.data))
        block = f"{self._rng.getrandbits(128):032x}"
        await self._transfers.stage(ref, block, data.data)
        part = UploadPart(
            id=part_id(block), created_at=int(self._clock()), upload_id=upload_id(key)
        )
        return JsonReply(200, part.model_dump(mode="json"))

    async def _refuse_too_many(self, ref: BlobRef, record: UploadRecord, size: int) -> None:
        """Raise HttpRefusal with 400 where a part of so many bytes can be none of the file's."""
        message = None
        if size > record.bytes:
            message = f"data: the part has {size:,} bytes, the upload is to have {record.bytes:,}"
        elif sum((await self._transfers.staged(ref)).values()) + size > record.bytes * MOST_TIMES:
            message = f"data: the parts have {MOST_TIMES} times what the upload is to have together"
        if message is not None:
            raise HttpRefusal(400, "invalid_value", f"{message}: begin another one", param="data")

    async def complete(self, caller: Caller, key: str, call: HttpCall) -> JsonReply:
        """Make a file of parts, in the order given."""
        body = read_body(UploadComplete, call)
        record = await self._record(caller, key)
        if record.state == "pending":
            self._pending(record)
            blocks = await self._blocks(record, body)
            record = await self._moved(
                record, state="completed", blocks=tuple(blocks), md5=body.md5
            )
        if record.state == "cancelled":
            raise _not_pending("cancelled")
        file = await self._files.file(caller.tenant, key, 0.0) or await self._file(record)
        return self._told(record, file)

    async def cancel(self, caller: Caller, key: str) -> JsonReply:
        """Take no more parts."""
        record = await self._record(caller, key)
        if record.state == "pending":
            record = await self._moved(record, state="cancelled")
        if record.state == "completed":
            raise _not_pending("completed")
        return self._told(record)

    async def _moved(self, record: UploadRecord, **fields: object) -> UploadRecord:
        """Change an upload that is as it was read; gives the one that stands, if need be another's.

        Raises HttpRefusal where it cannot be told.
        """
        for _ in range(_PATIENCE):
            held = await self._files.upload(record.tenant, record.key)
            if held is None:
                raise _no_upload()
            if held.document.state != record.state:
                return held.document
            moved = held.document.model_copy(update=fields)
            if await self._files.end(moved, held.etag):
                return moved
        raise HttpRefusal(503, "unavailable", "others change this upload: ask again")

    async def _blocks(self, record: UploadRecord, body: UploadComplete) -> Sequence[str]:
        """The blocks that the parts are. Raises HttpRefusal with 400 where they do not add up."""
        staged = await self._transfers.staged(self._files.content(record.tenant, record.key))
        blocks = [read_part_id(each) or "" for each in body.part_ids]
        for at, block in enumerate(blocks):
            if block not in staged or block in blocks[:at]:
                message = f"part_ids[{at}] is no part of this upload, or stands twice"
                raise HttpRefusal(400, "invalid_value", message, param="part_ids")
        size = sum(staged[block] for block in blocks)
        if size != record.bytes:
            message = f"the parts have {size:,} bytes together, the upload was to have "
            raise HttpRefusal(400, "invalid_value", f"{message}{record.bytes:,}", param="part_ids")
        if body.md5 is not None and record.bytes > MOST_HASHED:
            message = f"md5: it is checked of files up to {MOST_HASHED:,} bytes: leave it out"
            raise HttpRefusal(400, "invalid_value", message, param="md5")
        return blocks

    async def _file(self, record: UploadRecord) -> FileRecord:
        """Commit the blocks, hold them to their MD5, and name the file."""
        ref = self._files.content(record.tenant, record.key)
        info = await self._committed(ref, record)
        if record.md5 is not None and await self._md5(info) != record.md5.lower():
            await self._moved(record, state="cancelled")
            await self._blobs.delete(ref)
            message = "md5: what has arrived has another one: begin another upload"
            raise HttpRefusal(400, "invalid_value", message, param="md5")
        now = self._clock()
        return await self._files_api.name(
            FileRecord(
                key=record.key,
                tenant=record.tenant,
                filename=record.filename,
                purpose=record.purpose,
                bytes=record.bytes,
                etag=info.etag,
                created=now,
                expires=None if record.kept is None else now + record.kept,
            )
        )

    async def _committed(self, ref: BlobRef, record: UploadRecord) -> BlobInfo:
        try:
            return await self._blobs.head(ref)  # an earlier call came so far
        except BlobMissing:
            pass
        try:
            if record.blocks:
                await self._blobs.commit(ref, record.blocks)
            else:
                await self._blobs.create(ref, b"", content_type="application/jsonl")
        except BlobExists:
            pass  # one's own success, whose answer was lost
        return await self._blobs.head(ref)

    async def _md5(self, info: BlobInfo) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        for offset in range(0, info.size, _PIECE):
            piece = await self._blobs.read_range(info.ref, offset, _PIECE, etag=info.etag)
            if len(piece) > _HASHED_AT_ONCE:
                await asyncio.to_thread(digest.update, piece)
            else:
                digest.update(piece)
        return digest.hexdigest()

    async def _record(self, caller: Caller, key: str) -> UploadRecord:
        held = await self._files.upload(caller.tenant, key)
        if held is None:
            raise _no_upload()
        return held.document

    def _pending(self, record: UploadRecord) -> None:
        status = shapes.upload_status(record, self._clock())
        if status != "pending":
            raise _not_pending(status)

    def _told(self, record: UploadRecord, file: FileRecord | None = None) -> JsonReply:
        upload = shapes.upload_of(record, file, self._clock())
        return JsonReply(200, upload.model_dump(mode="json"))


def _not_pending(status: str) -> HttpRefusal:
    return HttpRefusal(400, "invalid_value", f"the upload is {status}: begin another one")


def _no_upload() -> HttpRefusal:
    return HttpRefusal(404, "upload_not_found", "there is no such upload", param="id")
