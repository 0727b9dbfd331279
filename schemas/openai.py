"""What the OpenAI Batch API says: requests and answers of the doors under `/v1` and `/openai`.

Sources: the API specification and the types of the `openai` package, both of 2026. A field that has
no value is null and not absent, because clients read it either way. Times are whole seconds since
the epoch.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.budgets import BudgetStatus
from schemas.jobs import Metadata, window_seconds
from schemas.money import Amount, Cost
from schemas.requests import TASK_OF_URL
from schemas.status import AtRisk

BatchStatus = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
UploadStatus = Literal["pending", "completed", "cancelled", "expired"]
BATCH_PREFIX: Final = "batch_"
"""What a batch's id begins with; the rest is its job's."""
PURPOSES: Final = ("batch", "fine-tune", "assistants", "vision", "user_data", "evals")
"""What a file may be uploaded for; `batch` is what batches take."""


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class ExpiresAfter(_Asked):
    """When a file is deleted: so many seconds after it was made."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=30 * 86400)]


class BatchCreate(_Asked):
    """The body of `POST /v1/batches`."""

    input_file_id: str
    endpoint: str = Field(examples=sorted(TASK_OF_URL))
    completion_window: str = Field(description="24h, or any up to 30d: a number and s, m, h or d")
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None
    phi3: dict[str, Any] | None = Field(
        default=None,
        description="options of the job (job-options.schema.json), and `mixed`: whether rows may "
        "ask for other endpoints, in any dialect",
    )

    @field_validator("endpoint")
    @classmethod
    def _known(cls, endpoint: str) -> str:
        if endpoint not in TASK_OF_URL:
            raise ValueError(f"unknown endpoint: known are {', '.join(TASK_OF_URL)}")
        return endpoint

    @field_validator("completion_window")
    @classmethod
    def _window(cls, window: str) -> str:
        window_seconds(window)
        return window


class File(_Told):
    """A file: uploaded, or the results of a batch."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    expires_at: int | None = None
    status_details: str | None = None


class FileDeleted(_Told):
    """The answer to `DELETE /v1/files/{id}`."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class UploadCreate(_Asked):
    """The body of `POST /v1/uploads`."""

    bytes: Annotated[int, Field(ge=0)]
    filename: Annotated[str, Field(max_length=1024)]
    mime_type: str
    purpose: str
    expires_after: ExpiresAfter | None = None


class UploadComplete(_Asked):
    """The body of `POST /v1/uploads/{id}/complete`."""

    part_ids: Annotated[list[str], Field(max_length=50_000)]
    md5: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{32}$")] | None = None


class Upload(_Told):
    """A file that comes in parts."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: UploadStatus
    file: File | None = None


class UploadPart(_Told):
    """A part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


class BatchLineError(_Told):
    """What is wrong with a batch, or with one line of its file."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchErrors(_Told):
    """Why a batch failed: the first hundred lines that are wrong."""

    object: Literal["list"] = "list"
    data: tuple[BatchLineError, ...]


class RequestCounts(_Told):
    """Rows of a batch. What was not asked at its end is in neither `completed` nor `failed`."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class InputTokensDetails(_Told):
    """Tokens of prompts that came from a cache: none is known of."""

    cached_tokens: int = 0


class OutputTokensDetails(_Told):
    """Tokens of thought: none is known of."""

    reasoning_tokens: int = 0


class BatchUsage(_Told):
    """Tokens that the endpoints have counted so far."""

    input_tokens: int = 0
    input_tokens_details: InputTokensDetails = InputTokensDetails()
    output_tokens: int = 0
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int = 0


class BatchProgress(_Told):
    """What the service knows beyond the Batch API; typed clients read past it."""

    paused: bool = False
    waiting: dict[str, str] | None = Field(
        default=None, description="reason, deployment, message, since and until, while it waits"
    )
    rate: float | None = Field(default=None, description="rows per second")
    seconds_left: float | None = None
    basis: Literal["measured", "quota"] | None = None
    at_risk: AtRisk | None = Field(
        default=None, description="while it would not be through before its window ends"
    )
    running: int | None = Field(default=None, description="rows done that no count holds yet")
    cost: Cost | None = Field(
        default=None,
        description="of the rows in `request_counts` and those in `running`, at the prices when "
        "it was made; null where nothing that was asked has one",
    )
    projected_cost: Amount | None = Field(
        default=None,
        description="what all its rows would cost if the others cost as much as those that are "
        "done, in the currency of `cost`, also where its cap (`budget`) has no room for that; "
        "null before a row is answered, where calls had no price, and once it is ending",
    )
    projected_tokens: int | None = Field(
        default=None,
        description="what all its rows would have, as its `max_total_tokens` counts them; null "
        "where it has no such cap, before a row is answered, and once it is ending",
    )
    budget: BudgetStatus | None = Field(
        default=None,
        description="of a capped batch: its caps, what is spent and what is reserved of them",
    )
    door: str
    input: str = Field(description="container/name")
    filename: str | None = Field(default=None, description="of an uploaded file, as it was given")
    results: str = Field(description="container/folder")


class Batch(_Told):
    """A batch: a job, whatever its door."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = None
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    usage: BatchUsage = BatchUsage()
    metadata: dict[str, str] | None = None
    phi3: BatchProgress


class BatchEvent(_Told):
    """Something that happened to a batch, as its stored state remembers it."""

    id: str
    object: Literal["batch.event"] = "batch.event"
    created_at: int
    level: Literal["info", "warn", "error"] = "info"
    type: str = Field(description="as the events on the topic are called: batch.in_progress")
    message: str


class Model(_Told):
    """What rows may ask for: a deployment, its model, or a route."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    tasks: tuple[str, ...]


class ErrorDetail(_Told):
    """What is wrong with a call."""

    message: str = Field(description="what happened and what to do, for people")
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str = Field(description="for programs")


class ErrorAnswer(_Told):
    """The body of every refusal."""

    error: ErrorDetail


class OpenApiDocument(BaseModel):
    """An OpenAPI document of version 3.1."""

    model_config = ConfigDict(frozen=True, extra="allow")

    openapi: str
