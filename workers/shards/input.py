"""What a shard's rows are: its piece of the input, read as the plan has it."""

import dataclasses
from collections.abc import Container
from typing import Protocol

from schemas.deployments import Task
from schemas.jobs import Job
from schemas.plans import PlannedShard
from workers.jobs.store import JobStore
from workers.ports import BlobRef
from workers.rows import reasons
from workers.rows.dialects import told_apart
from workers.rows.lines import kept_bytes, lines_of
from workers.rows.reading import MAX_BYTES, NO_MODEL, Refusal, Request, RowRules, read_row

Row = Request | Refusal


class Routes(Protocol):
    """What reading rows asks of the dispatcher."""

    def cannot(self, task: Task, model: str, among: Container[str] | None = None) -> str | None:
        """Why no deployment (of those `among` names) serves a model's task; None where one does."""


async def read_rows(
    store: JobStore, job: Job, planned: PlannedShard, rules: RowRules, routes: Routes
) -> list[Row]:
    """A shard's rows as they stand in the input.

    Raises BlobMissing or BlobChanged where that is not what was planned any more.
    """
    # An over-long line stands alone in its shard, and only its beginning is ever read.
    most = max(MAX_BYTES, kept_bytes(job.max_line_bytes) + 1)
    data = await store.blobs.read_range(
        BlobRef(job.container, job.name),
        planned.offset,
        min(planned.length, most),
        etag=job.etag,
    )
    duplicates = await store.duplicates(job.id, planned)
    lines = lines_of(
        data,
        job.max_line_bytes,
        number=planned.line,
        offset=planned.offset,
        length=planned.length,
    )
    read = [read_row(line.number, line.content, rules, line.offset, line.length) for line in lines]
    apart = [
        _told_apart(row, job, taken=times > 1) if (times := duplicates[row.line]) else row
        for row in read
    ]
    among = None if job.options.max_cost is None else job.askable
    return [_vetted(row, routes, among) for row in apart]


def _told_apart(row: Row, job: Job, *, taken: bool) -> Row:
    """A row whose custom_id is another's too; `taken` where the numbered one is as well."""
    if isinstance(row, Refusal):
        return row
    # No file can hold this: the job's id comes of the file's ETag.
    own = f"{job.id}-{row.line}"
    if not row.named:
        return row._replace(custom_id=own)
    numbered = row._replace(custom_id=own if taken else told_apart(row.custom_id, row.line))
    if job.options.on_duplicate == "number":
        return numbered
    # Its request already has the other name: dropped again, all of them are asked.
    refusal = _refusal(numbered, "duplicate_custom_id", reasons.DUPLICATE)
    return dataclasses.replace(refusal, custom_id=row.custom_id)


def _vetted(row: Row, routes: Routes, among: Container[str] | None) -> Row:
    if isinstance(row, Refusal):
        return row
    if row.model is None:
        return _refusal(row, "no_model", NO_MODEL)
    cannot = routes.cannot(row.task, row.model, among)
    if cannot is None:
        return row
    served = among is not None and routes.cannot(row.task, row.model) is None
    return _refusal(row, "no_price" if served else "unknown_model", cannot)


def _refusal(request: Request, code: str, message: str) -> Refusal:
    return Refusal(
        request.line,
        request.custom_id,
        code,
        f"line {request.line}: {message}",
        request=request.as_batch_row(),
    )
