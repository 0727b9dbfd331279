"""May one deployment take a call now; if not, when, and why? What one process knows of it.

A lane puts the decisions about a deployment together: pacing, share, guard, breaker, pauses,
budget. It has no I/O and no clock: times are the event loop's seconds, handed in.
"""

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import inf
from random import Random

from schemas.deployments import Deployment
from schemas.outcomes import Outcome
from schemas.results import WaitReason
from workers.dispatch.breaker import Breaker, Failure
from workers.dispatch.concurrency import START, Guard
from workers.dispatch.retries import Budget, hint
from workers.dispatch.token_estimates import Estimator, Size
from workers.quota.allowance import Allowance, Grant
from workers.quota.pacing import Headroom, Pacer, Quota
from workers.quota.shares import Wish, named, seats

SHORT = 2.0
"""Seconds: a 429 that asks for less is about a window that others share; it delays its row, and
only STREAK of them in a row stop the lane."""
STREAK = 3
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


class Lane:
    """One deployment as one process sees it. `midnight` is when the day's quota starts anew."""

    def __init__(
        self, deployment: Deployment, *, safe_share: float, midnight: float, now: float, rng: Random
    ) -> None:
        self.name = deployment.name
        self.deployment = deployment
        self.quota = Quota(
            deployment.requests_per_minute,
            deployment.tokens_per_minute,
            deployment.requests_per_day,
        )
        given = (deployment.max_tokens_per_request, deployment.tokens_per_minute)
        self.most_tokens: float = min((each for each in given if each), default=inf)
        """Tokens that one call may have: more than a minute's are never admitted either."""
        self.in_flight = 0
        # A quota holds calls back by itself, and slow answers may need hundreds in flight for it.
        paced = self.quota.requests_per_minute or self.quota.tokens_per_minute
        self.guard = Guard(deployment.max_concurrency, now, start=PACED if paced else START)
        self.breaker = Breaker()
        self.budget = Budget(at=now)
        self.why: WaitReason = "quota"
        self.used_at = -inf
        self._rng = rng
        self._pacer = Pacer(self.quota, now)
        self._rooms = {"requests": Headroom(0.005), "tokens": Headroom(0.015)}
        self._estimators: OrderedDict[str, Estimator] = OrderedDict()
        self._paused_until = -inf
        self._paused_for: WaitReason = "throttled"
        self._refusals = self._flights = self._crowded = 0
        self._refused_at = -inf
        self._allowance = Allowance(self.quota, safe_share=safe_share, midnight=midnight, now=now)

    # -- may a call go? ---------------------------------------------------------------------

    def tokens(self, job: str, size: Size) -> float:
        """Tokens to reserve for a call of a job."""
        return self._estimator(job).total(size)

    def fits(self, job: str, size: Size) -> bool:
        """Whether the call could pass the limits of tokens per request and minute at all."""
        return self._estimator(job).least(size) <= self.most_tokens

    def suits(self, job: str, size: Size) -> bool:
        """Whether it will pass them, as far as can be told."""
        return self.most_tokens == inf or self.tokens(job, size) <= self.most_tokens

    def ready(self, tokens: float, now: float) -> float:
        """When a call of `tokens` may go, as far as time decides; inf: when something happens.

        Where that is later than now, `why` says what stands against it.
        """
        if self.in_flight >= self.guard.limit:
            self.guard.full()
            self.why = "concurrency"
            return inf
        at = self.breaker.ready(now)
        if at > now:
            self.why = "outage"
            return at
        if self._paused_until > now:
            self.why = self._paused_for
            return self._paused_until
        return self._quota_ready(tokens, now) if self.quota.limited else now

    def blocked(self, now: float) -> tuple[float, WaitReason]:
        """Until when nothing at all may go, and why; (now, ...) if nothing is in the way."""
        if self.breaker.state == "open" and self.breaker.open_until > now:
            return self.breaker.open_until, "outage"
        if self._paused_until > now:
            return self._paused_until, self._paused_for
        if self._allowance.day_over(now):
            return self._allowance.midnight, "day"
        return now, "quota"

    def admit(self, tokens: float, now: float) -> Ticket:
        """A call goes now. It must be ready, and be settled or abandoned."""
        self.in_flight += 1
        self.used_at = now
        if self.quota.limited:
            self._pacer.spend(tokens, now)
            self._allowance.spend(tokens)
        return Ticket(tokens, now, self.breaker.admitted())

    # -- what became of it ------------------------------------------------------------------

    def abandon(self, ticket: Ticket, now: float) -> None:
        """A call was given up before it was answered; the service may have counted it."""
        self.in_flight -= 1
        self.used_at = now
        if ticket.probe:
            self.breaker.abandoned()

    def settle(
        self, ticket: Ticket, outcome: Outcome, *, job: str, size: Size, row: Hashable, now: float
    ) -> Settlement:
        """Learn from an answer."""
        self.in_flight -= 1
        self.used_at = now
        if outcome.kind == "throttled":
            self.breaker.home(ticket.sent)
            rest = self._throttled(ticket, outcome, now)
            # Whether it can pass at all is a guess; the service has said no, alone or not.
            large = outcome.limit == "tokens" and self.tokens(job, size) > self.most_tokens
            return Settlement(rest, Failure(row, ticket.sent, now, counts=True) if large else None)
        if outcome.kind in ("transient", "timeout", "auth", "gone"):
            if outcome.kind == "timeout" or outcome.status in (408, 504):
                self.guard.timed_out(ticket.sent, now)
            failure = self.breaker.bad(
                outcome, row, sent=ticket.sent, probe=ticket.probe, now=now, rng=self._rng
            )
            # A refused key or a deployment that is not there is no row's fault, whoever passes.
            own = outcome.kind in ("transient", "timeout")
            return Settlement(failure=failure if own else None)
        self.breaker.good(ticket.sent)
        self.budget.succeeded()
        self.guard.answered(now)
        self._refusals = self._flights = self._crowded = 0
        if self.quota.limited:
            self._passed(now)
        if outcome.usage is not None:
            surplus = self._estimator(job).learn(size, outcome.usage, ticket.tokens)
            self._pacer.correct(surplus, now)
        return NOTHING

    def _passed(self, now: float) -> None:
        for room in self._rooms.values():
            room.passed()
        self._allowance.passed(now)
        self._apply(now)

    def _throttled(self, ticket: Ticket, outcome: Outcome, now: float) -> float:
        self._pacer.correct(-ticket.tokens, now)
        limit = outcome.limit
        told = outcome.retry_after or 0.0
        if limit == "concurrency" or (limit is None and not self.quota.limited and told < SHORT):
            self.guard.refused(self.in_flight, now)
            return self._wait_for_slot(outcome, now)
        self._refusals += 1
        if ticket.sent >= self._refused_at:
            # Those of one flight know no more than its first.
            self._flights += 1
            self._refused_at = now
        wait = hint(outcome, self._flights, self._rng)
        if limit == "day":
            self._pause(now + wait, "day")
            return 0.0
        if not self.quota.limited:
            self.guard.timed_out(ticket.sent, now)
        for name, room in self._rooms.items():
            if limit is None or limit == name:
                room.refused(ticket.sent, now)
        self._allowance.refused(ticket.sent, now)
        self._apply(now)
        if limit == "tokens" or wait > SHORT + 0.25 or self._refusals >= STREAK:
            self._pause(now + wait, "throttled")
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
        self._pause(now + max(told, wait * self._rng.uniform(0.5, 1.0)), "concurrency")
        return 0.0

    def _pause(self, until: float, reason: WaitReason) -> None:
        if until > self._paused_until:
            self._paused_until = until
            self._paused_for = reason

    # -- the share of the quota -------------------------------------------------------------

    def own(self, now: float) -> None:
        """There is nobody to share with: the whole quota is this process's."""
        self._allowance.own()
        self._apply(now)

    def fund(self, grant: Grant, told: Wish, midnight: float, now: float) -> None:
        """The ledger has granted; `told` is what it was told; `midnight` is by its clock."""
        self._allowance.fund(grant, midnight)
        self._rooms["requests"].learned(grant.requests, told.requests)
        self._rooms["tokens"].learned(grant.tokens, told.tokens)
        self._apply(now)

    def lower(self, share: float, now: float) -> None:
        """About to write a smaller share: keep to it from before the write on."""
        self._allowance.lower(share)
        self._apply(now)

    def ledger_lost(self, now: float) -> None:
        """The ledger did not answer: once the share has run out, go on alone and carefully."""
        self._allowance.ledger_lost(now)
        self._apply(now)

    def wish(
        self, jobs: Mapping[str, float], queued: int, now: float, *, leaving: bool = False
    ) -> Wish:
        """What to ask of the ledger for `jobs`, by weight, while `queued` calls wait.

        `leaving` returns the day's rest.
        """
        return Wish(
            weight=sum(jobs.values()) or 1.0,
            jobs=named(jobs),
            wants=self._allowance.wants(queued, now),
            seats=seats(self.quota.requests_per_minute),
            requests=self._rooms["requests"].factor,
            tokens=self._rooms["tokens"].factor,
            day=self._allowance.day_wanted(self._pacer.request_rate, now),
            drawn=self._allowance.used if leaving else self._allowance.drawn,
            per_day=self.quota.requests_per_day,
        )

    def granted(self, now: float) -> float:
        """The part of the quota that is this process's by the ledger, as long as it is."""
        return self._allowance.granted(now)

    def weight(self, job: str, weight: float) -> float:
        """What a job weighs here: it counts once, however many processes ask it."""
        return weight / self._allowance.spread(job)

    def released(self) -> None:
        """The share was given back."""
        self._allowance.release()

    def _apply(self, now: float) -> None:
        rooms = self._rooms
        share = self._allowance.share
        self._pacer.grant(share, rooms["requests"].value, rooms["tokens"].value, now)

    def _quota_ready(self, tokens: float, now: float) -> float:
        at = self._allowance.ready(now)
        self.why = "day" if now < at < inf else "quota"
        if at > now:
            return at
        at = self._pacer.ready(tokens, now)
        if at > now:
            self._allowance.starve()
        return at

    def _estimator(self, job: str) -> Estimator:
        found = self._estimators.get(job)
        if found is None:
            found = self._estimators[job] = Estimator()
            if len(self._estimators) > JOBS:
                self._estimators.popitem(last=False)
        return found
