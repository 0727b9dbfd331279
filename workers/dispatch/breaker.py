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

OWN = "probe"
"""The row of the calls of our own, which ask for one token."""
PROBE_EVERY = 66.0
"""Seconds from one claim to make such a call to the next: calls are a minute apart, though storage
tells whole seconds, its front ends differ by two, and a call goes up to three after its claim."""
LASTING = 3.0 * PROBE_EVERY
"""Seconds for which the answer to such a call tells of what fails after it."""
ANSWERED = "other calls were answered at that time"
VOUCHED = "a call for one token was answered at that time"

_OF_THE_SERVICE = frozenset({None, 502, 503, 504})
"""Statuses (None: no answer at all) that speak of the service, never of one row."""


@dataclass(slots=True, eq=False)
class Failure:
    """A call of `row` that failed. `counts` says whether it counts as one of the row's attempts.

    A failure counts when a call that was sent soon after it was answered well, or when nothing
    else fails at the deployment and the fault is one that a row can cause. An outage burns
    nobody's attempts: the answer to a call that was sent before a failure tells nothing of it.
    `suspect` says that it may be the row's own, though every call fails, and `spoiled` that it may
    as well have come about on the way to this process, which others do not share; `evidence` is
    what shows that it is the row's.
    """

    row: Hashable
    sent: float
    at: float
    counts: bool
    job: str = ""
    suspect: bool = False
    spoiled: bool = False
    evidence: str = ""


class Breaker:
    """The state of one deployment's health. `row` is any mark of a row, the same at each try."""

    def __init__(self) -> None:
        self.state: BreakerState = "closed"
        self.open_until = -inf
        self.since = -inf
        """When what is wrong began: the breaker has not been closed from then on."""
        self.mended = -inf
        """When the call was sent whose answer closed it last."""
        self.said: str | None = None
        """What the last failure said, for people."""
        self._failures = 0.0
        self._open_for = 0.0
        self._cut_short = -inf
        """When the pause would have ended that somebody cut short."""
        self.opened_at = -inf
        self._failing: dict[Hashable, float] = {}
        self._unexplained: deque[Failure] = deque()
        self._guilty: OrderedDict[Hashable, None] = OrderedDict()
        self._last_good = -inf
        self._put_off = -inf
        self._vouched, self._poisoned = -inf, False
        self._own = self._unanswered = -inf
        self._faulty: set[str] = set()
        """Jobs whose rows have failed by themselves, as such answers show."""

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
        """Let the next call probe now, because somebody says that what failed is mended.

        Where it is not, the pause goes on as it was: whoever tries too early makes nothing worse.
        """
        if self.state == "open" and now < self.open_until:
            self._cut_short, self.open_until = self.open_until, now

    def abandoned(self) -> None:
        """Let the next call probe, because the probe was given up before it was answered."""
        if self.state == "probing":
            self.state = "open"

    def home(self, sent: float) -> None:
        """Note that the service answered a call, if only with a 429."""
        if self.state != "closed":
            if sent < self.opened_at:
                return  # of the time before
            self.state, self.mended, self._cut_short = "closed", sent, -inf
            self._failures = 0.0
        self._failures *= 1.0 - SMOOTHING
        self._open_for = 0.0

    def good(self, sent: float) -> None:
        """Note that the service is in order: it answered well, or with a 4xx about the row."""
        self.home(sent)
        self._last_good = max(self._last_good, sent)
        self._disprove()
        if self._failing:
            self._failing = {row: at for row, at in self._failing.items() if at > sent}
        if self._unexplained:
            for failure in self._unexplained:
                if failure.sent <= sent <= failure.at + GRACE:
                    self._blame(failure, ANSWERED)
            self._unexplained = deque(each for each in self._unexplained if each.sent > sent)

    def doubts(self, failure: Failure, now: float) -> bool:
        """Whether a call of our own should tell whose fault a failure is.

        One should only while failures cannot be explained, or would keep the breaker open, or count
        by such calls alone.
        """
        open_question = not failure.counts or self.state != "closed" or self._poisoned
        return failure.suspect and open_question and now >= self._put_off

    def put_off(self, until: float) -> None:
        """Let none such go until a time: one has gone or is being prepared, here or elsewhere."""
        self._put_off = until

    def vouched(self, sent: float) -> None:
        """Note that a call of our own was answered well, sent at `sent`.

        The service was in order shortly before, and since the last such answer if nothing else was
        answered after it. What failed in that time failed by itself, if a row can cause the fault.
        After two such answers in a row, what fails so in the same jobs counts at once, and opens
        nothing.
        """
        self.home(sent)
        self._own = sent
        self._vouch(sent, since=sent - GRACE)

    def heard(self, answered: bool, sent: float, now: float) -> None:
        """Note what such a call of another process came to, sent at `sent` or soon after.

        It says as much as one of our own, but of the time before it alone, and not of the way from
        here to the service: it closes no breaker, but lets the next call go. It may be told of
        again.
        """
        if not answered:
            self._disprove()
            self._unanswered = max(self._unanswered, sent)
        elif sent > max(self._last_good, self._unanswered, self._vouched + PROBE_EVERY / 2.0):
            if sent > self.opened_at - GRACE:
                self.retry(now)
            self._vouch(sent, since=sent)

    def _vouch(self, sent: float, since: float) -> None:
        self._poisoned = self._vouched >= sent - LASTING
        if self._poisoned:
            since = self._vouched
        else:
            self._faulty.clear()
        self._vouched = sent
        left: deque[Failure] = deque()
        for failure in self._unexplained:
            if failure.sent <= sent and failure.at >= since and self._shown(failure):
                self._blame(failure, VOUCHED)
                self._faulty.add(failure.job)
            else:
                left.append(failure)
        self._unexplained = left

    def _shown(self, failure: Failure) -> bool:
        """Whether the answers to such calls show that a failure at their time is the row's."""
        return failure.suspect and (not failure.spoiled or self._own >= failure.at - LASTING)

    def _known(self, failure: Failure) -> bool:
        """Whether a failure is one more of a job whose rows are known to fail by themselves.

        Those of other jobs are judged by what is answered after them: an outage may have begun.
        """
        lasts = self._poisoned and failure.at <= self._vouched + LASTING
        return lasts and failure.job in self._faulty and self._shown(failure)

    def _disprove(self) -> None:
        """Forget such answers: they show no longer that what fails does so by itself."""
        self._vouched, self._poisoned, self._own = -inf, False, -inf
        self._faulty.clear()

    def bad(
        self,
        outcome: Outcome,
        row: Hashable,
        *,
        job: str,
        sent: float,
        probe: bool,
        now: float,
        rng: Random,
    ) -> Failure:
        """Note that a call of `row` failed with transient, timeout, auth or gone."""
        self.said = outcome.message or outcome.code or outcome.kind
        own = outcome.kind == "timeout" or outcome.status not in _OF_THE_SERVICE
        suspect = own and outcome.kind == "transient" and outcome.status != 408 and row != OWN
        spoiled = suspect and outcome.status is not None and outcome.status < 400
        failure = Failure(row, sent, now, job=job, counts=False, suspect=suspect, spoiled=spoiled)
        if self._known(failure):
            failure.counts, failure.evidence = True, VOUCHED
            if probe:
                self.home(sent)
            return failure
        if row == OWN:
            self._disprove()
            self._unanswered = sent
        if row in self._failing or (len(self._failing) < 8 and row not in self._guilty):
            self._failing[row] = sent
        self._trip(outcome, probe, now, rng)
        failure.counts = own and self._failing.keys() <= {row}
        while self._unexplained and self._unexplained[0].at < now - PATIENCE:
            self._unexplained.popleft()
        if self._last_good >= sent:
            self._blame(failure, ANSWERED)
        elif self._vouched >= sent and self._shown(failure):
            self._blame(failure, VOUCHED)
        else:
            self._unexplained.append(failure)
        return failure

    def _blame(self, failure: Failure, evidence: str) -> None:
        """Hold a failure against its row, because the evidence shows that it is no outage."""
        failure.counts, failure.evidence = True, evidence
        self._failing.pop(failure.row, None)
        self._guilty[failure.row] = None
        if len(self._guilty) > GUILTY:
            self._guilty.popitem(last=False)

    def _trip(self, outcome: Outcome, probe: bool, now: float, rng: Random) -> None:
        self._failures += SMOOTHING * (1.0 - self._failures)
        refused = outcome.kind in ("auth", "gone")
        if self.state == "open" and not refused:
            return
        if probe and now < self._cut_short:
            self.state, self.opened_at, self.open_until = "open", now, self._cut_short
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
