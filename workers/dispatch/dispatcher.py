"""Which deployment answers a call, and when? Turns, routes, pacing and retries.

Deployments that share a route share a queue; each takes from it what its quota, guard and breaker
let through.
"""

import asyncio
import time
from collections.abc import Callable, Container, Mapping, Sequence
from random import Random

from schemas.deployments import Deployment, Task
from schemas.jobs import Waiting
from schemas.outcomes import Outcome
from schemas.results import WaitReason
from workers.dispatch.call import (
    OVER_BUDGET,
    Answer,
    Call,
    Gate,
    HandBack,
    Tries,
    Waiter,
    too_large,
    unpriced,
)
from workers.dispatch.lane import Lane, Ticket
from workers.dispatch.probe import probe
from workers.dispatch.readings import reading
from workers.dispatch.retries import Budget, Step, backoff, step
from workers.dispatch.routing import Routing
from workers.dispatch.spending import BudgetSpent, Pledge
from workers.dispatch.waiting import Group, Pool, Turns
from workers.ports import Endpoint
from workers.ports.telemetry import DeploymentReading
from workers.quota.allowance import DAY
from workers.quota.claims import ProbeClaims
from workers.quota.ledger import Ledger
from workers.quota.rounds import Rounds
from workers.quota.weights import JobWeights
from workers.rows.packing import Limits
from workers.rows.sizes import measure


class Dispatcher:
    """Makes calls to the configured deployments within their quotas.

    Without a ledger this process uses the quotas alone; with one that cannot be reached it starts
    from `safe_share` of each. `claims` tell whose turn a call of our own is, where other processes
    ask the deployments too. `routes` as in `Routing`; `wall` gives seconds since the epoch.
    """

    def __init__(
        self,
        deployments: Sequence[Deployment],
        endpoints: Mapping[str, Endpoint],
        *,
        rng: Random,
        ledger: Ledger | None = None,
        claims: ProbeClaims | None = None,
        routes: Mapping[str, Sequence[str]] | None = None,
        safe_share: float = 0.1,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._deployments = deployments
        self._endpoints = endpoints
        self._rng = rng
        self._claims = claims
        self._wall = wall
        self._safe_share = safe_share
        self._routing = Routing(deployments, endpoints, routes or {})
        self._rounds = (
            Rounds(ledger, moved=self.moved, asked=self._asks, queued=self._queued)
            if ledger is not None
            else None
        )
        self._turns = Turns(rng=rng, wanted=self._rounds.wanted if self._rounds else None)
        self._lanes: dict[str, Lane] = {}
        self._groups: dict[tuple[Lane, ...], Group] = {}
        self._calls = 0
        self._in_flight: dict[str, dict[Ticket, Lane]] = {}

    def lanes(self) -> Sequence[Lane]:
        """All deployments as this process sees them. It needs a running event loop."""
        self._open()
        return tuple(self._lanes.values())

    def readings(self) -> Sequence[DeploymentReading]:
        """How all deployments stand, for whoever watches. It needs a running event loop."""
        now = asyncio.get_running_loop().time()
        return [reading(lane, self._queued(lane.name), now) for lane in self.lanes()]

    def cannot(self, task: Task, model: str, among: Container[str] | None = None) -> str | None:
        """Why no deployment can do this, as a message for the row; None if one can."""
        return self._routing.cannot(task, model, among)

    def serving(self, task: Task, model: str) -> Sequence[str]:
        """The deployments that may be asked for a model's task."""
        return self._routing.serving(task, model)

    def pack_limits(self, task: Task, model: str) -> Limits:
        """What a packed call may hold, whichever deployment gets it."""
        return self._routing.pack_limits(task, model)

    async def preflight(self, task: Task, model: str) -> str | None:
        """Why the endpoints themselves say that they cannot do a task; None if one can."""
        return await self._routing.preflight(task, model)

    async def run(self) -> None:
        """Keep the shares of the quota ledger fresh, until cancelled."""
        self._open()
        if self._rounds is not None:
            await self._rounds.run()
        else:
            await asyncio.Event().wait()

    def waiting(self, job: str) -> Waiting | None:
        """What a job waits for now; None if nothing of it is here."""
        found = self._turns.waiting(job, self._wall())
        if found is None:
            return self._latency(job)
        if found.reason != "outage":
            return found
        return found.model_copy(update={"message": self._said(found.deployment)})

    def _latency(self, job: str) -> Waiting | None:
        """All of a job's calls are on their way: it waits for their answers."""
        asked = self._in_flight.get(job)
        if not asked:
            return None
        ticket, lane = next(iter(asked.items()))
        since = self._wall() - (asyncio.get_running_loop().time() - ticket.sent)
        return Waiting(reason="latency", deployment=lane.name, since=since)

    def _said(self, deployment: str | None) -> str | None:
        lane = self._lanes.get(deployment or "")
        return None if lane is None else lane.breaker.said

    async def ask(self, call: Call, *, job: str, weight: float, gate: Gate) -> Answer:
        """Make a call when its turn has come, again where that helps; the last outcome is final.

        Raises HandBack when it cannot be admitted before the gate closes or its deadline, and
        ValueError for a call that `cannot` refuses.
        """
        lanes = self._able(call.task, call.model)
        if not lanes:
            return self._unserved(call)
        if gate.among is not None:
            lanes = tuple(lane for lane in lanes if lane.name in gate.among)
            if not lanes:
                return Answer(unpriced(call.model), ())
        now = asyncio.get_running_loop().time()
        for lane in lanes:
            if lane.opening is not None:
                lane.opening.epoch = self._wall() - now  # storage may have told another time
        size = measure(call.task, call.body)
        # Some deployments may be too small: only where all seem to be is the service asked.
        fitting = tuple(lane for lane in lanes if lane.suits(job, size)) or tuple(
            lane for lane in lanes if lane.fits(job, size)
        )
        if not fitting:
            readers = [lane for lane in lanes if lane.reads(job, size)]
            return Answer(too_large(readers) if readers else _too_long(lanes), ())
        group = self._groups.get(fitting) or self._group(fitting)
        pool = group.pool
        pool.begin(job, weight, gate.tenant)
        try:
            return await self._asked(call, group, Waiter(job, size, gate, now))
        finally:
            pool.end(job)

    async def _asked(self, call: Call, group: Group, waiter: Waiter) -> Answer:
        self._calls += 1
        row = self._calls if call.line is None else (waiter.job, call.line)
        tries = Tries(row, sum(attempt.counted for attempt in call.earlier))
        try:
            outcome = await self._last(call, group, waiter, tries)
        except BudgetSpent:
            outcome = OVER_BUDGET
        except HandBack as wait:
            wait.attempts = tries.attempts
            wait.said = self._said(wait.deployment) if wait.reason == "outage" else None
            raise
        return Answer(outcome, tries.attempts)

    async def _last(self, call: Call, group: Group, waiter: Waiter, tries: Tries) -> Outcome:
        """Try until an outcome is final; every try is noted in `tries`."""
        loop = asyncio.get_running_loop()
        failures = 0
        budget: Budget | None = None
        while True:
            try:
                lane, ticket = await self._let_through(call, group, waiter)
                outcome, what, rest = await self._try(lane, ticket, call, waiter, tries)
            except BaseException:
                if budget is not None:
                    budget.give_back()
                raise
            if budget is not None and (what != "retry" or tries.vouched_for):
                budget.give_back()
            budget = None
            if what == "final":
                return outcome
            reason: WaitReason = "throttled"
            # What spares a deployment does not hold up those who may go elsewhere.
            now = loop.time()
            alone = all(other is lane or other.blocked(now)[0] > now for other in group.lanes)
            if what == "retry":
                failures += 1
                told = outcome.retry_after if alone else None
                reason, rest = "outage", backoff(failures, self._rng, told)
            while rest > 0.0 and not tries.exhausted:
                await self._turns.rest(group, waiter, rest, reason, lane.name)
                rest = 0.0
                if what == "retry" and alone and lane.budget.wait(loop.time()) > 0.0:
                    failures += 1
                    rest = max(lane.budget.wait(loop.time()), backoff(failures, self._rng))
            if tries.exhausted:
                return too_large((lane,)) if what == "postpone" else tries.judged(outcome)
            if what == "retry" and alone:
                budget = lane.budget
                budget.spend()

    async def _let_through(self, call: Call, group: Group, waiter: Waiter) -> tuple[Lane, Ticket]:
        """Wait until a call may be made: for its turn, and in a capped job for room before that."""
        purse = waiter.gate.purse
        if purse is None:
            return await self._turns.admitted(group, waiter)
        names = [lane.name for lane in group.lanes]
        while True:
            waiter.pledge = pledge = await purse.pledge(call.task, call.body, names)
            try:
                lane, ticket = await self._turns.admitted(group, waiter)
                if await self._secured(pledge, lane, ticket, waiter.gate):
                    return lane, ticket
            except BaseException:
                pledge.drop()
                raise

    async def _secured(self, pledge: Pledge, lane: Lane, ticket: Ticket, gate: Gate) -> bool:
        """Whether a call that was let through may be made, once what it may cost is durable."""
        may = False
        try:
            await pledge.secure()
            now = asyncio.get_running_loop().time()
            may = gate.closed is None and now < gate.until
        finally:
            if not may:
                pledge.drop()
                lane.abandon(ticket, asyncio.get_running_loop().time())
                self._turns.pump(lane)
        return may

    async def _try(
        self, lane: Lane, ticket: Ticket, call: Call, waiter: Waiter, tries: Tries
    ) -> tuple[Outcome, Step, float]:
        """Make one call. Return its outcome, what follows, and the seconds for its row to rest."""
        loop = asyncio.get_running_loop()
        asked = self._in_flight.setdefault(waiter.job, {})
        asked[ticket] = lane
        outcome: Outcome | None = None
        waiter.gate.unkept += 1
        waiter.gate.seats = lane.allowance.seated
        try:
            outcome = await self._endpoints[lane.name].ask(call.task, call.body)
        finally:
            del asked[ticket]
            if not asked:
                self._in_flight.pop(waiter.job, None)
            if waiter.pledge is not None:
                waiter.pledge.settle(lane.name, outcome)
            if outcome is None:
                lane.abandon(ticket, loop.time())
                self._turns.pump(lane)
        now = loop.time()
        job, size = waiter.job, waiter.size
        verdict = lane.settle(ticket, outcome, job=job, size=size, row=tries.row, now=now)
        made = tries.note(lane, ticket, outcome, verdict.failure, waiter=waiter, now=now)
        retried = waiter.retried
        waiter.tried(now)
        waiter.gate.trail.called(lane.deployment, call.task, outcome, made, retried=retried)
        what = step(outcome)
        if what != "final":
            self._turns.hand_back(lane)
        self._turns.pump(lane)
        allowed = waiter.gate.closed is None and now < waiter.gate.until
        if verdict.failure is not None and allowed and lane.doubts(verdict.failure, now):
            endpoint = self._endpoints[lane.name]
            probed = await probe(lane, endpoint, call.task, waiter.gate, self._claims)
            if probed is not None:
                tries.probed(probed)
            self._turns.pump(lane)
        return outcome, what, verdict.rest

    # -- lanes ------------------------------------------------------------------------------

    def _able(self, task: Task, model: str) -> tuple[Lane, ...]:
        if not self._lanes:
            self._open()
        return tuple(self._lanes[name] for name in self._routing.able(task, model))

    def _unserved(self, call: Call) -> Answer:
        """The answer to a call that no deployment can do, because its endpoint says so."""
        refused = self._routing.heard(call.task, call.model)
        if refused is None:
            raise ValueError(self.cannot(call.task, call.model))
        return Answer(Outcome(kind="bad_request", code="no_deployment", message=refused), ())

    def _open(self) -> None:
        """Make the lanes; a monotonic clock is known only inside an event loop."""
        if self._lanes:
            return
        now = asyncio.get_running_loop().time()
        midnight = now + DAY - self._wall() % DAY
        for each in self._deployments:
            lane = Lane(
                each, safe_share=self._safe_share, midnight=midnight, now=now, rng=self._rng
            )
            if lane.opening is not None:
                lane.opening.epoch = self._wall() - now
            self._lanes[each.name] = lane
            if self._rounds is None:
                lane.allowance.own(now)
            elif lane.allowance.quota.limited:
                self._rounds.add(lane)
        self._join()

    def _join(self) -> None:
        """Put lanes that share a route into one pool."""
        pools = {name: Pool([lane]) for name, lane in self._lanes.items()}
        for names in self._routing.names.values():
            first, *others = dict.fromkeys(pools[name] for name in names)
            for other in others:
                first.lanes += other.lanes
                pools |= {lane.name: first for lane in other.lanes}
        for pool in dict.fromkeys(pools.values()):
            self._turns.add(pool)

    def _group(self, lanes: tuple[Lane, ...]) -> Group:
        group = self._groups[lanes] = Group(lanes, self._turns.pool(lanes[0]))
        return group

    # -- what the rounds with the ledger ask ------------------------------------------------

    def moved(self, name: str) -> None:
        """Let the calls go on that wait for a deployment, as far as it takes them now."""
        self._turns.pump(self._lanes[name])

    def _asks(self, name: str) -> JobWeights:
        """The jobs that this process asks at a lane, for its share of the quota."""
        lane = self._lanes[name]
        return self._turns.pool(lane).jobs_at(lane)

    def _queued(self, name: str) -> int:
        return self._turns.pool(self._lanes[name]).queue.waiting


def _too_long(lanes: Sequence[Lane]) -> Outcome:
    most = max(lane.context for lane in lanes)
    return Outcome(
        kind="bad_request",
        code="context_length_exceeded",
        message=f"the prompt has more tokens than the {most:.0f} that "
        f"{', '.join(lane.name for lane in lanes)} can read at a time: shorten it, or name a "
        "model with a longer context",
    )
