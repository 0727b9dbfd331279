"""A job: its options, its announcement, its stored documents."""

import re
from operator import not_
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from schemas.budgets import JobBudget
from schemas.hours import Hours
from schemas.money import CapAmount, HourlyPrice, PinnedPrice
from schemas.pauses import PauseChange
from schemas.requests import TASK_OF_URL, deeper_than
from schemas.results import (
    NOTHING_LOST,
    CodeCount,
    Counts,
    JobWaitReason,
    Lost,
    ShardTokens,
    Tokens,
    Use,
    nothing_lost,
)
from schemas.tenants import DEFAULT_TENANT, TenantName
from schemas.versions import SCHEMA_VERSION, Kept, Word
from schemas.wrong_values import WrongValue, did_you_mean, wrong_values

State = Literal[
    "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelled"
]
Ending = Literal["cancelled", "expired", "failed"]
ShownState = Literal[State, "cancelling", "expiring", "failing", "paused", "rejected"]
_SHOWN_ENDING: dict[Ending, ShownState] = {
    "cancelled": "cancelling",
    "expired": "expiring",
    "failed": "failing",
}
TERMINAL: frozenset[State] = frozenset({"completed", "failed", "expired", "cancelled"})
Priority = Literal["high", "normal", "low"]
Door = Literal["drop", "queue", "nightly", "http"]

_WINDOW = re.compile(r"^([1-9][0-9]{0,6})([smhd])$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_WINDOW = 30 * 86400
_DEEPEST_OPTIONS = 32
_TOLD_MISTAKES = 5
_REASON_CHARACTERS = 2000

MOST_METADATA: Final = 16
"""Pairs of metadata that a job may have."""

# What travels with every event: bounded as in the OpenAI Batch API.
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=MOST_METADATA),
]


def window_seconds(window: str) -> int:
    """Seconds of a completion window such as `24h`. Raises ValueError; 30 days are the most."""
    match = _WINDOW.fullmatch(window)
    if match is None:
        raise ValueError("not a completion window: write 90s, 30m, 24h or 7d")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > _LONGEST_WINDOW:
        raise ValueError("a completion window has at most 30d")
    return seconds


class JobOptions(BaseModel):
    """What a job may be told. Parameters are defaults: a row's own value wins.

    Unknown options are refused. In a blob's metadata they stand under the key `options` as
    base64url JSON; beside a file `name.jsonl` they are `name.options.json`, uploaded before it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    model: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="model of rows that name none: a deployment's, or a route"
    )
    system_prompt: str | None = Field(
        default=None, description="system turn of conversations that have none"
    )
    template: dict[str, JsonValue] | None = Field(
        default=None,
        description="the request that a row becomes: {field} in a string is the row's field, "
        "{list.0} and {object.name} what lies in one, a string that is nothing else takes its "
        "type, {{ and }} are braces",
    )
    template_for: Literal["all_rows", "other_rows"] = Field(
        default="all_rows",
        exclude_if=lambda chosen: chosen == "all_rows",
        description="whether the template also makes requests of rows that are some by "
        "themselves; the requests in a file of errors always pass as they are",
    )
    on_missing: Literal["refuse", "empty"] = Field(
        default="refuse",
        exclude_if=lambda chosen: chosen == "refuse",
        description="a field of the template that is null or missing refuses its row, or is empty",
    )
    completion_window: str = Field(
        default="24h",
        description="time from creation to the end: a number and s, m, h or d, at most 30d",
    )
    on_invalid: Literal["skip", "fail"] = Field(
        default="skip", description="whether a row that cannot be asked fails the whole job"
    )
    on_duplicate: Literal["refuse", "number"] = Field(
        default="refuse",
        exclude_if=lambda chosen: chosen == "refuse",
        description="a row whose custom_id stood earlier is refused, or asked as a#7, by its line",
    )
    endpoint: str | None = Field(
        default=None,
        exclude_if=lambda chosen: chosen is None,
        description="what every row has to ask for, as /v1/chat/completions; without it any",
    )
    mixed: bool = Field(
        default=False,
        exclude_if=lambda chosen: not chosen,
        description="whether rows may ask for others than `endpoint` all the same",
    )
    output_expires_after: Annotated[int, Field(ge=3600, le=30 * 86400)] | None = Field(
        default=None,
        exclude_if=lambda chosen: chosen is None,
        description="seconds after the job's end in which its results are deleted",
    )
    max_cost: CapAmount | None = Field(
        default=None,
        exclude_if=lambda chosen: chosen is None,
        description="that the job's calls may cost, in the currency of the deployments' prices; "
        "every row that generates needs max_tokens",
    )
    max_total_tokens: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        default=None,
        exclude_if=lambda chosen: chosen is None,
        description="that the job's calls may have, of prompts and answers together; every row "
        "that generates needs max_tokens",
    )
    on_budget: Literal["stop", "pause"] = Field(
        default="stop",
        exclude_if=lambda chosen: chosen == "stop",
        description="rows for which a cap leaves no room end as budget_exceeded, or the job pauses",
    )
    priority: Priority | None = Field(
        default=None, description="normal, but low for files of the nightly container"
    )
    metadata: Metadata = Field(
        default_factory=dict, description="told again in every event, for subscriptions to filter"
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    response_format: JsonValue | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="of embeddings"
    )
    parameters: dict[str, JsonValue] = Field(
        default_factory=dict, description="defaults for parameters that have no option of their own"
    )

    @property
    def capped(self) -> bool:
        """Whether there is a most that the job may spend."""
        return self.max_cost is not None or self.max_total_tokens is not None

    @field_validator("completion_window")
    @classmethod
    def _window(cls, window: str) -> str:
        window_seconds(window)
        return window

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and endpoint not in TASK_OF_URL:
            raise ValueError(f"not an endpoint: known are {', '.join(TASK_OF_URL)}")
        return endpoint


def parse_options(raw: object) -> JobOptions:
    """Options from parsed JSON. Raises ValueError that names each wrong option, and the nearest."""
    if not isinstance(raw, dict):
        raise ValueError("options have to be a JSON object")
    if deeper_than(raw, _DEEPEST_OPTIONS):
        raise ValueError(f"options are nested deeper than {_DEEPEST_OPTIONS} levels")
    try:
        return JobOptions.model_validate(raw)
    except ValidationError as error:
        mistakes = wrong_values(error)
        told = [_explain(mistake) for mistake in mistakes[:_TOLD_MISTAKES]]
        if len(mistakes) > _TOLD_MISTAKES:
            told.append(f"and {len(mistakes) - _TOLD_MISTAKES} more")
        raise ValueError("; ".join(told)) from None


def _explain(wrong: WrongValue) -> str:
    name = ".".join(map(str, wrong.loc))[:100]
    if wrong.kind != "extra_forbidden":
        return f"option {name!r}: {wrong.words}"
    return f"unknown option {name!r}{did_you_mean(name, JobOptions.model_fields)}"


TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""A trace as W3C Trace Context writes it."""


class Asked(Kept):
    """Who asked for a job, to be told again in every event."""

    message_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = Field(
        default=None, description="the asking message's trace (W3C Trace Context)"
    )
    metadata: Metadata = Field(default_factory=dict)


class Reason(Kept):
    """Why a job ends as it does."""

    code: str = Field(description="stable, for programs")
    message: str = Field(description="what happened and what to do, for people")

    @field_validator("message")
    @classmethod
    def _short(cls, message: str) -> str:
        # It travels in every event, and may name what the asking message said.
        if len(message) <= _REASON_CHARACTERS:
            return message
        return message[: _REASON_CHARACTERS - 1] + "…"


class Job(Kept):
    """`jobs/{job}/job.json`: created once, never changed. Times are seconds since the epoch."""

    schema_version: int = SCHEMA_VERSION
    id: str
    tenant: TenantName = DEFAULT_TENANT
    door: Door | Word
    container: str
    name: str
    filename: str | None = Field(
        default=None, exclude_if=not_, description="of an uploaded file, as its user gave it"
    )
    etag: str
    size: int
    options: JobOptions
    priority: Priority
    created: float
    expires: float
    window: int = Field(description="W: shards out at a time, more where many share a quota")
    asked: Asked = Asked()
    trace: str | None = Field(
        default_factory=lambda told: told["asked"].traceparent,
        exclude_if=lambda trace: trace is None,
        description="that its messages and events carry: the job's own span, where somebody "
        "watches, or what the asking message carried",
    )
    max_line_bytes: int
    hours: Hours | None = Field(
        default=None,
        exclude_if=not_,
        description="in which it may be asked: those of its priority, or else of all deployments "
        "that may serve it, when it was made",
    )
    failure: Reason | None = Field(
        default=None, description="why the job cannot run: it ends without asking anything"
    )
    results: str = Field(description="folder in the results container")
    prices: dict[str, PinnedPrice] = Field(
        default_factory=dict, description="of the deployments that have one, when the job was made"
    )
    hourly_prices: dict[str, HourlyPrice] = Field(
        default_factory=dict, exclude_if=not_, description="likewise, of those that are rented"
    )
    monthly: bool = Field(
        default=False, exclude_if=not_, description="whether its tenant's month reserves its cost"
    )

    @property
    def askable(self) -> frozenset[str] | None:
        """The deployments that may be asked: those whose price is pinned, where cost is capped."""
        capped = self.monthly or self.options.max_cost is not None
        return frozenset(self.prices) if capped else None

    @property
    def input(self) -> str:
        """The file, as users are told of it."""
        return f"{self.container}/{self.name}"

    @property
    def metadata(self) -> dict[str, str]:
        """The asking message's properties, and the job's own metadata over them."""
        return {**self.asked.metadata, **self.options.metadata}


class Waiting(Kept):
    """What a job waits for. Times are seconds since the epoch."""

    reason: JobWaitReason | Word
    deployment: str | None = None
    message: str | None = Field(default=None, description="of an outage: what is to be mended")
    since: float
    until: float | None = None


class JobState(Kept):
    """`jobs/{job}/state.json`: a job's progress, changed only by compare-and-swap."""

    schema_version: int = SCHEMA_VERSION
    revision: int
    state: State
    ending: Ending | None = None
    reason: Reason | None = None
    paused: bool = False
    gen: int = 0
    next: int = 0
    out: tuple[int, ...] = ()
    shards: int = 0
    window: int = 16
    counts: Counts = Counts()
    tokens: Tokens = Tokens()
    codes: dict[str, CodeCount] = Field(default_factory=dict)
    staged: int = Field(default=0, description="shards whose parts the finisher has staged")
    nudges: int = Field(default=0, description="times the sweeper sent again since it last moved")
    started: float | None = None
    ending_since: float | None = Field(default=None, description="when its ending became known")
    finalizing_since: float | None = Field(default=None, description="when all rows were done")
    ended: float | None = None
    marks: tuple[tuple[float, int], ...] = Field(
        default=(), description="latest (time, rows asked and done): the measured rate"
    )
    running: tuple[tuple[int, int], ...] = Field(
        default=(), description="(shard, rows done) of shards that are out, as last told"
    )
    running_tokens: tuple[ShardTokens, ...] = Field(
        default=(), exclude_if=not_, description="that those rows took, as last told"
    )
    use: dict[str, Use] = Field(
        default_factory=dict,
        description="calls of the shards that are done, by deployment",
    )
    lost: Lost = Field(
        default=NOTHING_LOST,
        exclude_if=nothing_lost,
        description="by the shards that are done: calls that may have been billed",
    )
    sampled: float | None = Field(default=None, description="when the last sample was taken")
    least_seconds: float | None = Field(default=None, description="that the quotas need for it")
    waiting: Waiting | None = None
    pauses: tuple[PauseChange, ...] = Field(default=(), exclude_if=not_, description="the latest")
    closed_seconds: float = Field(
        default=0.0, exclude_if=not_, description="for which it waited for its hours to begin"
    )
    budget_seconds: float = Field(
        default=0.0, exclude_if=not_, description="for which it waited for room in a cap"
    )
    paused_seconds: float = Field(default=0.0, exclude_if=not_, description="of pauses by hand")
    budget: JobBudget | None = Field(
        default=None, exclude_if=not_, description="of a capped job: what it spent and may spend"
    )
    manifest: str | None = Field(
        default=None,
        exclude_if=not_,
        description="name of its manifest, where somebody else's file lies under manifest.json",
    )

    @property
    def running_rows(self) -> int:
        """Rows that are done in shards that are out: no receipt has counted them yet."""
        return sum(rows for _, rows in self.running)

    @property
    def told_tokens(self) -> Tokens:
        """Those of all rows that are done, in shards that are out too."""
        out = self.running_tokens
        more = Tokens(prompt=sum(t.prompt for t in out), completion=sum(t.completion for t in out))
        return self.tokens.plus(more) if out else self.tokens

    @property
    def terminal(self) -> bool:
        """Whether nothing changes any more."""
        return self.state in TERMINAL

    @property
    def shown(self) -> ShownState:
        """The state as users see it: `cancelling` while an ending runs, `paused` while paused."""
        if self.terminal:
            return self.state
        if self.ending:
            return _SHOWN_ENDING[self.ending]
        return "paused" if self.paused else self.state
