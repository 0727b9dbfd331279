"""What travels on Service Bus: requests and references on the queues, events on the topic."""

from operator import not_
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from schemas.jobs import Asked, Door, Job
from schemas.status import JobStatus
from schemas.tenants import DEFAULT_TENANT, TenantName
from schemas.versions import SCHEMA_VERSION, Kept, Word

ContainerName = Annotated[str, Field(max_length=63)]
BlobName = Annotated[str, Field(max_length=1024)]
ETag = Annotated[str, Field(max_length=128)]
JobId = Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,64}$")]


class _Message(Kept):
    # Strict: of the text "no" somebody meant false.
    model_config = ConfigDict(strict=True)

    schema_version: int = SCHEMA_VERSION


class JobRequest(BaseModel):
    """Run a file that lies in an input container (sent by back ends to `jobs`).

    The message's MessageId, CorrelationId and application properties come back in every event.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: int = SCHEMA_VERSION
    type: Literal["request"] = "request"
    container: ContainerName
    name: BlobName
    etag: ETag | None = Field(
        default=None, description="the file is run only if this is still its ETag"
    )
    tenant: TenantName = Field(
        default=DEFAULT_TENANT, description="for whom it is run: one that `TENANTS` knows"
    )
    rerun: bool = Field(
        default=False,
        description="run it anew though it was run before; the MessageId tells one rerun from "
        "another, so it needs one",
    )
    options: dict[str, Any] | None = Field(
        default=None,
        description="as in job-options.schema.json; {} is none. Without them the file's own are "
        "taken, and the job is the one that dropping the file makes",
    )


class Announcement(_Message):
    """A file that is to become a job; what all three doors turn into, and the open marker holds."""

    type: Literal["announce"] = "announce"
    job: JobId
    door: Door | Word
    container: ContainerName
    name: BlobName
    etag: ETag
    size: int
    options: dict[str, Any] | None = Field(
        default=None, description="None: look in the blob's metadata and beside it"
    )
    filename: str | None = Field(
        default=None, exclude_if=not_, description="of an uploaded file, as its user gave it"
    )
    asked: Asked = Asked()
    # Not written where it says nothing: earlier versions refuse what they do not know.
    tenant: TenantName = Field(
        default=DEFAULT_TENANT, exclude_if=lambda tenant: tenant == DEFAULT_TENANT
    )


class Finish(_Message):
    """Assemble a job's results."""

    type: Literal["finish"] = "finish"
    job: JobId


def finish(job: Job) -> Finish:
    """The message that has a job's results assembled."""
    return Finish(schema_version=job.schema_version, job=job.id)


class Expire(_Message):
    """End a job whose completion window has passed."""

    type: Literal["expire"] = "expire"
    job: JobId


class ShardMessage(_Message):
    """Run a shard (queue `shards`). `gen` below the state's means: a left-over copy."""

    type: Literal["shard"] = "shard"
    job: JobId
    shard: Annotated[int, Field(ge=0)]
    gen: int


class WebhookMessage(_Message):
    """Tell a tenant's webhook that a job has ended (queue `webhooks`)."""

    type: Literal["webhook"] = "webhook"
    job: JobId
    tenant: TenantName
    since: float = Field(description="when it was first sent, in seconds since the epoch")
    tries: Annotated[int, Field(ge=0)] = Field(default=0, description="how often it was told")


JobsMessage = Annotated[JobRequest | Announcement | Finish | Expire, Field(discriminator="type")]
JOBS_MESSAGE: TypeAdapter[JobsMessage] = TypeAdapter(JobsMessage)

EventType = Literal[
    "job.validating",
    "job.in_progress",
    "job.progress",
    "job.paused",
    "job.resumed",
    "job.cancelling",
    "job.expiring",
    "job.failing",
    "job.finalizing",
    "job.completed",
    "job.failed",
    "job.expired",
    "job.cancelled",
    "job.rejected",
    "job.refused",
    "job.known",
]


class StatusEvent(Kept):
    """A CloudEvents 1.0 event on the topic `job-status`. Consumers keep the highest sequence."""

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(description="the same for each copy of an event; also its MessageId")
    source: str = "phi3-batch-worker"
    type: EventType
    subject: str | None = Field(default=None, description="the job; not there where there is none")
    time: str
    datacontenttype: Literal["application/json"] = "application/json"
    traceparent: str | None = Field(
        default=None, description="the asking message's trace (CloudEvents distributed tracing)"
    )
    sequence: str = Field(description="the state's revision, zero-padded so that it sorts as text")
    data: JobStatus
