"""What has been tried for one call, and does it count against its row?"""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from schemas.outcomes import Outcome
from schemas.results import CallRecord
from workers.dispatch.admission import Waiter
from workers.dispatch.breaker import Failure
from workers.dispatch.lane import Lane, Ticket
from workers.dispatch.retries import ATTEMPTS


@dataclass(slots=True)
class Tries:
    """The attempts of one call. `counted` were held against its row before it was handed back."""

    row: Hashable
    counted: int
    _made: list[tuple[CallRecord, Failure | None]] = field(default_factory=list)

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

    @property
    def exhausted(self) -> bool:
        """Whether the row has failed by its own fault as often as it may, and has just done so."""
        counting = [failure is not None and failure.counts for _, failure in self._made]
        return counting[-1] and self.counted + sum(counting) >= ATTEMPTS

    @property
    def attempts(self) -> tuple[CallRecord, ...]:
        """The attempts as they are recorded."""
        return tuple(
            replace(attempt, counted=True) if failure is not None and failure.counts else attempt
            for attempt, failure in self._made
        )
