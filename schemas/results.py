"""What a job leaves behind: output rows, error rows, receipts, the manifest."""

from dataclasses import dataclass
from functools import partial
from operator import eq, not_
from typing import Any, Final, Literal, NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from schemas.budgets import BudgetStatus, Spend
from schemas.estimates import JobEstimate
from schemas.money import Cost, HourlyPrice, PinnedPrice
from schemas.outcomes import OutcomeKind
from schemas.sketches import Sketch
from schemas.versions import SCHEMA_VERSION, Kept

INTERVAL_SECONDS: Final = 10

WaitReason = Literal["quota", "concurrency", "throttled", "outage", "day", "hours"]
JobWaitReason = Literal[WaitReason, "latency", "budget"]


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call made for a row. Times are seconds; `waited` is the time before it was admitted.

    `counted`: as one of the three that a row may fail by its own fault. A `probe` is a call for one
    token, which told whether the row or the deployment is at fault. Workers of 0.1.0 take calls up
    from journals and know these fields alone: no other may be added.
    """

    deployment: str
    kind: OutcomeKind | Literal["probe"]
    status: int | None
    waited: float
    waited_for: WaitReason | None
    seconds: float
    tokens: int
    billed: bool
    counted: bool = False


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


def unknown_of(one: Kept, other: Kept) -> dict[str, Any]:
    """What two sums say that this version does not know, as one: numbers are added."""
    before, more = one.model_extra or {}, other.model_extra or {}
    both = {
        name: before[name] + more[name]
        for name in before.keys() & more.keys()
        if isinstance(before[name], int | float) and isinstance(more[name], int | float)
    }
    return {**before, **more, **both}


class Counts(Kept):
    """Rows by what became of them: `total` is the sum of the others once a job has ended.

    `failed` were asked in vain, `invalid` could not be asked (for what is wrong with them, as a cap
    leaves no room, or as the job failed), `cancelled` and `expired` were not.
    """

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    invalid: int = 0
    cancelled: int = 0
    expired: int = 0

    @property
    def done(self) -> int:
        """Rows that have their line."""
        return self.succeeded + self.errors

    @property
    def errors(self) -> int:
        """Rows in errors.jsonl."""
        return self.failed + self.invalid + self.cancelled + self.expired

    @property
    def asked(self) -> int:
        """Rows that endpoints were asked for."""
        return self.succeeded + self.failed

    def plus(self, other: "Counts") -> "Counts":
        """The sums of all but `total`, which belongs to the whole job."""
        return Counts(
            total=self.total,
            succeeded=self.succeeded + other.succeeded,
            failed=self.failed + other.failed,
            invalid=self.invalid + other.invalid,
            cancelled=self.cancelled + other.cancelled,
            expired=self.expired + other.expired,
            **unknown_of(self, other),
        )


class Tokens(Kept):
    """Tokens as the endpoints counted them."""

    prompt: int = 0
    completion: int = 0

    @property
    def total(self) -> int:
        """Prompt and completion together."""
        return self.prompt + self.completion

    def plus(self, other: "Tokens") -> "Tokens":
        """The sums of both kinds."""
        return Tokens(
            prompt=self.prompt + other.prompt,
            completion=self.completion + other.completion,
            **unknown_of(self, other),
        )


class ShardTokens(NamedTuple):
    """Tokens of a shard that is out, as endpoints told them, and what its calls cost in millionths
    of a millionth of the currency's unit.
    """

    shard: int
    prompt: int
    completion: int
    cost: int


class Use(Kept):
    """The attempts at one deployment, summed up."""

    calls: int = 0
    outcomes: dict[str, int] = Field(
        default_factory=dict, description="calls by what became of them"
    )
    tokens: int = 0
    # Receipts of 0.1.0 have the second names.
    call_seconds: float = Field(
        default=0.0,
        validation_alias=AliasChoices("call_seconds", "seconds"),
        description="time in calls, of all together",
    )
    row_seconds_waited: dict[str, float] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("row_seconds_waited", "waited"),
        description="seconds before calls, by what they waited for; of all rows together, so that "
        "100 rows that wait side by side for a minute are 6,000",
    )
    prompt_tokens: int = Field(
        default=0,
        description="of `tokens`; what lacks to both together was counted by the release 0.1.0",
    )
    completion_tokens: int = 0
    unmetered_calls: int = Field(
        default=0, description="that may have been billed, and told no tokens"
    )


class Lost(Kept):
    """What nobody kept of calls that may have been billed."""

    calls: int = Field(default=0, description="that were cut off, or answered for a second time")
    crashes: int = Field(
        default=0, description="attempts that a worker left without an end: it may have asked more"
    )
    bounded: int = Field(
        default=0, exclude_if=not_, description="of these and of `unmetered_calls`, with a bound"
    )
    most: int = Field(
        default=0, exclude_if=not_, description="that those may have cost, in millionths"
    )

    def plus(self, other: "Lost") -> "Lost":
        """Both together."""
        return Lost(
            calls=self.calls + other.calls,
            crashes=self.crashes + other.crashes,
            bounded=self.bounded + other.bounded,
            most=self.most + other.most,
            **unknown_of(self, other),
        )


NOTHING_LOST: Final = Lost()

nothing_lost: Final = partial(eq, NOTHING_LOST)


class DeploymentUse(Use):
    """The same, and how the times of its calls are distributed."""

    latency: Sketch = Field(
        default_factory=dict,
        description="answers by the bucket of their seconds: n is up to 1.02 ** n milliseconds",
    )
    waits: Sketch = Field(
        default_factory=dict, description="calls by the bucket of the seconds that they waited"
    )


class CodeCount(Kept):
    """Rows that ended with one error code, and the first of them in the input."""

    rows: int = 0
    line: int | None = Field(default=None, description="the first one's; null where not known")
    more: tuple[int, ...] = Field(
        default=(), exclude_if=not_, description="the lines of the next four of them"
    )


class Interval(Kept):
    """What happened within ten seconds of the clock, or as many times ten."""

    succeeded: int = 0
    failed: int = Field(default=0, description="asked in vain")
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    refusals: int = Field(default=0, description="429s")
    cost: int = Field(
        default=0, description="in millionths of the currency's unit for a million tokens each"
    )
    latency: Sketch = Field(
        default_factory=dict,
        description="answers by the bucket of their seconds, of which one in five is used",
    )


class Part(Kept):
    """One blob of lines. `name` is its blob in the state container."""

    name: str
    length: int
    rows: int
    sha256: str


class Receipt(Kept):
    """`jobs/{job}/receipts/{shard}`: the shard is done, and these are its lines."""

    schema_version: int = SCHEMA_VERSION
    shard: int
    attempt: str
    counts: Counts
    tokens: Tokens
    output: Part | None = None
    errors: Part | None = None
    codes: dict[str, CodeCount] = Field(default_factory=dict)
    use: dict[str, DeploymentUse] = Field(default_factory=dict)
    spent: Spend | None = Field(
        default=None,
        exclude_if=not_,
        description="of a capped job: the most that all attempts at the shard may have spent",
    )
    lost: Lost = Field(
        default=NOTHING_LOST,
        exclude_if=nothing_lost,
        description="by all attempts at the shard; workers of 0.1.0 do not tell",
    )
    intervals: dict[int, Interval] = Field(
        default_factory=dict,
        description="when it happened: n begins 10 n seconds after the epoch; without what workers "
        "of 0.1.0 did",
    )


class ManifestPart(Kept):
    """A shard's piece of a result file: bytes [offset, offset + length)."""

    shard: int
    offset: int
    length: int
    rows: int
    sha256: str


class ManifestFile(Kept):
    """A result file and its parts, in order and without gaps."""

    name: str
    length: int = Field(description="bytes")
    rows: int
    parts: list[ManifestPart]


class Manifest(Kept):
    """`manifest.json`: what was asked, what came of it, and the proof. Times are ISO 8601 UTC."""

    schema_version: int = SCHEMA_VERSION
    job: str
    state: Literal["completed", "failed", "expired", "cancelled"]
    reason: dict[str, str] | None = Field(default=None, description="code and message")
    input: dict[str, Any] = Field(
        description="container, name, etag, size of the file; `filename` of one that was uploaded"
    )
    options: dict[str, Any] = Field(description="as the job was given them")
    counts: Counts
    tokens: Tokens
    created: str
    started: str | None
    finished: str
    seconds: float = Field(description="from created to finished")
    least_seconds: float | None = Field(
        default=None,
        description="that its quotas needed at least for the rows that were asked; null where none "
        "was, or none bounds it",
    )
    closed_seconds: float = Field(
        default=0.0, exclude_if=not_, description="for which it waited for its hours to begin"
    )
    budget_seconds: float = Field(
        default=0.0,
        exclude_if=not_,
        description="for which it waited for room in its cap, or in its tenant's month",
    )
    paused_seconds: float = Field(
        default=0.0, exclude_if=not_, description="for which somebody had it paused"
    )
    estimate: JobEstimate | None = Field(
        default=None, description="made when the file was planned, before anything was asked"
    )
    release: str | None = Field(default=None, description="of the service that wrote this")
    codes: dict[str, CodeCount] = Field(
        default_factory=dict, description="rows in errors.jsonl, by their error's code"
    )
    use: dict[str, DeploymentUse] = Field(description="by deployment")
    prices: dict[str, PinnedPrice] = Field(
        default_factory=dict,
        description="by deployment, when the job was made: of a million tokens, in whole "
        "millionths of the currency's unit",
    )
    hourly_prices: dict[str, HourlyPrice] = Field(
        default_factory=dict, exclude_if=not_, description="of an hour: no part of `cost`"
    )
    cost: Cost | None = Field(default=None, description="null where no price is known")
    budget: BudgetStatus | None = Field(
        default=None, exclude_if=not_, description="of a capped job: its cap, and what it has spent"
    )
    output: ManifestFile
    errors: ManifestFile

    @property
    def waits(self) -> dict[str, float]:
        """Seconds in which nothing of the job could be asked, by what it waited for."""
        waits = {"hours": self.closed_seconds, "budget": self.budget_seconds}
        return {reason: seconds for reason, seconds in waits.items() if seconds}


class RowResponse(_Frozen):
    """`response` of an output row (OpenAI Batch API)."""

    status_code: int
    request_id: str | None = Field(description="as the endpoint gave it, for its support")
    body: Any = Field(description="the answer in OpenAI's shape, with `usage`")


class RowError(_Frozen):
    """`error` of an error row: a code, and what to do."""

    code: str
    message: str


class OutputRow(_Frozen):
    """A line of output.jsonl (OpenAI Batch API output), with the attempts made for it."""

    id: str = Field(description="the job's id and the row's line number")
    custom_id: str = Field(description="the row's custom_id, id, prompt_id or line number")
    line: int = Field(description="line number in the input")
    response: RowResponse
    error: None = None
    attempts: list[CallRecord] = Field(
        default_factory=list, description="the calls made for it; of more than 32 the last"
    )


class ErrorRow(_Frozen):
    """A line of errors.jsonl. Dropped again as it is, its `request` is asked again."""

    id: str
    custom_id: str | None
    line: int | None = Field(
        description="line number in the input; null where the input was gone and had blank lines"
    )
    response: RowResponse | None = None
    error: RowError
    request: dict[str, Any] | None = Field(
        default=None, description="the request as a batch row, template and defaults applied"
    )
    raw: str | None = Field(default=None, description="a line that is no request, as it stood")
    offset: int | None = Field(
        default=None, description="of a line that is too long to be kept: where it begins, in bytes"
    )
    length: int | None = Field(default=None, description="and how many bytes it has")
    attempts: list[CallRecord] = Field(
        default_factory=list, description="the calls made for it; of more than 32 the last"
    )
