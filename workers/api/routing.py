"""Which operation does a method, a path and a query ask for, and is the query one it takes?"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from schemas.jobs import Door, JobStatus, ShownState
from schemas.listing import IndexEntry
from schemas.messages import JobId
from schemas.tenants import DEFAULT_TENANT, TenantName
from workers.api.http import HttpCall, HttpRefusal

MOST_JOBS: Final = 100
METADATA: Final = "metadata_"
"""What a metadata name begins with in a query, as in the properties of events."""

_NUMBER: Final = re.compile(r"[0-9]{1,3}")
Action = Literal["cancel", "pause", "resume"]


def _seconds(value: object) -> object:
    """Epoch seconds of ISO 8601; a time without a zone is UTC, as all times of the service are."""
    if not isinstance(value, str) or value.isdecimal():
        return value
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("write 2026-11-25T22:00:00Z, or seconds since the epoch") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _digits(value: object) -> object:
    # A number is read as it is written: int() takes spaces, signs and the digits of any script.
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError("write a whole number")
    return value


# Rejections are named by the message that was rejected.
Identity = Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,96}$")]
_Time = Annotated[float, BeforeValidator(_seconds)]


class _Operation(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ListJobs(_Operation):
    """`GET /api/jobs`: the newest jobs first, a page of those that fit all of the filters."""

    limit: Annotated[int, BeforeValidator(_digits), Field(ge=1, le=MOST_JOBS)] = 20
    after: Identity | None = Field(default=None, description="the `last_id` of the page before")
    tenant: TenantName = DEFAULT_TENANT
    state: ShownState | None = None
    door: Door | None = None
    input: str | None = Field(default=None, description="container/name")
    created_after: _Time | None = Field(default=None, description="ISO 8601, or epoch seconds")
    created_before: _Time | None = Field(default=None, description="ISO 8601, or epoch seconds")
    metadata: dict[str, str] = Field(default_factory=dict, description="metadata_{name}={value}")

    @property
    def filters(self) -> bool:
        """Whether not all jobs are wanted."""
        return bool(self.model_fields_set - {"limit", "after", "tenant"})

    def lists(self, entry: IndexEntry) -> bool:
        """Whether a job fits the filters by what never changes of it."""
        return (
            self.door in (None, entry.door)
            and self.input in (None, entry.input)
            and (self.created_after is None or entry.created > self.created_after)
            and (self.created_before is None or entry.created < self.created_before)
            and self.metadata.items() <= entry.metadata.items()
        )

    def takes(self, told: JobStatus) -> bool:
        """Whether a job fits the filters as it stands now."""
        return self.state in (None, told.state)


class CreateJob(_Operation):
    """`POST /api/jobs`: the body is a job request, as on the queue `jobs`."""


class ReadJob(_Operation):
    """`GET /api/jobs/{id}`: a job, or a rejection."""

    id: Identity


class Act(_Operation):
    """`POST /api/jobs/{id}/cancel`, `/pause` or `/resume`."""

    id: JobId
    action: Action


class ListDeployments(_Operation):
    """`GET /api/deployments`."""


class Probe(_Operation):
    """`POST /api/deployments/{name}/probe`: try a deployment that is out of order now."""

    name: str


Operation = ListJobs | CreateJob | ReadJob | Act | ListDeployments | Probe

_ROUTES: Final[tuple[tuple[str, re.Pattern[str], type[Operation]], ...]] = tuple(
    (method, re.compile(pattern), operation)
    for method, pattern, operation in (
        ("GET", r"/api/jobs", ListJobs),
        ("POST", r"/api/jobs", CreateJob),
        ("GET", r"/api/jobs/(?P<id>[^/]+)", ReadJob),
        ("POST", r"/api/jobs/(?P<id>[^/]+)/(?P<action>cancel|pause|resume)", Act),
        ("GET", r"/api/deployments", ListDeployments),
        ("POST", r"/api/deployments/(?P<name>[^/]+)/probe", Probe),
    )
)


def route(call: HttpCall) -> Operation:
    """The operation that a call asks for. Raises HttpRefusal with 404, 405 or 400."""
    path = call.path.rstrip("/")
    found = [
        (method, operation, match.groupdict())
        for method, pattern, operation in _ROUTES
        if (match := pattern.fullmatch(path))
    ]
    if not found:
        raise HttpRefusal(404, "unknown_url", f"there is no {call.path[:200]}: see docs/http.md")
    for method, operation, parts in found:
        if method == call.method:
            return _read(operation, parts, call.query)
    allowed = ", ".join(sorted({method for method, _, _ in found}))
    raise HttpRefusal(
        405,
        "method_not_allowed",
        f"{call.path[:200]} takes {allowed}, not {call.method}",
        headers={"Allow": allowed},
    )


def _read(
    operation: type[Operation], parts: Mapping[str, str], query: Mapping[str, str]
) -> Operation:
    # `code` is the function key, which the host has read.
    given: dict[str, Any] = {name: text for name, text in query.items() if name != "code"}
    for name in parts.keys() & given.keys():
        raise _unknown_parameter(operation, name)
    metadata = {
        name.removeprefix(METADATA): given.pop(name)
        for name in list(given)
        if name.startswith(METADATA)
    }
    if metadata:
        given["metadata"] = metadata
    try:
        return operation.model_validate({**given, **parts})
    except ValidationError as error:
        raise _refused(operation, error) from None


def _refused(operation: type[Operation], error: ValidationError) -> HttpRefusal:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    if name == "id":
        return HttpRefusal(404, "unknown_job", "there is no such job", param="id")
    if first["type"] == "extra_forbidden":
        return _unknown_parameter(operation, name)
    message = f"{name}: {first['msg'].removeprefix('Value error, ')}"
    return HttpRefusal(400, "invalid_value", message, param=name)


def _unknown_parameter(operation: type[Operation], name: str) -> HttpRefusal:
    known = ", ".join(_parameters(operation)) or "none"
    message = f"{name[:100]!r} is no parameter of this operation; its parameters: {known}"
    return HttpRefusal(400, "unknown_parameter", message, param=name[:100])


def _parameters(operation: type[Operation]) -> list[str]:
    names = [name for name in operation.model_fields if name not in ("id", "action", "name")]
    return [f"{METADATA}{{name}}" if name == "metadata" else name for name in names]
