"""One call: what is asked, until when it may be admitted, and what has been tried for it: does that
count against its row?
"""

import asyncio
from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from schemas.deployments import Task
from schemas.outcomes import Outcome
from schemas.results import CallRecord, WaitReason
from workers.dispatch.breaker import VOUCHED, Failure
from workers.dispatch.lane import Lane, Ticket
from workers.dispatch.retries import ATTEMPTS
from workers.dispatch.spending import Pledge, Purse
from workers.ports.errors import WorkerError
from workers.ports.telemetry import Trail
from workers.quota.weights import TENANT
from workers.rows.sizes import Size


@dataclass(frozen=True, slots=True)
class Call:
    """One call to make. `rows` > 1: packed embeddings, `body["input"]` is a list.

    `line` is the row's in its job's file: what fails again is known by it. `earlier` are attempts
    that were made before the row was handed back.
    """

    task: Task
    model: str
    body: Mapping[str, Any]
    rows: int = 1
    line: int | None = None
    earlier: Sequence[CallRecord] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The final outcome, and every try that was made."""

    outcome: Outcome
    attempts: tuple[CallRecord, ...]


class HandBack(WorkerError):
    """The call cannot be made in time: the rest of the shard goes back to the queue.

    `reason` is what it waits for; `delay` is seconds from now until another try makes sense;
    `attempts` are the calls that were made for it until then; `said` is what a deployment that is
    out of order said last.
    """

    def __init__(self, reason: str, delay: float, deployment: str | None = None) -> None:
        self.reason = reason
        self.delay = delay
        self.deployment = deployment
        self.attempts: tuple[CallRecord, ...] = ()
        self.said: str | None = None
        super().__init__(f"waiting for {reason}" + (f" of {deployment}" if deployment else ""))


class Waiter:
    """A call that waits: for its turn, or for the end of a backoff.

    `since` is when the call began to wait for this try, `waited_for` what stood against it first.
    `retried` says that the call has been tried before. `resting` says why and where the call waits
    by itself; it is None while the call waits for a lane. `pledge` is what was set aside for the
    try of a capped job's call.
    """

    __slots__ = (
        "_future",
        "gate",
        "job",
        "pledge",
        "resting",
        "retried",
        "since",
        "size",
        "waited_for",
    )

    def __init__(self, job: str, size: Size, gate: "Gate", since: float) -> None:
        self.job = job
        self.size = size
        self.gate = gate
        self.since = since
        self.retried = False
        self.pledge: Pledge | None = None
        self.waited_for: WaitReason | None = None
        self.resting: tuple[WaitReason, str] | None = None
        # HandBack as a result, not an exception: nobody may be left to fetch it.
        self._future: asyncio.Future[tuple[Lane, Ticket] | HandBack | None] | None = None

    def begin(self) -> None:
        """Make this call one that can be ended."""
        self._future = asyncio.get_running_loop().create_future()
        self.gate.waiters[self] = None

    def tried(self, now: float) -> None:
        """Note that a try has ended and that the call waits for the next one."""
        self.retried = True
        self.since = now
        self.waited_for = None

    def end(self, result: tuple[Lane, Ticket] | HandBack | None) -> None:
        """Let the call go on with a lane, after a backoff (None), or by raising; the first wins."""
        if self._future is not None and not self._future.done():
            self._future.set_result(result)

    @property
    def ended(self) -> bool:
        """Whether the call goes on already."""
        return self._future is None or self._future.done()

    async def wait(self) -> tuple[Lane, Ticket] | HandBack | None:
        """Wait until the call may go on; gives what `end` was given."""
        return None if self._future is None else await self._future

    def leave(self) -> tuple[Lane, Ticket] | None:
        """Stop waiting, and return the lane and ticket that came meanwhile, if any did."""
        self.gate.waiters.pop(self, None)
        future, self._future = self._future, None
        if future is None or not future.done() or future.cancelled():
            return None
        result = future.result()
        return result if isinstance(result, tuple) else None


class Gate:
    """Admission of one shard's calls. Times are the event loop's.

    `until` is when the lease may be gone: each renewal prolongs it.
    `deadline` is the shard's soft deadline: a wait beyond it hands the call back. `urgency` is how
    many times the weight of its priority the shard's job has, for the sake of its own deadline.
    `tenant` is whose the job is, and what that one weighs. `trail` is told of the calls.
    `purse` is asked before each call of a capped job, which asks deployments `among` these alone.
    `unkept` counts the calls that may have been billed and of which nobody keeps a record yet.
    `seats` is how many processes have a seat at the quota that its last call has used.
    """

    def __init__(self, until: float, deadline: float) -> None:
        self.until = until
        self.deadline = deadline
        self.urgency = 1.0
        self.tenant = TENANT
        self.closed: str | None = None
        self.waiters: dict[Waiter, None] = {}
        self.hear: dict[Callable[[], None], None] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.trail = Trail()
        self.purse: Purse | None = None
        self.among: Container[str] | None = None
        self.unkept = 0
        self.seats = 1

    def prolong(self, until: float) -> None:
        """Admit calls up to another time; who waits hears of a later one."""
        later = until > self.until
        self.until = until
        if later and self.waiters:
            for moved in list(self.hear):
                moved()

    def close(self, reason: str) -> None:
        """Admit no call from now on and hand every waiting call back; calls in flight go on."""
        if self.closed is None:
            self.closed = reason
        for waiter in list(self.waiters):
            waiter.end(HandBack(self.closed, 0.0))


@dataclass(slots=True)
class Tries:
    """The attempts of one call. `counted` were held against its row before it was handed back."""

    row: Hashable
    counted: int
    _made: list[tuple[CallRecord, Failure | None]] = field(default_factory=list)
    _probes: list[CallRecord] = field(default_factory=list)

    def note(
        self,
        lane: Lane,
        ticket: Ticket,
        outcome: Outcome,
        failure: Failure | None,
        *,
        waiter: Waiter,
        now: float,
    ) -> CallRecord:
        """Note that a try has ended; whether its failure counts may be known only later."""
        waited, usage = ticket.sent - waiter.since, outcome.usage
        attempt = CallRecord(
            deployment=lane.name,
            kind=outcome.kind,
            status=outcome.status,
            waited=round(waited, 3),
            waited_for=waiter.waited_for if waited > 0.0 else None,
            seconds=round(now - ticket.sent, 3),
            tokens=usage.prompt_tokens + usage.completion_tokens if usage is not None else 0,
            billed=outcome.billed,
        )
        waiter.gate.unkept -= not (attempt.billed or attempt.tokens)
        self._made.append((attempt, failure))
        return attempt

    def probed(self, probe: CallRecord) -> None:
        """Note a call of our own that was made to tell whose fault this call's failure is."""
        self._probes.append(probe)

    @property
    def vouched_for(self) -> bool:
        """Whether a call of our own has shown that the deployment was in order at the last try."""
        failure = self._made[-1][1]
        return failure is not None and failure.evidence == VOUCHED

    def judged(self, outcome: Outcome) -> Outcome:
        """The outcome that is the row's own fault, with the evidence that it is."""
        failures = [failure for _, failure in self._made if failure is not None]
        evidence = next((each.evidence for each in failures[::-1] if each.evidence), None)
        said = filter(None, (outcome.message, evidence))
        return replace(outcome, message="; ".join(said) or None)

    @property
    def exhausted(self) -> bool:
        """Whether the row has failed by its own fault as often as it may, and has just done so."""
        counting = [failure is not None and failure.counts for _, failure in self._made]
        return counting[-1] and self.counted + sum(counting) >= ATTEMPTS

    @property
    def attempts(self) -> tuple[CallRecord, ...]:
        """The attempts as they are recorded."""
        made = (
            replace(attempt, counted=True) if failure is not None and failure.counts else attempt
            for attempt, failure in self._made
        )
        return (*made, *self._probes)


def too_large(lanes: Sequence[Lane]) -> Outcome:
    """The outcome of a call that none of the lanes takes in one piece."""
    most = max(lane.most_tokens for lane in lanes)
    return Outcome(
        kind="bad_request",
        code="request_too_large",
        message=f"prompt and max_tokens together exceed the {most:.0f} tokens that "
        f"{', '.join(lane.name for lane in lanes)} may be asked for in one request and minute: "
        "shorten the prompt or lower max_tokens",
    )


OVER_BUDGET = Outcome(
    kind="bad_request",
    code="budget_exceeded",
    message="not asked: the job's cap leaves no room for the most that the call can cost; lower "
    "max_tokens, or drop errors.jsonl again with a new max_cost or max_total_tokens",
)


def unpriced(model: str) -> Outcome:
    """The outcome of a call that only deployments without a pinned price could answer."""
    message = (
        f"no deployment of {model!r} had a price when the job was made, and a cap on cost needs one"
    )
    return Outcome(kind="bad_request", code="no_price", message=message)
