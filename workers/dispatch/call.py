"""One call: what is asked, what has been tried for it, and does that count against its row?"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from schemas.deployments import Task
from schemas.outcomes import Outcome
from schemas.results import CallRecord
from workers.dispatch.admission import Waiter
from workers.dispatch.breaker import VOUCHED, Failure
from workers.dispatch.lane import Lane, Ticket
from workers.dispatch.retries import ATTEMPTS


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
    ) -> None:
        """Note that a try has ended; whether its failure counts may be known only later."""
        waited = ticket.sent - waiter.since
        attempt = CallRecord(
            deployment=lane.name,
            kind=outcome.kind,
            status=outcome.status,
            waited=round(waited, 3),
            waited_for=waiter.waited_for if waited > 0.0 else None,
            seconds=round(now - ticket.sent, 3),
            tokens=outcome.usage.total_tokens if outcome.usage is not None else 0,
            billed=outcome.billed,
        )
        self._made.append((attempt, failure))

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
