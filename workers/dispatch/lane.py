"""May one deployment take a call now; if not, until when, and why?

A lane is its conditions: hours, concurrency, breaker, pause, share, day and buckets, in this order.
Each answers until when it stands against a call, and why. A lane has no I/O and no clock: times are
the event loop's seconds, handed in.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import inf
from random import Random

from schemas.deployments import Deployment
from schemas.outcomes import Outcome
from schemas.results import WaitReason
from workers.dispatch.breaker import OWN, PROBE_EVERY, Breaker, Failure
from workers.dispatch.concurrency import START, Guard
from workers.dispatch.retries import JITTER, Budget, hint
from workers.dispatch.token_estimates import Estimator
from workers.quota.allowance import Allowance
from workers.quota.deference import Deference
from workers.quota.pacing import Quota
from workers.rows.sizes import Size

SHORT = 2.0
"""Seconds: a 429 that asks for less is about a window that others share; it delays its row
and, unless it is one of STREAK in a row, nothing else."""
STREAK = 3
"""Refusals in a row that stop the lane, however short a wait they ask for."""
CROWDED, CROWDED_LONGEST = 0.5, 10.0
"""Seconds to wait where others hold all slots of a server: doubled each time, up to the latter."""
PACED = 512
"""Calls in flight from which the guard starts where a quota paces them."""
JOBS = 256
"""Jobs whose token ratios are remembered."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A call that was let through."""

    tokens: float
    sent: float
    probe: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an answer means for its row: seconds to rest if it is asked again, and what failed."""

    rest: float = 0.0
    failure: Failure | None = None


NOTHING = Settlement()

Condition = Callable[[float | None, float], tuple[float, WaitReason]]
"""Until when one thing stands against a call of so many tokens, and why. A time that is not later
than the given one says that it does not; inf, that something else than time decides. Without tokens
it is asked about calls in general, and nothing is noted."""


class Opening:
    """A deployment's hours. `epoch` is the service's time, since the epoch, when the loop's was 0;
    whoever has heard that it is another sets it.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.epoch = 0.0
        self._hours = deployment.open_hours
        self._standing, self._from, self._until = True, inf, -inf

    def condition(self, _: float | None, now: float) -> tuple[float, WaitReason]:
        """Until when it is closed."""
        at = now + self.epoch
        if self._hours is not None and not self._from <= at < self._until:
            self._from = at
            self._standing, self._until = self._hours.standing(at)
        return (now if self._standing else self._until - self.epoch), "hours"


class Lane:
    """One deployment as one process sees it. `midnight` is when the day's quota starts anew."""

    def __init__(
        self, deployment: Deployment, *, safe_share: float, midnight: float, now: float, rng: Random
    ) -> None:
        self.name = deployment.name
        self.deployment = deployment
        quota = Quota(
            deployment.batch_requests_per_minute,
            deployment.batch_tokens_per_minute,
            deployment.batch_requests_per_day,
        )
        given = (deployment.max_tokens_per_request, deployment.batch_tokens_per_minute)
        self.opening = None if deployment.hours is None else Opening(deployment)
        self.most_tokens: float = min((each for each in given if each), default=inf)
        """Tokens that one call may have: more than a minute's are never admitted either."""
        self.context: float = deployment.context_length or inf
        """Tokens that the model reads at a time."""
        self.in_flight = 0
        # A quota holds calls back by itself, and slow answers may need hundreds in flight for it.
        paced = quota.requests_per_minute or quota.tokens_per_minute
        self.guard = Guard(deployment.max_concurrency, now, start=PACED if paced else START)
        self.breaker = Breaker()
        self.budget = Budget(at=now)
        self.allowance = Allowance(quota, safe_share=safe_share, midnight=midnight, now=now)
        if deployment.yield_to_interactive:
            self.allowance.deference = Deference(1.0 - deployment.reserve, now)
        self.why: WaitReason = "quota"
        self.used_at = -inf
        self.calls = self.refusals = self.input_tokens = self.output_tokens = 0
        """Sums since the process started, of calls that were answered, well or not."""
        self._rng = rng
        self._estimators: OrderedDict[str, Estimator] = OrderedDict()
        self._paused: tuple[float, WaitReason] = (-inf, "throttled")
        self._paused_since = -inf
        self._refusals = self._flights = self._crowded = 0
        self._refused_at = -inf
        health: tuple[Condition, ...] = (self._concurrency, self._breaker, self._pause)
        if self.opening is not None:
            health = (self.opening.condition, *health)
        limits: tuple[Condition, ...] = (self._share, self._day, self._buckets)
        self._conditions = (*health, *limits) if quota.limited else health

    @property
    def tokens_used(self) -> int:
        """Tokens of all calls since the process started, as the endpoint counted them."""
        return self.input_tokens + self.output_tokens

    @property
    def full(self) -> bool:
        """Whether no call may go before one of those in flight has ended."""
        return self.in_flight >= self.guard.limit

    # -- may a call go? ---------------------------------------------------------------------

    def tokens(self, job: str, size: Size) -> float:
        """Tokens to reserve for a call of a job."""
        return self._estimator(job).total(size)

    def reads(self, job: str, size: Size) -> bool:
        """Whether the model could read the call's prompts at all."""
        return self._estimator(job).least_read(size) <= self.context

    def fits(self, job: str, size: Size) -> bool:
        """Whether the call could pass the limits of tokens per request and minute at all."""
        return self.reads(job, size) and self._estimator(job).least(size) <= self.most_tokens

    def suits(self, job: str, size: Size) -> bool:
        """Whether it will pass them, as far as can be told."""
        most = self.most_tokens if size.longest < size.text else min(self.most_tokens, self.context)
        return most == inf or self.tokens(job, size) <= most

    def ready(self, tokens: float, now: float) -> float:
        """When a call of `tokens` may go, as far as time decides; inf: when something happens.

        Where that is later than now, `why` says what stands against it.
        """
        for condition in self._conditions:
            until, why = condition(tokens, now)
            if until > now:
                self.why = why
                return until
        return now

    def blocked(self, now: float) -> tuple[float, WaitReason]:
        """Until when time alone keeps every call away, and why; (now, ...): it does not."""
        for condition in self._conditions:
            until, why = condition(None, now)
            if now < until < inf:
                return until, why
        return now, "quota"

    def began(self, reason: WaitReason, now: float) -> float:
        """When the fault began that calls wait for; for no fault, when the last one had ended."""
        if reason == "outage" and self.breaker.state != "closed":
            return self.breaker.since
        if reason == self._paused[1]:
            return self._paused_since
        return max(self.breaker.mended, min(self._paused[0], now))

    def _concurrency(self, tokens: float | None, now: float) -> tuple[float, WaitReason]:
        if not self.full:
            return now, "concurrency"
        if tokens is not None:
            self.guard.full()
        return inf, "concurrency"

    def _breaker(self, _: float | None, now: float) -> tuple[float, WaitReason]:
        return self.breaker.ready(now), "outage"

    def _pause(self, _: float | None, __: float) -> tuple[float, WaitReason]:
        return self._paused

    def _share(self, _: float | None, now: float) -> tuple[float, WaitReason]:
        return self.allowance.shared(now), "quota"

    def _day(self, _: float | None, now: float) -> tuple[float, WaitReason]:
        until = self.allowance.day(now)
        return until, "day" if until < inf else "quota"

    def _buckets(self, tokens: float | None, now: float) -> tuple[float, WaitReason]:
        """Buckets keep no call away for good: they say which one goes when."""
        return (now if tokens is None else self.allowance.paced(tokens, now)), "quota"

    def admit(self, tokens: float, now: float) -> Ticket:
        """Let a call go that is ready. The ticket must be settled or abandoned."""
        self.in_flight += 1
        self.used_at = now
        self.allowance.spend(tokens, now)
        return Ticket(tokens, now, self.breaker.admitted())

    def doubts(self, failure: Failure, now: float) -> bool:
        """Whether a call of our own should tell whose fault a failure is."""
        return self.breaker.doubts(failure, now)

    def may_probe(self, tokens: float, now: float) -> bool:
        """Whether a call of our own may go, whatever the breaker says."""
        others = (each for each in self._conditions if each != self._breaker)
        return all(condition(tokens, now)[0] <= now for condition in others)

    def probe(self, tokens: float, now: float) -> Ticket | None:
        """Let a call of our own go; None where it may not."""
        if not self.may_probe(tokens, now):
            return None
        self.breaker.put_off(now + PROBE_EVERY)
        return self.admit(tokens, now)

    # -- what became of it ------------------------------------------------------------------

    def abandon(self, ticket: Ticket, now: float) -> None:
        """Note that a call was given up before its answer; the service may have counted it."""
        self.in_flight -= 1
        self.used_at = now
        if ticket.probe:
            self.breaker.abandoned()

    def settle(
        self, ticket: Ticket, outcome: Outcome, *, job: str, size: Size, row: Hashable, now: float
    ) -> Settlement:
        """Learn from an answer; gives what the answer means for its row."""
        self.in_flight -= 1
        self.used_at = now
        self.calls += 1
        if outcome.usage is not None:
            self.input_tokens += outcome.usage.prompt_tokens
            self.output_tokens += outcome.usage.completion_tokens
        if outcome.kind == "throttled":
            self.refusals += 1
            self.breaker.home(ticket.sent)
            rest = self._throttled(ticket, outcome, now)
            # Whether it can pass at all is a guess; the service has said no, alone or not.
            large = outcome.limit == "tokens" and self.tokens(job, size) > self.most_tokens
            return Settlement(rest, Failure(row, ticket.sent, now, counts=True) if large else None)
        if outcome.kind in ("transient", "timeout", "auth", "gone"):
            return self._failed(ticket, outcome, job, row, now)
        (self.breaker.vouched if row == OWN else self.breaker.good)(ticket.sent)
        self.budget.succeeded()
        self.guard.answered(now)
        self._refusals = self._flights = self._crowded = 0
        if outcome.remaining_requests is not None:
            self.allowance.heard("requests", outcome.remaining_requests, ticket.sent, now)
        if outcome.remaining_tokens is not None:
            self.allowance.heard("tokens", outcome.remaining_tokens, ticket.sent, now)
        self.allowance.passed(now)
        if outcome.usage is not None:
            surplus = self._estimator(job).learn(size, outcome.usage, ticket.tokens)
            self.allowance.correct(surplus, now)
        return NOTHING

    def _failed(
        self, ticket: Ticket, outcome: Outcome, job: str, row: Hashable, now: float
    ) -> Settlement:
        if outcome.kind == "timeout" or outcome.status in (408, 504):
            self.guard.timed_out(ticket.sent, now)
        failure = self.breaker.bad(
            outcome,
            row,
            job=job,
            sent=ticket.sent,
            probe=ticket.probe,
            now=now,
            rng=self._rng,
        )
        # A refused key or a deployment that is not there is no row's fault, whoever passes.
        own = outcome.kind in ("transient", "timeout")
        return Settlement(failure=failure if own else None)

    def _throttled(self, ticket: Ticket, outcome: Outcome, now: float) -> float:
        self.allowance.correct(-ticket.tokens, now)
        limit, limited = outcome.limit, self.allowance.quota.limited
        told = outcome.retry_after or 0.0
        if limit == "concurrency" or (limit is None and not limited and told < SHORT):
            self.guard.refused(self.in_flight, now)
            return self._wait_for_slot(outcome, now)
        self._refusals += 1
        if ticket.sent >= self._refused_at:
            # Those of one flight know no more than its first.
            self._flights += 1
            self._refused_at = now
        wait = hint(outcome, self._flights, self._rng)
        if limit == "day":
            self._stop(now + wait, "day", now)
            return 0.0
        if not limited:
            self.guard.timed_out(ticket.sent, now)
        self.allowance.refused(limit, ticket.sent, now)
        if limit == "tokens" or wait > SHORT + JITTER or self._refusals >= STREAK:
            self._stop(now + wait, "throttled", now)
            return 0.0
        return wait

    def _wait_for_slot(self, outcome: Outcome, now: float) -> float:
        """Seconds for the row to rest: calls of our own that end tell when there is a slot again.

        Where others hold them all nothing of ours tells, so the lane waits, ever longer.
        """
        told = hint(outcome, 1, self._rng) if outcome.retry_after else 0.0
        if self.in_flight > 0:
            return told
        wait = min(CROWDED_LONGEST, CROWDED * 2.0 ** min(self._crowded, 10))
        self._crowded += 1
        self._stop(now + max(told, wait * self._rng.uniform(0.5, 1.0)), "concurrency", now)
        return 0.0

    def _stop(self, until: float, reason: WaitReason, now: float) -> None:
        """Let nothing go until a time, unless that was so for longer already."""
        if now > self._paused[0]:
            self._paused_since = now
        self._paused = max(self._paused, (until, reason), key=lambda pause: pause[0])

    def _estimator(self, job: str) -> Estimator:
        found = self._estimators.get(job)
        if found is None:
            found = self._estimators[job] = Estimator()
            if len(self._estimators) > JOBS:
                self._estimators.popitem(last=False)
        return found
