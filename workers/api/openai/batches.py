"""Batches over HTTP: jobs as the OpenAI Batch API tells of them."""

from collections.abc import Callable
from functools import partial
from typing import Final

from schemas.jobs import TERMINAL, Job, JobState
from schemas.listing import index_id, index_name
from schemas.openai import Batch
from schemas.plans import Verdict
from schemas.reports import mark
from workers.api.access import Caller
from workers.api.acting import JobActions
from workers.api.http import BytesReply, HttpCall, HttpRefusal, JsonReply
from workers.api.openai import shapes
from workers.api.openai.creating import BatchCreator
from workers.api.openai.ended import EndedBatches
from workers.api.openai.happened import events_of
from workers.api.openai.operations import ActOnBatch, ListBatches
from workers.files.names import read_batch_id
from workers.jobs import events
from workers.jobs.index import JobIndex
from workers.jobs.outbox import Outbox
from workers.jobs.results import read_manifest
from workers.jobs.store import JobStore
from workers.ports.errors import BlobMissing, NewerVersion, Unreadable
from workers.ports.together import all_of

_NO_REPORT: Final = (
    "there is no report: it is written at the batch's end; where it has ended, its manifest says "
    "the same"
)
# Whatever lies in storage, no browser runs it in the name of this service.
_AS_A_FILE: Final = {
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


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
        self._ended = EndedBatches()

    async def create(self, caller: Caller, call: HttpCall) -> JsonReply:
        """Make a batch of an uploaded file."""
        return _told(await self._batch(await self._creator.create(caller, call)))

    async def read(self, caller: Caller, job_id: str) -> JsonReply:
        """A batch as it stands."""
        known = self._ended.find(caller.tenant, job_id)
        if known is not None:
            return _told(known.batch)
        return _told(await self._batch(await self._job(caller, job_id)))

    async def events(self, caller: Caller, job_id: str) -> JsonReply:
        """What has happened to a batch."""
        job = await self._job(caller, job_id)
        held = await self._store.state(job.id)
        state = held.state if held else None
        batch = await self._shaped(job, state)
        return shapes.listed(events_of(batch, state.pauses if state else ()))

    async def manifest(self, caller: Caller, job_id: str) -> BytesReply:
        """A batch's manifest as it was written. The answer is 404 before the batch has ended."""
        job = await self._job(caller, job_id)
        try:
            stands = await read_manifest(self._store, job)
        except BlobMissing:
            message = "the batch has not ended: its manifest is written at its end"
            raise HttpRefusal(404, "manifest_not_found", message, param="id") from None
        return BytesReply(200, stands.data, content_type="application/json")

    async def report(self, caller: Caller, job_id: str) -> BytesReply:
        """How a batch went, as it was written. The answer is 404 where no report of it stands."""
        job = await self._job(caller, job_id)
        try:
            data = (await self._store.blobs.read(self._store.result(job, "report.html"))).data
        except BlobMissing:
            data = b""
        if mark(job.id).encode() not in data:  # somebody else's may lie under the name
            raise HttpRefusal(404, "report_not_found", _NO_REPORT, param="id")
        return BytesReply(200, data, _AS_A_FILE, content_type="text/html; charset=utf-8")

    async def act(self, caller: Caller, asked: ActOnBatch) -> JsonReply:
        """Cancel, pause or resume a batch; the answer is 409 where its state does not allow it."""
        job = await self._job(caller, asked.id)
        done = await self._actions.act(job.id, asked.action)
        batch = await self._batch(job)
        if not done and not (asked.action == "cancel" and batch.status == "cancelled"):
            stands = "paused" if batch.phi3.paused else batch.status
            message = f"{batch.id} is {stands} and takes no {asked.action}"
            message += ": what it has answered can be fetched" if batch.status in TERMINAL else ""
            raise HttpRefusal(409, "not_possible", message)
        return _told(batch)

    async def replay(self, caller: Caller, job_id: str) -> JsonReply:
        """Have the tenant's receiver told again that a batch has ended, with the same event id."""
        job = await self._job(caller, job_id)
        batch = await self._batch(job)
        if batch.status not in TERMINAL:
            message = f"{batch.id} is {batch.status} and has no end to tell of yet"
            raise HttpRefusal(409, "not_possible", message)
        if not await self._outbox.send_webhook(job):
            message = "nobody is to be told: the setting WEBHOOKS names no receiver for the tenant"
            raise HttpRefusal(409, "no_webhook", message)
        return _told(batch)

    async def list(self, caller: Caller, asked: ListBatches) -> JsonReply:
        """A page of the tenant's jobs, filled past those that are there no more."""
        last = None
        if asked.after is not None:
            job_id = read_batch_id(asked.after)
            last = None if job_id is None else await self._index.place((caller.tenant,), job_id)
            if last is None:
                message = "after: there is no such batch"
                raise HttpRefusal(400, "invalid_value", message, param="after")
        found: list[Batch] = []
        more = asked.limit > 0
        # One more than asked for tells whether others follow.
        while more and len(found) <= asked.limit:
            names, more = await self._index.names(caller.tenant, asked.limit + 1, last)
            listed = await all_of(partial(self._listed, caller.tenant), names)
            found += [batch for batch in listed if batch is not None]
            last = names[-1] if names else last
        return shapes.listed(found[: asked.limit], more=len(found) > asked.limit)

    async def _listed(self, tenant: str, name: str) -> Batch | None:
        """The batch of an entry of the index; None where the entry is of a rejection, or of a job
        that is gone or that this version cannot read: the others are listed all the same.

        A rejection may be called as a job is that was made of the same file later.
        """
        identity = index_id(name)
        known = self._ended.find(tenant, identity)
        if known is not None:
            return known.batch if index_name(known.created, identity) == name else None
        try:
            job = await self._store.job(identity)
            if job is None or index_name(job.created, identity) != name:
                return None
            return await self._batch(job)
        except (NewerVersion, Unreadable):
            return None

    async def _job(self, caller: Caller, job_id: str) -> Job:
        job = await self._store.job(job_id)
        if job is None or job.tenant != caller.tenant:
            raise HttpRefusal(404, "batch_not_found", "there is no such batch", param="id")
        return job

    async def _batch(self, job: Job) -> Batch:
        held = await self._store.state(job.id)
        return await self._shaped(job, held.state if held else None)

    async def _shaped(self, job: Job, state: JobState | None) -> Batch:
        told = events.status(job, state, self._store.results_container, self._clock())
        verdict = None
        if state is not None and state.state == "failed":
            verdict = await self._store.find(Verdict, self._store.ref(job.id, "verdict.json"))
        batch = shapes.batch_of(job, state, told, verdict.lines if verdict else ())
        if state is not None and state.terminal:
            self._ended.keep(job, batch)
        return batch


def _told(batch: Batch) -> JsonReply:
    return JsonReply(200, batch.model_dump(mode="json"))
