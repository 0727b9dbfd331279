"""What the processes tell each other, and operators, of what they reach and ask."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.money import Price
from schemas.versions import RELEASE, SCHEMA_VERSION, Kept, Word

HealthWord = Literal["ok", "degraded", "unavailable"]
BreakerState = Literal["closed", "open", "probing"]


class DeploymentHealth(Kept):
    """`deployments/{name}/{process}` in the state container: a deployment as one process finds it.

    The process writes it at each change of the breaker, and every 10 s while the deployment is in
    use. Sums run from the start of the process; times are seconds since the epoch.
    """

    schema_version: int = SCHEMA_VERSION
    at: float
    breaker: BreakerState | Word = "closed"
    message: str | None = Field(default=None, description="what the last failure said")
    until: float | None = Field(default=None, description="when an open breaker lets a call probe")
    in_flight: int = 0
    guard: int | None = Field(
        default=None, description="calls that may be in flight, as far as answers have shown"
    )
    calls: int = Field(default=0, description="answered, well or not")
    tokens: int = Field(default=0, description="as the endpoint counted them")
    requests_used: float | None = Field(
        default=None,
        description="calls let through in a minute, since the word before; null where there is "
        "none of the last minute",
    )
    tokens_used: float | None = Field(default=None, description="tokens, in the same way")
    refusals: int = Field(default=0, description="429s")
    failing: tuple[str, ...] = Field(
        default=(), description="background tasks of the process that keep failing"
    )


class Probed(Kept):
    """`probed/{name}` in the state container: what a process's own call for one token came to.

    It is empty from the claim to make such a call until the call has ended.
    """

    schema_version: int = SCHEMA_VERSION
    endpoint: str = Field(description="a hash of what was asked: others know it by this")
    answered: bool
    seconds: float = Field(
        ge=0.0,
        allow_inf_nan=False,
        description="from when the call was sent until this was written",
    )


class DeploymentStatus(BaseModel):
    """A deployment in `GET /api/deployments`: what all processes that ask it found lately."""

    model_config = ConfigDict(frozen=True)

    name: str
    model: str
    kind: str
    requests_per_minute: float | None
    tokens_per_minute: float | None
    hours: str | None = Field(
        default=None, description="in which it may be asked: 22:00-06:00 Europe/Berlin"
    )
    opens: str | None = Field(
        default=None, description="when it may be asked again; null while it may be"
    )
    price: Price | None = Field(
        default=None,
        description="as in DEPLOYMENTS, in decimal strings: `input` and `output` for a million "
        "tokens, `per_hour` of one that is rented; null where none is told",
    )
    granted: float | None = Field(
        default=None,
        description="part of its quota that processes hold now, 0 to 1; null where none does",
    )
    headroom: float | None = Field(
        default=None, description="part of its quota that is used, as its 429s have taught"
    )
    requests_used: float | None = Field(
        default=None,
        description="calls that it lets through in a minute now, reckoned from the last ten "
        "seconds, and of each process no more than it has made; null where no process asks it, "
        "or has only begun to",
    )
    tokens_used: float | None = Field(
        default=None, description="tokens in a minute, as it counts them, in the same way"
    )
    processes: int = Field(description="that told of it within the last 30 s")
    breaker: BreakerState | None = Field(
        description="the worst of what the processes found; null where none asks it now"
    )
    message: str | None = Field(default=None, description="what the deployment said last")
    until: str | None = Field(
        default=None,
        description="when calls may probe it again; null where an open one is tried with the next",
    )
    in_flight: int = 0
    guard: int | None = Field(
        default=None,
        description="calls that may be in flight from all these processes together; null where "
        "none tells of it",
    )
    calls: int = 0
    tokens: int = 0
    refusals: int = 0
    failing: tuple[str, ...] = Field(
        default=(), description="background tasks that keep failing in a process that asks it"
    )


class Reached(BaseModel):
    """Whether a service that everything rests on answers; `message` says what to mend if not."""

    model_config = ConfigDict(frozen=True)

    reached: bool = True
    message: str | None = None


class ServiceHealth(BaseModel):
    """`GET /api/health`: what the service reaches, and what waits for it."""

    model_config = ConfigDict(frozen=True)

    status: HealthWord = Field(
        description="degraded: a deployment is out of order, or a background task keeps failing; "
        "unavailable: storage or bus cannot be reached"
    )
    version: str = RELEASE
    storage: Reached
    bus: Reached
    deployments: tuple[DeploymentStatus, ...]
    open_jobs: int | None = Field(
        description="jobs without their last event, 1,000 at most; null without storage"
    )
    oldest_wait_seconds: float | None = Field(
        description="since the oldest of them was announced; null where there is none"
    )
