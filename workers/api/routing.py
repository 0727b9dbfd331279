"""Which operation does a method, a path and a query ask for, and is the query one it takes?"""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal, cast

from pydantic import BeforeValidator, Field

from schemas.history import MOST_BYTES
from schemas.jobs import Door, ShownState
from schemas.listing import IndexEntry
from schemas.messages import JobId
from schemas.results import JobWaitReason
from schemas.status import JobStatus
from schemas.tenants import DEFAULT_TENANT, TenantName
from workers.api.http import HttpCall
from workers.api.matching import Operation, digits, find, routes

MOST_JOBS: Final = 100
Action = Literal["cancel", "pause", "resume"]
EveryTenant = Literal["*"]


def _seconds(value: object) -> object:
    """Epoch seconds of ISO 8601; a time without a zone is UTC, as all times of the service are."""
    if not isinstance(value, str) or value.isdecimal():
        return value
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("write 2026-11-25T22:00:00Z, or seconds since the epoch") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


# Rejections are named by the message that was rejected.
Identity = Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,96}$")]
Month = Annotated[str, Field(pattern=r"^2[0-9]{3}-(0[1-9]|1[0-2])$")]
_Time = Annotated[float, BeforeValidator(_seconds)]


class ListJobs(Operation):
    """`GET /api/jobs`: the newest jobs first, or the open ones, the oldest file first; a page of
    those that fit all of the filters.
    """

    limit: Annotated[int, Field(ge=1, le=MOST_JOBS), BeforeValidator(digits)] = 20
    after: Identity | None = Field(default=None, description="the `last_id` of the page before")
    tenant: TenantName | EveryTenant = Field(
        default=DEFAULT_TENANT, description="whose jobs; `*`: those of all tenants of the settings"
    )
    open: bool = Field(
        default=False, description="`true`: those that have not ended alone, the oldest file first"
    )
    state: ShownState | None = None
    door: Door | None = None
    input: str | None = Field(default=None, description="container/name")
    created_after: _Time | None = Field(default=None, description="ISO 8601, or epoch seconds")
    created_before: _Time | None = Field(default=None, description="ISO 8601, or epoch seconds")
    waits_for: JobWaitReason | None = Field(
        default=None, description="the reason of the status's `waiting`"
    )
    metadata: dict[str, str] = Field(default_factory=dict, description="metadata_{name}={value}")

    @property
    def filters(self) -> bool:
        """Whether not all jobs are wanted of those that are looked at."""
        return bool(self.model_fields_set - {"limit", "after", "tenant", "open"})

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
        waits = told.waiting["reason"] if told.waiting else None
        return self.state in (None, told.state) and self.waits_for in (None, waits)


class CreateJob(Operation):
    """`POST /api/jobs`: the body is a job request, as on the queue `jobs`."""


class ReadJob(Operation):
    """`GET /api/jobs/{id}`: a job, or a rejection."""

    id: Identity


class ReadSamples(Operation):
    """`GET /api/jobs/{id}/samples`: how a job went, from its start or from behind a place on."""

    id: JobId
    after: Annotated[int, Field(ge=0, le=MOST_BYTES), BeforeValidator(digits)] = Field(
        default=0, description="the `after` of the answer before"
    )


class ReadErrors(Operation):
    """`GET /api/jobs/{id}/errors`: rows in error by code, and what to do about them."""

    id: JobId


class CreateLinks(Operation):
    """`POST /api/jobs/{id}/links`: links to the results of a job that has ended, for minutes."""

    id: JobId


class Act(Operation):
    """`POST /api/jobs/{id}/cancel`, `/pause` or `/resume`."""

    id: JobId
    action: Action


class ReadCosts(Operation):
    """`GET /api/costs`: what the jobs that were created in a month cost."""

    month: Month | None = Field(default=None, description="2026-11, in UTC; without one, this")
    by: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="a name of the jobs' metadata, or `tenant`, which is also where none is given",
    )
    tenant: TenantName = DEFAULT_TENANT
    after: Annotated[str, Field(pattern=r"^[0-9]{13}-[0-9A-Za-z-]{1,96}$")] | None = Field(
        default=None, description="the `last_id` of the answer before"
    )


class ReadBudgets(Operation):
    """`GET /api/budgets`: what of each tenant's cap by month is spent, reserved and left."""

    month: Month | None = Field(default=None, description="2026-11, in UTC; without one, this")
    tenant: TenantName | None = Field(default=None, description="without one, each that has a cap")


class EstimateJob(Operation):
    """`POST /api/estimate`: the body is an `EstimateCreate`; nothing is stored or asked."""

    tenant: TenantName = Field(
        default=DEFAULT_TENANT, description="whose part of the quotas is reckoned with"
    )


class ListDeployments(Operation):
    """`GET /api/deployments`."""


class Probe(Operation):
    """`POST /api/deployments/{name}/probe`: try a deployment that is out of order now."""

    name: str


class ReadHealth(Operation):
    """`GET /api/health`: what the service reaches; 503 where that is not storage and bus."""


JobOperation = ReadJob | ReadSamples | ReadErrors | CreateLinks | Act
"""What is asked of one job."""
JobsOperation = (
    ListJobs
    | CreateJob
    | JobOperation
    | ReadCosts
    | ReadBudgets
    | EstimateJob
    | ListDeployments
    | Probe
    | ReadHealth
)

ROUTES: Final = routes(
    ("GET", "/api/jobs", ListJobs),
    ("POST", "/api/jobs", CreateJob),
    ("GET", "/api/jobs/{id}", ReadJob),
    ("GET", "/api/jobs/{id}/samples", ReadSamples),
    ("GET", "/api/jobs/{id}/errors", ReadErrors),
    ("POST", "/api/jobs/{id}/links", CreateLinks),
    ("POST", "/api/jobs/{id}/(?P<action>cancel|pause|resume)", Act),
    ("GET", "/api/costs", ReadCosts),
    ("GET", "/api/budgets", ReadBudgets),
    ("POST", "/api/estimate", EstimateJob),
    ("GET", "/api/deployments", ListDeployments),
    ("POST", "/api/deployments/{name}/probe", Probe),
    ("GET", "/api/health", ReadHealth),
)
# `code` is the function key, which the host has read.
_IGNORED: Final = frozenset({"code"})


def route(call: HttpCall) -> JobsOperation:
    """The operation that a call asks for. Raises HttpRefusal with 404, 405 or 400."""
    return cast("JobsOperation", find(ROUTES, call.path, call, _IGNORED))
