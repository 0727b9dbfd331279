"""Is a deployment out of order, and whose fault is a failed call: the row's or the deployment's?

A circuit breaker on what cannot be the quota's doing: auth, gone, 5xx, time-outs, never a 429.
While it is open nothing is asked; then one call probes, and its answer closes or reopens it.
"""

from math import inf
from random import Random
from typing import Literal

from schemas.outcomes import Outcome

TRIP = 0.6
"""The share of failures, smoothed over about 20 calls, at which it opens: nine in a row."""
SMOOTHING = 0.1
FIRST, LONGEST = 5.0, 60.0
"""Seconds it stays open: doubled with each probe that fails."""
REFUSED_FIRST, REFUSED_LONGEST = 30.0, 600.0
"""The same for a key, role or deployment that is refused: somebody has to mend that first."""

Kind = Literal["closed", "open", "probing"]

_OF_THE_SERVICE = frozenset({None, 502, 503, 504})
"""Statuses (None: no answer at all) that speak of the service, never of one row."""


class Breaker:
    """The state of one deployment's health."""

    def __init__(self) -> None:
        self.state: Kind = "closed"
        self.open_until = -inf
        self.said: str | None = None
        """What the last failure said, for people."""
        self._failures = 0.0
        self._open_for = 0.0
        self._last_good = -inf
        self._failing: set[int] = set()

    def ready(self, now: float) -> float:
        """When a call may go: now, when the pause ends, or inf while a probe is on its way."""
        if self.state == "closed":
            return now
        if self.state == "probing":
            return inf
        return max(now, self.open_until)

    def admitted(self) -> bool:
        """A call goes; True if it is the probe."""
        if self.state != "open":
            return False
        self.state = "probing"
        return True

    def abandoned(self) -> None:
        """The probe was given up before it was answered: the next call probes."""
        if self.state == "probing":
            self.state = "open"

    def good(self, now: float) -> None:
        """The deployment answered; 4xx about the row and 429 count too: somebody is at home."""
        self._last_good = now
        self._failing.clear()
        self._failures *= 1.0 - SMOOTHING
        if self.state != "closed":
            self.state = "closed"
            self._failures = 0.0
        self._open_for = 0.0

    def bad(self, outcome: Outcome, row: int, probe: bool, now: float, rng: Random) -> None:
        """A call of `row` (any mark of it) failed with transient, timeout, auth or gone."""
        self.said = outcome.message or outcome.code or outcome.kind
        if len(self._failing) < 8:
            self._failing.add(row)
        self._failures += SMOOTHING * (1.0 - self._failures)
        refused = outcome.kind in ("auth", "gone")
        if self.state == "open" and not refused:
            return
        if refused or probe or (self.state == "closed" and self._failures >= TRIP):
            first, longest = (REFUSED_FIRST, REFUSED_LONGEST) if refused else (FIRST, LONGEST)
            if probe or self.state == "closed":
                self._open_for = min(longest, max(first, 2.0 * self._open_for))
            self.state = "open"
            self.open_until = now + self._open_for * rng.uniform(0.9, 1.1)

    def blames_row(self, outcome: Outcome, row: int, sent: float) -> bool:
        """Whether a failed call, sent at `sent`, counts as one of its row's attempts.

        It does when the deployment answered others since, or when nothing else fails there and
        the fault is one that a row can cause. An outage burns nobody's attempts.
        """
        if self._last_good >= sent:
            return True
        alone = not self._failing - {row}
        return alone and (outcome.kind == "timeout" or outcome.status not in _OF_THE_SERVICE)
