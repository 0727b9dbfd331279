"""Batches over HTTP: jobs as the OpenAI Batch API tells of them."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from schemas.jobs import TERMINAL, Job
from schemas.listing import IndexEntry
from schemas.openai import Batch
from schemas.plans import Verdict
from workers.api.access import Caller
from workers.api.acting import JobActions
from workers.api.http import BytesReply, HttpCall, HttpRefusal, JsonReply
from workers.api.openai import shapes
from workers.api.openai.creating import BatchCreator
from workers.api.openai.operations import ActOnBatch, ListBatches
from workers.errors import BlobMissing, first_of
from workers.files.names import read_batch_id
from workers.jobs import events
from workers.jobs.index import JobIndex
from workers.jobs.outbox import Outbox
from workers.jobs.store import JobStore

Key = TypeVar("Key")
Read = TypeVar("Read")


class BatchesApi:
    """The operations on batches. What belongs to another tenant is answered as if it were not."""

    def __init__(
        self,
        creator: BatchCreator,
        store: JobStore,
        index: JobIndex,
        actions: JobActions,
        outbox: Outbox,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._creator = creator
        self._store = store
        self._index = index
        self._actions = actions
        self._outbox = outbox
        self._clock = clock

    async def create(self, caller: Caller, call: HttpCall) -> JsonReply:
        """Make a batch of an uploaded file."""
        return await self._told(await self._creator.create(caller, call))

    async def read(self, caller: Caller, job_id: str) -> JsonReply:
        """A batch as it stands."""
        return await self._told(await self._job(caller, job_id))

    async def events(self, caller: Caller, job_id: str) -> JsonReply:
        """What has happened to a batch."""
        batch = await self._batch(await self._job(caller, job_id))
        return shapes.listed(shapes.events_of(batch))

    async def manifest(self, caller: Caller, job_id: str) -> BytesReply:
        """A batch's manifest as it was written. 404 before the batch has ended."""
        job = await self._job(caller, job_id)
        try:
            stored = await self._store.blobs.read(self._store.result(job, "manifest.json"))
        except BlobMissing:
            message = "the batch has not ended: its manifest is written at its end"
            raise HttpRefusal(404, "manifest_not_found", message, param="id") from None
        return BytesReply(200, stored.data, content_type="application/json")

    async def act(self, caller: Caller, asked: ActOnBatch) -> JsonReply:
        """Cancel, pause or resume a batch. 409 where its state does not allow it."""
        job = await self._job(caller, asked.id)
        done = await self._actions.act(job.id, asked.action)
        batch = await self._batch(job)
        if not done and not (asked.action == "cancel" and batch.status == "cancelled"):
            message = f"a batch that is {batch.status} takes no {asked.action}"
            raise HttpRefusal(409, "not_possible", message)
        return JsonReply(200, batch.model_dump(mode="json"))

    async def replay(self, caller: Caller, job_id: str) -> JsonReply:
        """Have the tenant's receiver told again that a batch has ended, with the same event id."""
        job = await self._job(caller, job_id)
        batch = await self._batch(job)
        if batch.status not in TERMINAL:
            message = f"a batch that is {batch.status} has nothing to tell of its end yet"
            raise HttpRefusal(409, "not_possible", message)
        if not await self._outbox.send_webhook(job):
            message = "nobody is to be told: the setting WEBHOOKS names no receiver for the tenant"
            raise HttpRefusal(409, "no_webhook", message)
        return JsonReply(200, batch.model_dump(mode="json"))

    async def list(self, caller: Caller, asked: ListBatches) -> JsonReply:
        """A page of the tenant's jobs, filled past those that are there no more."""
        after = None
        if asked.after is not None:
            job_id = read_batch_id(asked.after)
            after = None if job_id is None else await self._store.job(job_id)
            if after is None or after.tenant != caller.tenant:
                message = "after: there is no such batch"
                raise HttpRefusal(400, "invalid_value", message, param="after")
        found: list[Job] = []
        more = asked.limit > 0
        last: Job | IndexEntry | None = after
        # One more than asked for tells whether others follow.
        while more and len(found) <= asked.limit:
            entries, more = await self._index.page(caller.tenant, asked.limit + 1, last)
            found += await self._jobs([each.id for each in entries if not each.rejected])
            last = entries[-1] if entries else last
        batches = await _all(self._batch, found[: asked.limit])
        return shapes.listed(batches, more=len(found) > asked.limit)

    async def _jobs(self, ids: Sequence[str]) -> Sequence[Job]:
        return [job for job in await _all(self._store.job, ids) if job is not None]

    async def _job(self, caller: Caller, job_id: str) -> Job:
        job = await self._store.job(job_id)
        if job is None or job.tenant != caller.tenant:
            raise HttpRefusal(404, "batch_not_found", "there is no such batch", param="id")
        return job

    async def _told(self, job: Job) -> JsonReply:
        return JsonReply(200, (await self._batch(job)).model_dump(mode="json"))

    async def _batch(self, job: Job) -> Batch:
        held = await self._store.state(job.id)
        state = held.state if held else None
        told = events.status(job, state, self._store.results_container, self._clock())
        verdict = None
        if state is not None and state.state == "failed":
            verdict = await self._store.find(Verdict, self._store.ref(job.id, "verdict.json"))
        return shapes.batch_of(job, state, told, verdict.lines if verdict else ())


async def _all(read: Callable[[Key], Coroutine[Any, Any, Read]], of: Sequence[Key]) -> list[Read]:
    """What a reader gives of each, read at once."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(read(each)) for each in of]
    except BaseExceptionGroup as errors:
        raise first_of(errors) from errors
    return [task.result() for task in tasks]
