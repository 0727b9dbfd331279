"""What is told of the service to whoever watches it: where a job is, and how much there is of what.

`Telemetry` and `Trail` as they stand here tell nobody, and cost nothing; workers/adapters/telemetry
tells a collector. No method waits or raises. What goes out is counts, times, names of deployments
and ids of jobs, never what a file or an answer holds, nor what anybody has called it.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Literal

from schemas.deployments import Deployment, Task
from schemas.health import BreakerState
from schemas.jobs import Job, JobState
from schemas.money import Cost
from schemas.outcomes import Outcome
from schemas.results import CallRecord, Counts
from workers.ports import BlobInfo, Received

Errand = Literal["plan", "announce", "tell"]
"""Something that is done for a job and that no message of its own begins."""


@dataclass(slots=True)
class Handling:
    """A message on `jobs` while it is handled. `job` is noted as soon as it is known."""

    job: Job | None = None


class Trail:
    """One attempt at a shard as it goes. Whoever makes it notes how it ends.

    `end` is `done`, `handed_back`, or why its gate closed. `found` are rows that earlier attempts
    had done, `counts` those of its receipt, `crashed` the journal of the attempt before it, where
    that one died.
    """

    end: str = "failed"
    found: int = 0
    counts: Counts | None = None
    crashed: BlobInfo | None = None

    def called(
        self,
        deployment: Deployment,
        task: Task,
        outcome: Outcome,
        made: CallRecord,
        *,
        retried: bool,
    ) -> None:
        """A call, the first of its row or one `retried`, was answered or ended by its deadline."""

    def journaled(self, seconds: float, lag: float) -> None:
        """Rows were made durable: how long that took, and seconds since it was last done."""


@dataclass(frozen=True, slots=True)
class QuotaReading:
    """One limit of a deployment: a minute's `limit`, the part of it that this process may use, the
    part that services let through as far as is known, and what was used since the start.
    """

    kind: Literal["requests", "tokens"]
    limit: float
    granted: float
    headroom: float
    used: int


@dataclass(frozen=True, slots=True)
class DeploymentReading:
    """A deployment as a process sees it. Tokens and rounds are sums since the start."""

    name: str
    breaker: BreakerState
    guard: float
    in_flight: int
    waiting: int
    input_tokens: int
    output_tokens: int
    rounds_failed: int
    quotas: Sequence[QuotaReading]


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """A process at one moment: attempts at shards that run, conflicts over quota ledgers so far."""

    deployments: Sequence[DeploymentReading]
    shards: int
    ledger_conflicts: int


class Telemetry:
    """The port. Times are those of the clock that the adapter was given."""

    def trace_of(self, job: str, asked: str | None) -> str | None:
        """The trace that a job's messages and events are to carry; `asked` is that of who asked."""
        return asked

    def handling(self, queue: str, received: Received) -> AbstractContextManager[Handling]:
        """A message is handled while the block runs."""
        return nullcontext(Handling())

    def attempt(
        self, job: Job, shard: int, attempt: str, *, shards: int, received: Received
    ) -> AbstractContextManager[Trail]:
        """An attempt at one of a job's `shards` is made while the block runs."""
        return nullcontext(Trail())

    def errand(self, errand: Errand, trace: str | None) -> AbstractContextManager[None]:
        """An errand for a job is run while the block runs."""
        return nullcontext()

    def moved(self, job: Job, before: JobState | None, after: JobState, cost: Cost | None) -> None:
        """A job's new state was stored, by this process; `cost` is that of one that has ended."""

    def end_found(self, job: Job, state: JobState) -> None:
        """A job's end was stored before, by whom nobody knows: he may have died over telling it."""

    def conflict(self) -> None:
        """A job's state could not be stored: somebody else has changed it, or so it seems."""

    def dead_letter(self, queue: str) -> None:
        """A dead letter of a queue is handled."""

    def watch(self, read: Callable[[], ProcessReading]) -> None:
        """Ask `read`, from now on and in the event loop, how the process stands."""

    async def flush(self) -> None:
        """Hand over what was told, for a moment at most: the process is about to end."""


SILENT: Final = Telemetry()
"""Telemetry that nobody gets."""
