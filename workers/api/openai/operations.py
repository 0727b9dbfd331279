"""Which operation of the OpenAI Batch API does a call ask for, and what does its body say?"""

import json
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from schemas.requests import deeper_than
from schemas.wrong_values import wrong_values
from workers.api.http import HttpCall, HttpRefusal
from workers.api.matching import Operation, digits, find, routes
from workers.api.routing import Action
from workers.files.names import FileId, read_batch_id, read_file_id, read_upload_id

MAX_JSON_BYTES: Final = 4 * 1024 * 1024
"""Fifty thousand ids of parts, and options of any length that they may have."""
_DEEPEST: Final = 32
_FILE: Final = ("file_not_found", "there is no such file")
_MODEL: Final = (
    "model_not_found",
    "no deployment serves such a model: GET /v1/models tells which are served",
)
_UPLOAD: Final = ("upload_not_found", "there is no such upload")
_BATCH: Final = ("batch_not_found", "there is no such batch")

Body = TypeVar("Body", bound=BaseModel)


def _file(text: object) -> FileId:
    found = read_file_id(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("not an id of a file")
    return found


def _batch(text: object) -> str:
    found = read_batch_id(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("not an id of a batch")
    return found


def _upload(text: object) -> str:
    found = read_upload_id(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("not an id of an upload")
    return found


_KeyOfUpload = Annotated[str, BeforeValidator(_upload)]
_FileId = Annotated[FileId, BeforeValidator(_file)]
_JobOfBatch = Annotated[str, BeforeValidator(_batch)]


class CreateFile(Operation):
    """`POST /v1/files`: the body is a form of `purpose`, `expires_after` and `file`."""

    has_body: ClassVar = True


class ListFiles(Operation):
    """`GET /v1/files`: the tenant's uploaded files."""

    after: str | None = None
    limit: Annotated[int, Field(ge=0, le=10_000), BeforeValidator(digits)] = 10_000
    order: Literal["asc", "desc"] = "desc"
    purpose: str | None = None


class ReadFile(Operation):
    """`GET /v1/files/{id}`."""

    unknown: ClassVar = _FILE
    id: _FileId


class DeleteFile(ReadFile):
    """`DELETE /v1/files/{id}`."""


class ReadContent(ReadFile):
    """`GET /v1/files/{id}/content`."""


class CreateUpload(Operation):
    """`POST /v1/uploads`: the body is an `UploadCreate`."""

    has_body: ClassVar = True


class _OfUpload(Operation):
    unknown: ClassVar = _UPLOAD
    id: _KeyOfUpload


class AddPart(_OfUpload):
    """`POST /v1/uploads/{id}/parts`: the body is a form of `data`."""

    has_body: ClassVar = True


class CompleteUpload(_OfUpload):
    """`POST /v1/uploads/{id}/complete`: the body is an `UploadComplete`."""

    has_body: ClassVar = True


class CancelUpload(_OfUpload):
    """`POST /v1/uploads/{id}/cancel`."""


class CreateBatch(Operation):
    """`POST /v1/batches`: the body is a `BatchCreate`."""

    has_body: ClassVar = True


class ListBatches(Operation):
    """`GET /v1/batches`: the tenant's jobs, whatever their doors, newest first."""

    after: str | None = None
    limit: Annotated[int, Field(ge=0, le=100), BeforeValidator(digits)] = 20


class ReadBatch(Operation):
    """`GET /v1/batches/{id}`."""

    unknown: ClassVar = _BATCH
    id: _JobOfBatch


class ActOnBatch(ReadBatch):
    """`POST /v1/batches/{id}/cancel`, `/pause` or `/resume`."""

    action: Action


class ReadEvents(ReadBatch):
    """`GET /v1/batches/{id}/events`: what has happened to it, the latest first."""


class ReadManifest(ReadBatch):
    """`GET /v1/batches/{id}/manifest`: what its results hold, and the proof."""


class ReadReport(ReadBatch):
    """`GET /v1/batches/{id}/report`: how it went, a page in one file, once it has ended."""


class ReplayWebhook(ReadBatch):
    """`POST /v1/batches/{id}/webhooks`: tell the tenant's receiver once more that it has ended."""


class CreateEstimate(Operation):
    """`POST /v1/estimate`: the body is an `EstimateCreate`; nothing is stored or asked."""

    has_body: ClassVar = True


class ListModels(Operation):
    """`GET /v1/models`: deployments, their models, and the routes."""


class ReadModel(Operation):
    """`GET /v1/models/{id}`: one of them; its name may have slashes."""

    unknown: ClassVar = _MODEL
    id: str


class ReadOpenApi(Operation):
    """`GET /v1/openapi.json`: this document."""


FileOperation = CreateFile | ListFiles | DeleteFile | ReadContent | ReadFile
UploadOperation = CreateUpload | AddPart | CompleteUpload | CancelUpload
BatchOperation = (
    CreateBatch
    | ListBatches
    | ActOnBatch
    | ReadEvents
    | ReadManifest
    | ReadReport
    | ReplayWebhook
    | ReadBatch
)
ServiceOperation = CreateEstimate | ListModels | ReadModel | ReadOpenApi
OpenAiOperation = FileOperation | UploadOperation | BatchOperation | ServiceOperation

ROUTES: Final = routes(
    ("POST", "/files", CreateFile),
    ("GET", "/files", ListFiles),
    ("GET", "/files/{id}", ReadFile),
    ("DELETE", "/files/{id}", DeleteFile),
    ("GET", "/files/{id}/content", ReadContent),
    ("POST", "/uploads", CreateUpload),
    ("POST", "/uploads/{id}/parts", AddPart),
    ("POST", "/uploads/{id}/complete", CompleteUpload),
    ("POST", "/uploads/{id}/cancel", CancelUpload),
    ("POST", "/batches", CreateBatch),
    ("GET", "/batches", ListBatches),
    ("GET", "/batches/{id}", ReadBatch),
    ("POST", "/batches/{id}/(?P<action>cancel|pause|resume)", ActOnBatch),
    ("GET", "/batches/{id}/events", ReadEvents),
    ("GET", "/batches/{id}/manifest", ReadManifest),
    ("GET", "/batches/{id}/report", ReadReport),
    ("POST", "/batches/{id}/webhooks", ReplayWebhook),
    ("POST", "/estimate", CreateEstimate),
    ("GET", "/models", ListModels),
    ("GET", "/models/(?P<id>.+)", ReadModel),
    ("GET", "/openapi.json", ReadOpenApi),
)

# Of several that begin alike the longest comes first.
_PREFIXES: Final = ("/openai/v1", "/openai", "/v1")
# Azure's clients send a version with every call: there is one contract here, whatever it says.
_IGNORED: Final = frozenset({"api-version"})


def route(call: HttpCall) -> OpenAiOperation:
    """The operation that a call asks for. Raises HttpRefusal with 404, 405 or 400."""
    prefix = next((each for each in _PREFIXES if call.path.startswith(f"{each}/")), call.path)
    path = call.path.removeprefix(prefix)
    return cast("OpenAiOperation", find(ROUTES, path, call, _IGNORED))


_CODES: Final = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
}


def read_body(model: type[Body], call: HttpCall) -> Body:
    """The JSON body of a call. Raises HttpRefusal with 400 that names the field that is wrong."""
    if len(call.body) > MAX_JSON_BYTES:
        raise HttpRefusal(413, "body_too_large", f"the body has more than {MAX_JSON_BYTES:,} bytes")
    try:
        raw: Any = json.loads(call.body.decode())
    except (ValueError, RecursionError):
        raise HttpRefusal(400, "invalid_json", "the body is not JSON in UTF-8") from None
    if not isinstance(raw, dict) or deeper_than(raw, _DEEPEST):
        message = f"the body has to be a JSON object, at most {_DEEPEST} levels deep"
        raise HttpRefusal(400, "invalid_json", message)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise _wrong(error) from None


def _wrong(error: ValidationError) -> HttpRefusal:
    first = wrong_values(error)[0]
    param = ".".join(map(str, first.loc))[:100]
    usual = "invalid_type" if first.kind.endswith("_type") else "invalid_value"
    return HttpRefusal(400, _CODES.get(first.kind, usual), f"{param}: {first.words}", param=param)
