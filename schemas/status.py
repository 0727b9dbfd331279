"""What the service tells of a job, whoever asks."""

from operator import not_
from typing import Literal

from pydantic import Field

from schemas.budgets import BudgetStatus
from schemas.jobs import Door, Priority, Reason, ShownState
from schemas.money import Amount, Cost
from schemas.results import CodeCount, Counts, Tokens, Use
from schemas.tenants import TenantName
from schemas.versions import SCHEMA_VERSION, Kept, Word


class AtRisk(Kept):
    """A job that will not be through before its completion window ends, at the pace it has."""

    late_seconds: float = Field(description="by which its last row would come too late")
    needed_rate: float | None = Field(
        description="rows per second that would be in time, from now on, or from when what it "
        "waits for opens; null where no hour is left in which it may be asked"
    )
    needed_quota: float | None = Field(
        default=None,
        description="the part of the quotas that this takes; above 1 they do not suffice for it "
        "alone: raise them, or give the job more time",
    )


class JobStatus(Kept):
    """What the service tells of a job: the data of every event, and `GET /api/jobs/{id}`.

    Times are ISO 8601 UTC. What was rejected has no job, but a name of its own.
    """

    schema_version: int = SCHEMA_VERSION
    job: str | None = Field(default=None, description="the job's id; absent in a rejection")
    rejection: str | None = Field(
        default=None, description="what a rejection is called: GET /api/jobs/{rejection} tells it"
    )
    tenant: TenantName | None = None
    state: ShownState | Word | None = None
    input: str | None = Field(default=None, description="container/name")
    filename: str | None = Field(
        default=None, exclude_if=not_, description="of an uploaded file, as its user gave it"
    )
    door: Door | Word | None = Field(
        default=None, description="how the job came: `POST /api/jobs` by `queue`, `/v1` by `http`"
    )
    priority: Priority | Word | None = None
    counts: Counts | None = Field(default=None, description="absent before the file is read")
    running: int | None = Field(
        default=None, description="rows done in shards that are not, beside those in counts"
    )
    codes: dict[str, CodeCount] | None = Field(
        default=None, description="rows in error so far, by code, with the first line of each"
    )
    tokens: Tokens | None = Field(
        default=None, description="of the rows in `counts` and those in `running`"
    )
    use: dict[str, Use] | None = Field(
        default=None, description="calls of the shards that are done, by deployment"
    )
    cost: Cost | None = Field(
        default=None,
        description="of the rows in `counts` and those in `running`; absent where nothing that was "
        "asked has a price",
    )
    budget: BudgetStatus | None = Field(
        default=None,
        exclude_if=not_,
        description="of a capped job: its cap, what is spent and what is reserved of it",
    )
    projected_cost: Amount | None = Field(
        default=None,
        description="what all its rows would cost if the others cost as much as those that are "
        "done, in the currency of `cost`, also where its cap (`budget`) has no room for that; "
        "absent before a row is answered, where calls had no price, and once it is ending",
    )
    projected_tokens: int | None = Field(
        default=None,
        exclude_if=not_,
        description="what all its rows would have, as its `max_total_tokens` counts them; absent "
        "where it has no such cap, before a row is answered, and once it is ending",
    )
    rate: float | None = Field(
        default=None, description="rows per second; absent while the job is paused"
    )
    seconds_left: float | None = Field(
        default=None, description="until the last row, at that rate; 0 at the end"
    )
    basis: Literal["measured", "quota"] | Word | None = Field(
        default=None, description="of both: measured over the last minute, or allowed by quotas"
    )
    at_risk: AtRisk | None = Field(
        default=None, description="while it would not be through before its window ends"
    )
    waiting: dict[str, str] | None = Field(
        default=None, description="reason, deployment, message, since and until, while it waits"
    )
    results: str | None = Field(default=None, description="container/folder of the results")
    manifest: str | None = Field(
        default=None,
        exclude_if=not_,
        description="name of the manifest there; absent where it is manifest.json, under which "
        "somebody else's file may lie",
    )
    reason: Reason | None = Field(default=None, description="why it failed or was rejected")
    created: str | None = None
    started: str | None = Field(
        default=None,
        description="when its plan stood, or later, when its month had room for it",
    )
    expires: str | None = Field(default=None, description="when its completion window ends")
    ended: str | None = None
    message_id: str | None = Field(default=None, description="MessageId of the asking message")
    correlation_id: str | None = Field(
        default=None, description="CorrelationId of the asking message"
    )
    metadata: dict[str, str] = Field(
        default_factory=dict, description="the asking message's properties and the job's metadata"
    )
