"""Is a deployment out of order, and whose fault is a failed call: the row's or the deployment's?

A circuit breaker on what cannot be the quota's doing: auth, gone, 5xx, time-outs, never a 429.
While it is open nothing is asked; then one call probes, and its answer closes or reopens it.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from math import inf
from random import Random

from schemas.health import BreakerState
from schemas.outcomes import Outcome

TRIP = 0.6
"""The share of failures, smoothed over about 20 calls, at which it opens: nine in a row."""
SMOOTHING = 0.1
FIRST, LONGEST = 5.0, 60.0
"""Seconds for which the breaker stays open: doubled with each probe that fails."""
REFUSED_FIRST, REFUSED_LONGEST = 30.0, 600.0
"""The same for a key, role or deployment that is refused: somebody has to mend that first."""
GRACE = 10.0
"""Seconds after a failure within which another call must have been sent to tell, by its answer,
that the deployment was in order at that time."""
GUILTY = 64
"""Rows that are remembered to have failed by themselves."""
PATIENCE = 300.0
"""Seconds for which such an answer is waited for: longer than any call may take."""

_OF_THE_SERVICE = frozenset({None, 502, 503, 504})
"""Statuses (None: no answer at all) that speak of the service, never of one row."""


@dataclass(slots=True, eq=False)
class Failure:
    """A call of `row` that failed. `counts` says whether it counts as one of the row's attempts.

    A failure counts when a call that was sent soon after it was answered well, or when nothing
    else fails at the deployment and the fault is one that a row can cause. An outage burns
    nobody's attempts: the answer to a call that was sent before a failure tells nothing of it.
    """

    row: Hashable
    sent: float
    at: float
    counts: bool


class Breaker:
    """The state of one deployment's health. `row` is any mark of a row, the same at each try."""

    def __init__(self) -> None:
        self.state: BreakerState = "closed"
        self.open_until = -inf
        self.since = -inf
        """When what is wrong began: the breaker has not been closed from then on."""
        self.said: str | None = None
        """What the last failure said, for people."""
        self._failures = 0.0
        self._open_for = 0.0
        self.opened_at = -inf
        self._failing: dict[Hashable, float] = {}
        self._unexplained: deque[Failure] = deque()
        self._guilty: OrderedDict[Hashable, None] = OrderedDict()
        self._last_good = -inf

    def ready(self, now: float) -> float:
        """When a call may go: now, when the pause ends, or inf while a probe is on its way."""
        if self.state == "closed":
            return now
        if self.state == "probing":
            return inf
        return max(now, self.open_until)

    def admitted(self) -> bool:
        """Note that a call goes; gives whether that call is the probe."""
        if self.state != "open":
            return False
        self.state = "probing"
        return True

    def retry(self, now: float) -> None:
        """Let the next call probe now, because somebody says that what failed is mended."""
        if self.state == "open":
            self.open_until = min(self.open_until, now)

    def abandoned(self) -> None:
        """Let the next call probe, because the probe was given up before it was answered."""
        if self.state == "probing":
            self.state = "open"

    def home(self, sent: float) -> None:
        """Note that the service answered a call, if only with a 429."""
        if self.state != "closed":
            if sent < self.opened_at:
                return  # of the time before
            self.state = "closed"
            self._failures = 0.0
        self._failures *= 1.0 - SMOOTHING
        self._open_for = 0.0

    def good(self, sent: float) -> None:
        """Note that the service is in order: it answered well, or with a 4xx about the row."""
        self.home(sent)
        self._last_good = max(self._last_good, sent)
        if self._failing:
            self._failing = {row: at for row, at in self._failing.items() if at > sent}
        if self._unexplained:
            for failure in self._unexplained:
                if failure.sent <= sent <= failure.at + GRACE:
                    self._blame(failure)
            self._unexplained = deque(each for each in self._unexplained if each.sent > sent)

    def bad(
        self, outcome: Outcome, row: Hashable, *, sent: float, probe: bool, now: float, rng: Random
    ) -> Failure:
        """Note that a call of `row` failed with transient, timeout, auth or gone."""
        self.said = outcome.message or outcome.code or outcome.kind
        if row in self._failing or len(self._failing) < 8:
            self._failing[row] = sent
        self._trip(outcome, probe, now, rng)
        alone = all(other == row or other in self._guilty for other in self._failing)
        own = outcome.kind == "timeout" or outcome.status not in _OF_THE_SERVICE
        failure = Failure(row, sent, now, counts=alone and own)
        while self._unexplained and self._unexplained[0].at < now - PATIENCE:
            self._unexplained.popleft()
        if self._last_good >= sent:
            self._blame(failure)
        else:
            self._unexplained.append(failure)
        return failure

    def _blame(self, failure: Failure) -> None:
        """Hold a failure against its row, because other calls were answered; it is no outage."""
        failure.counts = True
        self._guilty[failure.row] = None
        if len(self._guilty) > GUILTY:
            self._guilty.popitem(last=False)

    def _trip(self, outcome: Outcome, probe: bool, now: float, rng: Random) -> None:
        self._failures += SMOOTHING * (1.0 - self._failures)
        refused = outcome.kind in ("auth", "gone")
        if self.state == "open" and not refused:
            return
        if refused or probe or (self.state == "closed" and self._failures >= TRIP):
            first, longest = (REFUSED_FIRST, REFUSED_LONGEST) if refused else (FIRST, LONGEST)
            if self.state == "closed":
                self.since = now
            if probe or self.state == "closed":
                self._open_for = min(longest, max(first, 2.0 * self._open_for))
            self.state = "open"
            self.opened_at = now
            self.open_until = now + self._open_for * rng.uniform(0.9, 1.1)
