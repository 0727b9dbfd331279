"""What the workers need from outside: blobs, a bus, endpoints. A few primitives each.

Adapters implement these over the Azure SDKs; the tests have in-memory doubles, and one contract
suite holds both to the same behaviour. Every call has a deadline of its own and raises
`Unavailable` when the service cannot be reached or does not answer in time; whether the effect
took place is then unknown.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple, Protocol

from schemas.deployments import Task
from schemas.jobs import TRACEPARENT
from schemas.outcomes import Outcome
from schemas.webhooks import Reception


class BlobRef(NamedTuple):
    """Where a blob is."""

    container: str
    name: str


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A blob's properties.

    ETags are unquoted; times are whole seconds since the epoch; metadata keys are lower case.
    """

    ref: BlobRef
    etag: str
    size: int
    last_modified: float
    created: float
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """A whole blob as read. `server_time` is the service's own clock (HTTP `Date`)."""

    data: bytes
    etag: str
    last_modified: float
    server_time: float


class Blobs(Protocol):
    """Blob Storage.

    Errors (workers.ports.errors): `BlobMissing` (404, of the blob or its container), `BlobExists`
    (create, commit: something is there), `BlobChanged` (412 of If-Match, also when nothing is
    there), `BlobFull` (append limit), `LeaseHeld` (also a write to a leased blob), `LeaseLost`,
    `Unavailable`; other refusals are a plain `StorageError`. The SDK repeats calls whose answer
    was lost, so `BlobExists` and `BlobChanged` may be about the caller's own earlier success, and
    an append may be there twice.
    """

    async def head(self, ref: BlobRef) -> BlobInfo:
        """Properties and metadata of a blob."""

    async def read(self, ref: BlobRef) -> Stored:
        """A whole (small) blob."""

    async def read_range(
        self, ref: BlobRef, offset: int, length: int, *, etag: str | None = None
    ) -> bytes:
        """Bytes [offset, offset + length), fewer at the end; pinned to `etag` where given."""

    async def create(
        self,
        ref: BlobRef,
        data: bytes | IO[bytes],
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> str:
        """Write a blob that must not exist (If-None-Match `*`); gives its ETag.

        A file is written whole, from its start, without being held in memory.
        """

    async def replace(self, ref: BlobRef, data: bytes, etag: str) -> str:
        """Write a blob that must still be at `etag` (If-Match); gives the new ETag."""

    async def delete(self, ref: BlobRef, etag: str | None = None) -> None:
        """Remove a blob; one that is not there is fine, unless it must still be at `etag`."""

    def list(
        self, container: str, prefix: str = "", *, start: str | None = None, page: int | None = None
    ) -> AsyncIterator[BlobInfo]:
        """Blobs below a prefix, by name, with metadata.

        `start`: only from this name on; `page`: how many are fetched at a time.
        """

    async def create_append(self, ref: BlobRef) -> None:
        """Make an empty append blob that must not exist."""

    async def append(self, ref: BlobRef, data: bytes) -> None:
        """Add at most 4 MiB at the end, in one piece; nothing at all is no call."""

    async def acquire_lease(self, ref: BlobRef, lease_id: str, seconds: int) -> None:
        """Take the lease of an existing blob; `lease_id` is a UUID, `seconds` 15 to 60."""

    async def renew_lease(self, ref: BlobRef, lease_id: str) -> None:
        """Prolong a lease by its own length."""

    async def release_lease(self, ref: BlobRef, lease_id: str) -> None:
        """Give a lease back; one that is lost already is fine."""

    async def stage_from(self, ref: BlobRef, block_id: str, source: BlobRef) -> None:
        """Stage a whole blob as one block of another (Put Block From URL, else streamed)."""

    async def commit(
        self,
        ref: BlobRef,
        block_ids: Sequence[str],
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "application/jsonl",
    ) -> None:
        """Make a blob that must not exist of staged blocks, in this order."""


class Transfers(Protocol):
    """What HTTP needs of Blob Storage besides: parts of uploads, links for downloads.

    Errors are those of `Blobs`.
    """

    async def stage(self, ref: BlobRef, block_id: str, data: bytes | memoryview) -> None:
        """Stage bytes as a block of a blob; all ids of its blocks are of one length."""

    async def staged(self, ref: BlobRef) -> Mapping[str, int]:
        """The sizes of the blocks that are staged for a blob, by their ids; none is fine."""

    async def link(self, ref: BlobRef, seconds: float, filename: str) -> str:
        """A URL at which anybody may read a blob, and nothing else, for so long.

        Whoever follows it is offered the content under `filename`.
        """


class SignedTokens(Protocol):
    """Tokens that others have signed."""

    async def claims(self, token: str) -> Mapping[str, Any] | None:
        """What a token says, where its signature holds; None where it does not.

        What it says is not judged: for whom it is, and until when. Errors: `Unavailable`.
        """


class AddressRule(Protocol):
    """Which addresses may be connected to."""

    def allows(self, address: str) -> bool:
        """Whether an IP address may be connected to."""

    def __hash__(self) -> int:
        """Rules that are equal allow the same."""


class WebhookSender(Protocol):
    """The way to the receivers of webhooks."""

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, rule: AddressRule
    ) -> Reception:
        """Send a body once, to an address that the rule allows, under a deadline of seconds.

        Nothing is raised for what the receiver does: redirects are not followed, bodies not read.
        """


@dataclass(frozen=True, slots=True)
class OutMessage:
    """A message to send. `at` (seconds since the epoch) schedules it."""

    body: bytes
    message_id: str
    correlation_id: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    at: float | None = None
    content_type: str = "application/json"


TRACES = ("traceparent", "Diagnostic-Id")
"""The properties of a message that carry a trace: that of W3C Trace Context goes before that of
Service Bus's clients. Functions hosts read both.
"""

REPEATED = "again"
"""The property of a message that takes the place of one whose handling broke off."""

MARKED = "marked"
"""The property of an announcement that was read from an open marker, and is void without one."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it came. `deliveries` counts this one; `properties` are the sender's.

    `enqueued` is when it could first be had, in seconds since the epoch.
    """

    body: bytes
    message_id: str | None = None
    correlation_id: str | None = None
    deliveries: int = 1
    properties: Mapping[str, str] = field(default_factory=dict)
    enqueued: float | None = None

    @property
    def repeated(self) -> bool:
        """Whether somebody may have died, or given up, over it between a change and its sends."""
        return self.deliveries > 1 or self.properties.get(REPEATED) == "true"

    @property
    def marked(self) -> bool:
        """Whether it announces what had an open marker."""
        return self.properties.get(MARKED) == "true"

    @property
    def traceparent(self) -> str | None:
        """The trace that the message carries."""
        traces = (self.properties.get(name, "") for name in TRACES)
        return next((trace for trace in traces if TRACEPARENT.fullmatch(trace)), None)


class Bus(Protocol):
    """Service Bus."""

    async def send(self, entity: str, messages: Sequence[OutMessage]) -> None:
        """Send to a queue or topic; all are accepted when it returns.

        Errors: `Unavailable`: perhaps some are accepted; ValueError: a message is too large.
        """

    async def take_dead(
        self, queue: str, handle: Callable[[Received], Awaitable[None]], most: int
    ) -> int:
        """Hand up to `most` dead letters of a queue to `handle`, one by one; gives how many.

        Each is gone when `handle` returns, and stays when it raises. Errors: `Unavailable`.
        """

    async def reach(self, queue: str) -> None:
        """Ask a queue for something that changes nothing. Errors: `Unavailable`."""


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """What an endpoint says of itself (Model Inference API `GET /info`, OpenAI `GET /models`)."""

    model: str | None
    provider: str | None = None
    tasks: tuple[Task, ...] | None = None


class Endpoint(Protocol):
    """One deployment's endpoint, in whatever contract it speaks."""

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        """One call with an OpenAI-shaped body, under the deployment's total deadline.

        Nothing is raised for what the endpoint does: every failure is an `Outcome`.
        """

    async def info(self) -> EndpointInfo | None:
        """What the endpoint says of itself; None where it cannot or will not say."""
