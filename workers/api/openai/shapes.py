"""What clients of the OpenAI Batch API are told of files and jobs."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from schemas.deployments import Deployment
from schemas.files import FileRecord, UploadRecord
from schemas.jobs import Job, JobState, Reason
from schemas.openai import (
    Batch,
    BatchErrors,
    BatchEvent,
    BatchLineError,
    BatchProgress,
    BatchStatus,
    BatchUsage,
    File,
    Model,
    RequestCounts,
    Upload,
    UploadStatus,
)
from schemas.plans import LineError
from schemas.results import ManifestFile
from schemas.status import JobStatus
from workers.api.http import JsonReply
from workers.files.names import ResultPart, batch_id, file_id, input_id, result_id, upload_id

_USUAL: Final = "/v1/chat/completions"
"""The endpoint of a batch whose rows may ask for any, as jobs of other doors."""


# What clients test for, and the field it is about, where this service has words of its own.
_CODES: Final[Mapping[str, tuple[str, str | None]]] = {
    "invalid_json": ("invalid_json_line", None),
    "unknown_url": ("invalid_url", "url"),
    "url_mismatch": ("invalid_url", "url"),
    "duplicate_custom_id": ("duplicate_custom_id", "custom_id"),
    "no_model": ("missing_required_parameter", "body.model"),
    "unknown_model": ("model_not_found", "body.model"),
}


def status_of(state: JobState | None) -> BatchStatus:
    """The word for a job's state, of the eight that typed clients know."""
    if state is None:
        return "validating"
    if state.terminal or state.ending is None:
        return state.state
    if state.ending == "cancelled":
        return "cancelling"
    return "validating" if state.state == "validating" else "finalizing"


def batch_of(
    job: Job, state: JobState | None, told: JobStatus, wrong: Sequence[LineError] = ()
) -> Batch:
    """A job as a batch. `told` is its status; `wrong` are the lines for which it failed."""
    known = state or JobState(revision=0, state="validating")
    ends = {f"{known.state}_at": _whole(known.ended)} if known.terminal else {}
    counts, tokens = known.counts, known.told_tokens
    output, failed = counts.succeeded > 0, counts.errors > 0
    return Batch(
        id=batch_id(job.id),
        endpoint=job.options.endpoint or _USUAL,
        model=job.options.model,
        errors=_errors(known, wrong),
        input_file_id=input_id(job.id, job.door, job.name),
        completion_window=job.options.completion_window,
        status=status_of(state),
        # Not before the end: who is told of a file downloads it.
        output_file_id=result_id(job.id, "output") if known.terminal and output else None,
        error_file_id=result_id(job.id, "errors") if known.terminal and failed else None,
        created_at=int(job.created),
        in_progress_at=_whole(known.started),
        expires_at=int(job.expires),
        finalizing_at=_whole(known.finalizing_since),
        cancelling_at=_whole(known.ending_since) if known.ending == "cancelled" else None,
        request_counts=RequestCounts(
            total=counts.total,
            completed=counts.succeeded,
            failed=counts.failed + counts.invalid,
        ),
        usage=BatchUsage(
            input_tokens=tokens.prompt,
            output_tokens=tokens.completion,
            total_tokens=tokens.total,
        ),
        metadata=job.metadata or None,
        phi3=_progress(job, known, told),
        **ends,
    )


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)


def _errors(state: JobState, wrong: Sequence[LineError]) -> BatchErrors | None:
    if state.state != "failed":
        return None
    reason = state.reason or Reason(code="failed", message="the job failed")
    return BatchErrors(
        data=tuple(_line_error(each) for each in wrong)
        or (BatchLineError(code=reason.code, message=reason.message),)
    )


def _line_error(wrong: LineError) -> BatchLineError:
    code, param = _CODES.get(wrong.code, (wrong.code, None))
    return BatchLineError(code=code, message=wrong.message, param=param, line=wrong.line)


def _progress(job: Job, state: JobState, told: JobStatus) -> BatchProgress:
    return BatchProgress(
        paused=state.paused,
        waiting=told.waiting,
        rate=told.rate,
        seconds_left=told.seconds_left,
        basis=told.basis,
        at_risk=told.at_risk,
        running=told.running,
        cost=told.cost,
        projected_cost=told.projected_cost,
        projected_tokens=told.projected_tokens,
        budget=told.budget,
        door=job.door,
        input=job.input,
        filename=job.filename,
        results=told.results or "",
    )


def uploaded(record: FileRecord) -> File:
    """An uploaded file."""
    return File(
        id=file_id(record.key),
        bytes=record.bytes,
        created_at=int(record.created),
        filename=record.filename,
        purpose=record.purpose,
        expires_at=None if record.expires is None else int(record.expires),
    )


def upload_status(record: UploadRecord, now: float) -> UploadStatus:
    """An upload's state, as time has it."""
    return "expired" if record.state == "pending" and now >= record.expires else record.state


def upload_of(record: UploadRecord, file: FileRecord | None, now: float) -> Upload:
    """An upload, with the file that it has become."""
    return Upload(
        id=upload_id(record.key),
        bytes=record.bytes,
        created_at=int(record.created),
        expires_at=int(record.expires),
        filename=record.filename,
        purpose=record.purpose,
        status=upload_status(record, now),
        file=None if file is None else uploaded(file),
    )


def input_of(job: Job) -> File:
    """The input of a job that came by another door."""
    return File(
        id=file_id(job.id),
        bytes=job.size,
        created_at=int(job.created),
        filename=job.name.rpartition("/")[2] or job.name,
        purpose="batch",
    )


def result_of(job: Job, part: ResultPart, file: ManifestFile, ended: float) -> File:
    """A result file; it stands from the job's end on."""
    kept = job.options.output_expires_after
    return File(
        id=result_id(job.id, part),
        bytes=file.length,
        created_at=int(ended),
        filename=f"{batch_id(job.id)}_{file.name}",
        purpose="batch_output",
        expires_at=None if kept is None else int(ended + kept),
    )


def models_of(
    deployments: Sequence[Deployment], routes: Mapping[str, Sequence[str]]
) -> list[Model]:
    """What rows may name as their model, each with the tasks that somebody does for it.

    As in `dispatch.routing`: a route comes before a model, and a model before a deployment.
    """
    served = {each.name: (each,) for each in deployments}
    models: dict[str, tuple[Deployment, ...]] = {}
    for each in deployments:
        models[each.model] = (*models.get(each.model, ()), each)
    routed = {
        name: tuple(one for member in members for one in served[member])
        for name, members in routes.items()
    }
    tasks = {
        name: dict.fromkeys(task for each in those for task in each.serves)
        for name, those in (models | served | models | routed).items()
    }
    return [
        Model(id=name, owned_by="route" if name in routes else "deployment", tasks=tuple(done))
        for name, done in tasks.items()
    ]


def listed(data: Sequence[File | Batch | Model | BatchEvent], *, more: bool = False) -> JsonReply:
    """A page of a list."""
    told: list[dict[str, Any]] = [each.model_dump(mode="json") for each in data]
    return JsonReply(
        200,
        {
            "object": "list",
            "data": told,
            "first_id": told[0]["id"] if told else None,
            "last_id": told[-1]["id"] if told else None,
            "has_more": more,
        },
    )
