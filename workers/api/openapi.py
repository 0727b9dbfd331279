"""The OpenAPI document of all doors, made of the models that they read and answer with."""

import functools
import re
from typing import Any, Final, NamedTuple, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from schemas import openai
from schemas.budgets import MonthStatus
from schemas.estimating import Estimate, EstimateCreate
from schemas.health import DeploymentStatus, ServiceHealth
from schemas.history import ErrorCount, Sample
from schemas.listing import ResultLink
from schemas.messages import JobRequest
from schemas.money import CostSum
from schemas.results import Manifest
from schemas.status import JobStatus
from schemas.webhooks import WebhookEvent, WebhookType
from workers.api import routing
from workers.api.matching import Operation, Route
from workers.api.openai import operations

_REF: Final = "#/components/schemas/{model}"
_FORM_OF_FILE: Final = {
    "purpose": {"type": "string", "enum": list(openai.PURPOSES)},
    "expires_after[anchor]": {"type": "string", "const": "created_at"},
    "expires_after[seconds]": {"type": "string", "pattern": "^[0-9]+$"},
    "file": {"type": "string", "format": "binary"},
}
_FORM_OF_PART: Final = {"data": {"type": "string", "format": "binary"}}
_ABOUT: Final = (
    "Paths below /v1 are served below /openai/v1 and /openai too, for Azure's clients, with any "
    "`api-version`."
)
_FUNCTION_KEY: Final = [{"function_key": list[str]()}]
_API_KEY: Final = [{"api_key": list[str]()}, {"azure_key": list[str]()}]


class Exchange(NamedTuple):
    """What an operation reads and answers: a model, its list, a form, or bytes where it is none."""

    answer: type[BaseModel] | None
    listed: bool = False
    body: type[BaseModel] | None = None
    form: dict[str, Any] | None = None
    code: int = 200
    also: int | None = None
    """A second code with the same answer."""
    media: str = "application/octet-stream"
    """Of bytes."""
    elsewhere: bool = False
    """Whether it may answer 302 with a link instead."""


EXCHANGES: Final[dict[type[Operation], Exchange]] = {
    operations.CreateFile: Exchange(openai.File, form=_FORM_OF_FILE),
    operations.ListFiles: Exchange(openai.File, listed=True),
    operations.ReadFile: Exchange(openai.File),
    operations.DeleteFile: Exchange(openai.FileDeleted),
    operations.ReadContent: Exchange(None, elsewhere=True),
    operations.CreateUpload: Exchange(openai.Upload, body=openai.UploadCreate),
    operations.AddPart: Exchange(openai.UploadPart, form=_FORM_OF_PART),
    operations.CompleteUpload: Exchange(openai.Upload, body=openai.UploadComplete),
    operations.CancelUpload: Exchange(openai.Upload),
    operations.CreateBatch: Exchange(openai.Batch, body=openai.BatchCreate),
    operations.ListBatches: Exchange(openai.Batch, listed=True),
    operations.ReadBatch: Exchange(openai.Batch),
    operations.ActOnBatch: Exchange(openai.Batch),
    operations.ReadEvents: Exchange(openai.BatchEvent, listed=True),
    operations.ReadManifest: Exchange(Manifest),
    operations.ReadReport: Exchange(None, media="text/html"),
    operations.ReplayWebhook: Exchange(openai.Batch),
    operations.CreateEstimate: Exchange(Estimate, body=EstimateCreate),
    operations.ListModels: Exchange(openai.Model, listed=True),
    operations.ReadModel: Exchange(openai.Model),
    operations.ReadOpenApi: Exchange(openai.OpenApiDocument),
    routing.ListJobs: Exchange(JobStatus, listed=True),
    routing.CreateJob: Exchange(JobStatus, body=JobRequest, code=202),
    routing.ReadJob: Exchange(JobStatus),
    routing.ReadSamples: Exchange(Sample, listed=True),
    routing.ReadErrors: Exchange(ErrorCount, listed=True),
    routing.CreateLinks: Exchange(ResultLink, listed=True),
    routing.Act: Exchange(JobStatus, code=202),
    routing.ReadCosts: Exchange(CostSum, listed=True),
    routing.ReadBudgets: Exchange(MonthStatus, listed=True),
    routing.EstimateJob: Exchange(Estimate, body=EstimateCreate),
    routing.ListDeployments: Exchange(DeploymentStatus, listed=True),
    routing.Probe: Exchange(DeploymentStatus, code=202),
    routing.ReadHealth: Exchange(ServiceHealth, also=503),
}


@functools.cache
def document() -> dict[str, Any]:
    """The document. It is made once; nobody may change it."""
    paths: dict[str, dict[str, Any]] = {}
    for prefix, table in (("/v1", operations.ROUTES), ("", routing.ROUTES)):
        for route in table:
            path, parts = _path(prefix, route)
            paths.setdefault(path, {})[route.method.lower()] = _operation(route, parts)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Phi-3 batch worker", "version": "1", "description": _ABOUT},
        "paths": paths,
        "webhooks": {kind: {"post": _webhook(kind)} for kind in get_args(WebhookType)},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "api_key": {"type": "http", "scheme": "bearer"},
                "azure_key": {"type": "apiKey", "in": "header", "name": "api-key"},
                "function_key": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
            },
        },
    }


def _schemas() -> dict[str, Any]:
    answers = [each.answer for each in EXCHANGES.values() if each.answer is not None]
    bodies = [each.body for each in EXCHANGES.values() if each.body is not None]
    modes: list[tuple[type[BaseModel], Any]] = [
        *((model, "serialization") for model in answers),
        *((model, "validation") for model in bodies),
        (openai.ErrorAnswer, "serialization"),
        (WebhookEvent, "serialization"),
    ]
    _, schema = models_json_schema(list(dict.fromkeys(modes)), ref_template=_REF)
    found: dict[str, Any] = schema["$defs"]
    return found


def _path(prefix: str, route: Route) -> tuple[str, dict[str, Any]]:
    """A route's path as OpenAPI writes it, and the schemas of its parts."""
    parts: dict[str, Any] = {}

    def part(match: re.Match[str]) -> str:
        name, words = match[1], match[2]
        parts[name] = {"type": "string"} | ({"enum": words.split("|")} if "|" in words else {})
        return f"{{{name}}}"

    return prefix + re.sub(r"\(\?P<(\w+)>([^)]*)\)", part, route.path.pattern), parts


def _operation(route: Route, parts: dict[str, Any]) -> dict[str, Any]:
    exchange, fields = EXCHANGES[route.operation], route.operation.model_fields
    schema: dict[str, Any] = {}
    if fields.keys() - parts.keys():
        schema = route.operation.model_json_schema(ref_template=_REF)["properties"]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": part}
        for name, part in parts.items()
    ] + [
        {"name": name, "in": "query", "schema": schema[name]}
        for name in fields
        if name not in parts
    ]
    told: dict[str, Any] = {
        "operationId": route.operation.__name__,
        "summary": (route.operation.__doc__ or "").replace("\n    ", " "),
        "security": _FUNCTION_KEY if "/api/" in route.path.pattern else _API_KEY,
        "parameters": parameters,
        "responses": {
            str(exchange.code): {"description": "done", "content": _content(exchange)},
            "default": {"description": "refused", "content": _json(_ref(openai.ErrorAnswer))},
        },
    }
    if exchange.also is not None:
        told["responses"][str(exchange.also)] = told["responses"][str(exchange.code)]
    if exchange.elsewhere:
        told["responses"]["302"] = {
            "description": "a link that holds for minutes; it wants no Authorization",
            "headers": {"Location": {"schema": {"type": "string", "format": "uri"}}},
        }
    if exchange.body is not None:
        told["requestBody"] = {"required": True, "content": _json(_ref(exchange.body))}
    if exchange.form is not None:
        form = {"type": "object", "properties": exchange.form}
        told["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}},
        }
    return told


def _webhook(kind: str) -> dict[str, Any]:
    """What a tenant's receiver is sent at a batch's end."""
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return {
        "operationId": kind,
        "summary": "A batch has ended. Signed as Standard Webhooks says: docs/webhooks.md.",
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
            for name in names
        ],
        "requestBody": {"required": True, "content": _json(_ref(WebhookEvent))},
        "responses": {"2XX": {"description": "taken; anything else is tried again, but 410"}},
    }


def _content(exchange: Exchange) -> dict[str, Any]:
    if exchange.answer is None:
        return {exchange.media: {"schema": {"type": "string", "format": "binary"}}}
    one = _ref(exchange.answer)
    if not exchange.listed:
        return _json(one)
    return _json(
        {
            "type": "object",
            "required": ["object", "data", "has_more"],
            "properties": {
                "object": {"const": "list"},
                "data": {"type": "array", "items": one},
                "first_id": {"type": ["string", "null"]},
                "last_id": {"type": ["string", "null"]},
                "has_more": {"type": "boolean"},
            },
        }
    )


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
