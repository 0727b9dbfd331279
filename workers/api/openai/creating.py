"""Batches are made of uploaded files, each request one of its own, and none of it twice."""

import hashlib
import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from schemas.files import Creation, Due
from schemas.jobs import Asked, Job
from schemas.messages import Announcement, JobRequest
from schemas.openai import BatchCreate
from workers.api.access import Caller
from workers.api.asking import asked_by
from workers.api.http import HttpCall, HttpRefusal
from workers.api.openai.files import FilesApi
from workers.api.openai.operations import read_body
from workers.files.names import ResultPart
from workers.files.store import CREATION_SECONDS, FileStore
from workers.intake.doors import Doors
from workers.intake.intake import Intake
from workers.jobs.index import JobIndex
from workers.jobs.rejections import InputError
from workers.jobs.store import JobStore
from workers.ports import BlobRef

RETRIED_SECONDS: Final = 900.0
"""For so long a request that the SDK sends again is the one whose answer it missed."""


class BatchCreator:
    """Pins a job, lists it and announces it; whoever repeats a step finds what stands."""

    def __init__(
        self,
        files_api: FilesApi,
        files: FileStore,
        store: JobStore,
        index: JobIndex,
        intake: Intake,
        *,
        doors: Doors,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._files_api = files_api
        self._files = files
        self._store = store
        self._index = index
        self._doors = doors
        self._intake = intake
        self._clock = clock
        self._rng = rng

    async def create(self, caller: Caller, call: HttpCall) -> Job:
        """The job of a request, which may be a repeated one.

        A request whose answer was lost is known by its Idempotency-Key, or by what the SDK counts.
        """
        body, wanted = read_body(BatchCreate, call), _wanted(caller, call)
        known = await self._known(caller, wanted, call)
        if known is not None and (job := await self._store.job(known.job)) is not None:
            await self._list(job)  # whoever pinned it may not have come so far
            return job
        nonce = wanted.key or (known.nonce if known else f"{self._rng.getrandbits(128):032x}")
        ref, etag, filename = await self._files_api.input(caller, body.input_file_id)
        request = _request(caller, ref, etag, options_of(body))
        asked = wanted.asked.model_copy(update={"message_id": nonce})
        try:
            announcement = await self._doors.announced(request, asked, "http")
            announcement = announcement.model_copy(update={"filename": filename})
            await self._remember(caller, wanted, announcement)
            job = await self._intake.accept(announcement)
        except InputError as error:
            raise _refused(error) from None
        if job is None:
            message = "input_file_id: the file was deleted meanwhile"
            raise HttpRefusal(400, "file_not_found", message, param="input_file_id")
        await self._list(job)
        await self._doors.send(announcement)
        return job

    async def _known(self, caller: Caller, wanted: "_Wanted", call: HttpCall) -> Creation | None:
        """The creation that a request repeats; None where it is a new one."""
        known = await self._files.creation(caller.tenant, wanted.digest)
        if known is None:
            return None
        age = self._clock() - known.created
        if wanted.key is None:
            counted = call.headers.get("x-stainless-retry-count", "0")
            return known if counted != "0" and age < RETRIED_SECONDS else None
        if age >= CREATION_SECONDS:
            return None
        if known.request != wanted.request:
            raise HttpRefusal(
                409,
                "idempotency_key_reused",
                "the Idempotency-Key came with another request: give this one a key of its own",
                param="Idempotency-Key",
            )
        return known

    async def _remember(
        self, caller: Caller, wanted: "_Wanted", announcement: Announcement
    ) -> None:
        """Before the job is pinned, so that whoever asks again finds the same one."""
        now = self._clock()
        creation = Creation(
            job=announcement.job,
            request=wanted.request,
            nonce=announcement.asked.message_id or "",
            created=now,
        )
        due = Due(
            kind="creation", tenant=caller.tenant, name=wanted.digest, at=now + CREATION_SECONDS
        )
        await self._files.owe(due)
        await self._files.renew(caller.tenant, wanted.digest, creation)

    async def _list(self, job: Job) -> None:
        """Have the job be found, and its results deleted at their time."""
        await self._index.add(job)
        if job.options.output_expires_after is not None:
            at = job.created + job.options.output_expires_after
            parts: tuple[ResultPart, ...] = ("output", "errors")
            for part in parts:
                await self._files.owe(Due(kind=part, tenant=job.tenant, name=job.id, at=at))


class _Wanted(NamedTuple):
    """What is asked for, and how it would be known again. `key` is an Idempotency-Key."""

    request: str
    digest: str
    asked: Asked

    @property
    def key(self) -> str | None:
        return self.asked.message_id


def _wanted(caller: Caller, call: HttpCall) -> _Wanted:
    asked = asked_by(call)
    request = hashlib.sha256(call.body).hexdigest()
    about = f"key {asked.message_id}" if asked.message_id else f"body {caller.name} {request}"
    return _Wanted(request, hashlib.sha256(about.encode()).hexdigest(), asked)


def options_of(body: BatchCreate) -> dict[str, Any]:
    """The job's options: at this door a bad row fails the whole job unless they say otherwise.

    Raises HttpRefusal with 400 where one is given twice.
    """
    given = dict(body.phi3 or {})
    named: dict[str, Any] = {
        "endpoint": body.endpoint,
        "completion_window": body.completion_window,
        "metadata": body.metadata or {},
    }
    if body.output_expires_after is not None:
        named["output_expires_after"] = body.output_expires_after.seconds
    for name in given.keys() & {*named, "output_expires_after"}:
        message = f"phi3: {name} stands beside phi3, not in it"
        raise HttpRefusal(400, "invalid_value", message, param="phi3")
    return {"on_invalid": "fail", **given, **named}


def _request(caller: Caller, ref: BlobRef, etag: str, options: dict[str, Any]) -> JobRequest:
    return JobRequest(
        container=ref.container,
        name=ref.name,
        etag=etag,
        tenant=caller.tenant,
        rerun=True,
        options=options,
    )


def _refused(error: InputError) -> HttpRefusal:
    param = "phi3" if error.code == "invalid_options" else "input_file_id"
    return HttpRefusal(400, error.code, str(error), param=param)
