"""The documents and messages of the release 0.1.0 as its code had them.

It refuses options, fields of messages and words that it does not know, and drops fields of
documents when it writes them again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

VERSION: Final = 1

State = Literal[
    "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelled"
]
Ending = Literal["cancelled", "expired", "failed"]
Priority = Literal["high", "normal", "low"]
Door = Literal["drop", "queue", "nightly"]
WaitReason = Literal["quota", "concurrency", "throttled", "outage", "day"]
OutcomeKind = Literal[
    "ok", "throttled", "transient", "timeout", "content_filter", "bad_request", "auth", "gone"
]
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]
JobId = Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{1,64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Counts(_Frozen):
    total: int = 0
    succeeded: int = 0
    failed: int = 0
    invalid: int = 0
    cancelled: int = 0
    expired: int = 0


class Tokens(_Frozen):
    prompt: int = 0
    completion: int = 0


class DeploymentUse(_Frozen):
    calls: int = 0
    outcomes: dict[str, int] = Field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    waited: dict[str, float] = Field(default_factory=dict)


class Part(_Frozen):
    name: str
    length: int
    rows: int
    sha256: str


class Receipt(_Frozen):
    schema_version: int = 1
    shard: int
    attempt: str
    counts: Counts
    tokens: Tokens
    output: Part | None = None
    errors: Part | None = None
    use: dict[str, DeploymentUse] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    deployment: str
    kind: OutcomeKind
    status: int | None
    waited: float
    waited_for: WaitReason | None
    seconds: float
    tokens: int
    billed: bool
    counted: bool = False


class JobOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    model: Annotated[str, Field(min_length=1)] | None = None
    system_prompt: str | None = None
    template: dict[str, JsonValue] | None = None
    completion_window: str = "24h"
    on_invalid: Literal["skip", "fail"] = "skip"
    priority: Priority | None = None
    metadata: Metadata = Field(default_factory=dict)
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    response_format: JsonValue | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    parameters: dict[str, JsonValue] = Field(default_factory=dict)


class Asked(_Closed):
    message_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    metadata: Metadata = Field(default_factory=dict)


class Reason(_Frozen):
    code: str
    message: str


class Verdict(Reason):
    schema_version: int = 1


class Job(_Frozen):
    schema_version: int = 1
    id: str
    door: Door
    container: str
    name: str
    etag: str
    size: int
    options: JobOptions
    priority: Priority
    created: float
    expires: float
    window: int
    asked: Asked = Asked()
    max_line_bytes: int
    failure: Reason | None = None
    results: str


class PlannedShard(_Frozen):
    schema_version: int = 1
    shard: int
    offset: int
    length: int
    line: int
    rows: int
    gaps: bool = False
    duplicates: tuple[int, int] = (0, 0)


class Waiting(_Frozen):
    reason: WaitReason | Literal["latency"]
    deployment: str | None = None
    message: str | None = None
    since: float
    until: float | None = None


class JobState(_Frozen):
    schema_version: int = 1
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
    staged: int = 0
    nudges: int = 0
    started: float | None = None
    ended: float | None = None
    marks: tuple[tuple[float, int], ...] = ()
    waiting: Waiting | None = None


class _Message(_Closed):
    schema_version: int = 1


class Announcement(_Message):
    type: Literal["announce"] = "announce"
    job: JobId
    door: Door
    container: str
    name: str
    etag: str
    size: int
    options: dict[str, Any] | None = None
    asked: Asked = Asked()


class Finish(_Message):
    type: Literal["finish"] = "finish"
    job: JobId


class Expire(_Message):
    type: Literal["expire"] = "expire"
    job: JobId


class ShardMessage(_Message):
    type: Literal["shard"] = "shard"
    job: JobId
    shard: Annotated[int, Field(ge=0)]
    gen: int


class SetAside(Exception):
    """What 0.1.0 does with what a later version wrote: the message is kept, and completed."""


class Refused(Exception):
    """What 0.1.0 cannot read though it takes it for its own: nothing goes on."""


DOCUMENTS: Final[Mapping[str, type[BaseModel]]] = {
    "job.json": Job,
    "state.json": JobState,
    "verdict.json": Verdict,
    "plan.jsonl": PlannedShard,
    "receipt.json": Receipt,
    "open.json": Announcement,
    "announce.json": Announcement,
    "finish.json": Finish,
    "expire.json": Expire,
    "shard.json": ShardMessage,
}


def read(name: str, data: bytes) -> BaseModel:
    """A document or message, by its golden file's name. Raises SetAside and Refused."""
    raw = orjson.loads(data)
    if raw.get("schema_version", VERSION) > VERSION:
        raise SetAside(name)
    try:
        return DOCUMENTS[name].model_validate(raw)
    except ValidationError as error:
        raise Refused(f"{name}: {error}") from error


def again(name: str, data: bytes) -> bytes:
    """What it writes, having read that. Raises SetAside and Refused."""
    return orjson.dumps(read(name, data).model_dump(mode="json"))
