"""Whose turn is it at which deployment, and who has waited too long?

No waiting call has a task or a timer of its own: a deployment has one wake-up, a shard has one
deadline, and every event (an answer, a share, a pause that ends) lets go those who may.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from random import Random

from schemas.jobs import Waiting
from schemas.results import WaitReason
from workers.dispatch.call import Gate, HandBack, Waiter
from workers.dispatch.fair_queue import FairQueue
from workers.dispatch.lane import Lane, Ticket
from workers.quota.weights import TENANT, JobWeights, weighed, within

LEAST_DELAY, MOST_DELAY = 1.0, 5.0
"""Seconds after which a call that only queued too long is worth another try."""


@dataclass(slots=True, eq=False)
class Pool:
    """Lanes that share routes, directly or through others, and the calls that wait for them.

    `asked` are the jobs that are being asked, each with its weight, its tenant and the number of
    its calls; `parts` is what each weighs among them.
    """

    lanes: list[Lane]
    asked: dict[str, tuple[float, tuple[str, float], int]] = field(default_factory=dict)
    parts: Mapping[str, float] = field(default_factory=dict)
    queue: "FairQueue[tuple[Gate, Group], Waiter]" = field(default_factory=FairQueue)
    moved: Callable[[], None] = lambda: None
    _weights: dict[Lane, tuple[Mapping[str, float], Mapping[str, float], Mapping[str, float]]] = (
        field(default_factory=dict)
    )

    def begin(self, job: str, weight: float, tenant: tuple[str, float]) -> None:
        """Note that a call of a job is made, which weighs so much now."""
        before = self.asked.get(job)
        self.asked[job] = weight, tenant, 1 if before is None else before[2] + 1
        if before is None or before[0] != weight:
            self._weigh()

    def end(self, job: str) -> None:
        """Note that a call of a job is over."""
        weight, tenant, calls = self.asked[job]
        if calls > 1:
            self.asked[job] = weight, tenant, calls - 1
        else:
            del self.asked[job]
            self._weigh()

    def weight(self, job: str, lane: Lane) -> float:
        """What a job weighs at a lane, by the parts of the jobs that fall to this process there."""
        told, known = lane.allowance.parts, self._weights.get(lane)
        if known is None or known[0] is not told or known[1] is not self.parts:
            known = self._weights[lane] = told, self.parts, within(told, self.parts)
        return known[2][job]

    def jobs(self) -> JobWeights:
        """The jobs that are asked at any of the lanes."""
        tenants = {job: tenant for job, (_, tenant, _) in self.asked.items() if tenant != TENANT}
        return JobWeights({job: weight for job, (weight, _, _) in self.asked.items()}, tenants)

    def jobs_at(self, lane: Lane) -> JobWeights:
        """The same, as the ledger of a lane's quota is told: with the calls that it could take."""
        waiting = dict.fromkeys(self.asked, 0)
        for flow in self.queue.flows():
            if lane in flow.key[1].lanes:
                waiting[flow.job] += len(flow.items)
        return replace(self.jobs(), waiting=waiting)

    def _weigh(self) -> None:
        if len(self.asked) > 1:
            asked = self.jobs()
            self.parts = weighed(asked.jobs, asked.tenants)
        else:
            self.parts = {job: weight for job, (weight, _, _) in self.asked.items()}


@dataclass(slots=True, eq=False)
class Group:
    """The lanes that could answer a call."""

    lanes: tuple[Lane, ...]
    pool: Pool


class Turns:
    """The queues of all pools. `wanted` is told of each lane that a call would like to use, where
    there is anybody to share its quota with.
    """

    def __init__(self, *, rng: Random, wanted: Callable[[Lane], None] | None) -> None:
        self._rng = rng
        self._wanted = wanted
        self._pools: dict[str, Pool] = {}
        self._pending: dict[str, dict[Waiter, Group]] = {}
        self._wakes: dict[str, asyncio.TimerHandle] = {}

    def pool(self, lane: Lane) -> Pool:
        """The pool that a lane is in."""
        return self._pools[lane.name]

    def add(self, pool: Pool) -> None:
        """Serve the calls that wait for the lanes of this pool."""
        pool.moved = partial(self._moved, pool)
        for lane in pool.lanes:
            self._pools[lane.name] = pool

    def waiting(self, job: str, wall: float) -> Waiting | None:
        """What a job waits for now: the call of it that has waited longest speaks for all."""
        pending = self._pending.get(job)
        if not pending:
            return None
        waiter, group = next(iter(pending.items()))
        now = asyncio.get_running_loop().time()
        until, reason, name = _met(group, now)
        if waiter.resting is not None:
            (reason, name), until = waiter.resting, now
        lane = next(lane for lane in group.lanes if lane.name == name)
        # The call may have queued for its turn long before the fault began, or ended.
        since = max(waiter.since, lane.began(reason, now))
        return Waiting(
            reason=reason,
            deployment=name,
            since=wall - (now - since),
            until=wall + until - now if until > now else None,
        )

    async def admitted(self, group: Group, waiter: Waiter) -> tuple[Lane, Ticket]:
        """Wait for a lane."""
        gate, queue = waiter.gate, group.pool.queue
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            self._check(gate, group, now)
            if not queue.waiting and now < gate.until:
                free = self._free(group, waiter, now)
                if free is not None:
                    lane, tokens = free
                    return lane, lane.admit(tokens, now)
            lane, ticket = await self._turn(group, waiter)
            # Between its turn and this line a lease may have ended: the process may have slept.
            if loop.time() < gate.until and gate.closed is None:
                return lane, ticket
            lane.abandon(ticket, loop.time())
            self.pump(lane)

    def _free(self, group: Group, waiter: Waiter, now: float) -> tuple[Lane, float] | None:
        """The lane with the most free capacity for its weight that may take a call right now, and
        the tokens to reserve for it there.
        """
        best, least = None, inf
        for lane in group.lanes:
            if self._wanted is not None:
                self._wanted(lane)
            load = (lane.in_flight + 1) / lane.deployment.weight
            if load >= least:
                continue
            tokens = lane.tokens(waiter.job, waiter.size)
            if lane.ready(tokens, now) <= now:
                best, least = (lane, tokens), load
        return best

    async def _turn(self, group: Group, waiter: Waiter) -> tuple[Lane, Ticket]:
        """Queue until a lane takes the call."""
        queue, key = group.pool.queue, (waiter.gate, group)
        waiter.gate.hear[group.pool.moved] = None
        waiter.begin()
        queue.push(waiter.job, key, waiter, servers=group.lanes, first=waiter.retried)
        for lane in group.lanes:
            if self._wanted is not None:
                self._wanted(lane)
            self.pump(lane)
        if waiter.waited_for is None and not waiter.ended:
            waiter.waited_for = _met(group, asyncio.get_running_loop().time())[1]
        try:
            result = await self._ended(waiter, group)
        finally:
            queue.remove(waiter.job, key, waiter)
        if result is None:
            raise AssertionError("only a rest ends without a lane")
        return result

    async def rest(
        self, group: Group, waiter: Waiter, delay: float, reason: WaitReason, name: str
    ) -> None:
        """Let a call wait by itself, unless that is longer than its shard may wait."""
        loop = asyncio.get_running_loop()
        if loop.time() + delay > waiter.gate.deadline:
            raise HandBack(reason, delay, name)
        if waiter.gate.closed is not None:
            raise HandBack(waiter.gate.closed, 0.0)
        waiter.begin()
        waiter.resting = (reason, name)
        waiter.waited_for = reason
        timer = loop.call_later(delay, waiter.end, None)
        try:
            await self._ended(waiter, group)
        finally:
            timer.cancel()
            waiter.resting = None

    async def _ended(self, waiter: Waiter, group: Group) -> tuple[Lane, Ticket] | None:
        """Wait until a waiter may go on, and leave nothing of it behind, however that ends."""
        self._pending.setdefault(waiter.job, {})[waiter] = group
        self._watch(waiter.gate)
        result: tuple[Lane, Ticket] | HandBack | None = None
        try:
            result = await waiter.wait()
        except asyncio.CancelledError:
            let_through = waiter.leave()
            if let_through is not None:
                lane, ticket = let_through
                lane.abandon(ticket, asyncio.get_running_loop().time())
                self.pump(lane)
            raise
        finally:
            waiter.leave()
            pending = self._pending[waiter.job]
            del pending[waiter]
            if not pending:
                del self._pending[waiter.job]
            self._unwatch(waiter.gate)
        if isinstance(result, HandBack):
            # One may send many calls away. Raised itself, it would hold them all, and this frame.
            raise HandBack(result.reason, result.delay, result.deployment)
        return result

    # -- events: somebody may go, or must ---------------------------------------------------

    def pump(self, lane: Lane) -> None:
        """Give a lane the calls that wait for it while it may take them; then set its wake-up."""
        pool = self._pools[lane.name]
        queue = pool.queue
        if not queue.waiting:
            return
        now = asyncio.get_running_loop().time()

        def eligible(key: tuple[Gate, Group]) -> bool:
            return now < key[0].until and lane in key[1].lanes

        while queue.waiting:
            flow = queue.select(eligible)
            if flow is None:
                return
            waiter = flow.head
            tokens = lane.tokens(waiter.job, waiter.size)
            at = lane.ready(tokens, now)
            if at > now:
                self._wake(lane, at)
                if waiter.gate.deadline < at < inf:
                    self.hand_back(lane)
                return
            queue.take(flow, tokens, pool.weight(waiter.job, lane), lane)
            if not waiter.ended:
                waiter.end((lane, lane.admit(tokens, now)))

    def _wake(self, lane: Lane, at: float) -> None:
        """Have the lane pumped at a time; an earlier wake-up that is set stays."""
        if at == inf:
            return
        timer = self._wakes.get(lane.name)
        if timer is not None and not timer.cancelled():
            if timer.when() <= at:
                return
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._wakes[lane.name] = loop.call_at(at, self._woken, lane)

    def _woken(self, lane: Lane) -> None:
        self._wakes.pop(lane.name, None)
        self.pump(lane)

    def _watch(self, gate: Gate) -> None:
        """Set a timer that notices the gate's deadline."""
        if gate.timer is None and gate.deadline < inf:
            loop = asyncio.get_running_loop()
            gate.timer = loop.call_at(gate.deadline, self._overdue, gate)

    def _unwatch(self, gate: Gate) -> None:
        """Cancel the timer, which would keep the gate of a shard that is long done."""
        if gate.timer is not None and not gate.waiters:
            gate.timer.cancel()
            gate.timer = None

    def _overdue(self, gate: Gate) -> None:
        gate.timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now < gate.deadline:
            self._watch(gate)
            return
        for waiter in list(gate.waiters):
            until, reason, name = _met(self._pending[waiter.job][waiter], now)
            if waiter.resting is not None:
                reason, name = waiter.resting
            soon = self._rng.uniform(LEAST_DELAY, MOST_DELAY)
            waiter.end(HandBack(reason, max(soon, until - now), name))

    def hand_back(self, lane: Lane) -> None:
        """Hand the calls back that may not wait as long as a lane is blocked."""
        now = asyncio.get_running_loop().time()
        if lane.blocked(now)[0] <= now:
            return
        for flow in self._pools[lane.name].queue.flows():
            gate, group = flow.key
            blocked = _blocked(group, now)
            if blocked is not None and blocked[0] > gate.deadline:
                until, reason, name = blocked
                for waiter in list(flow.items):
                    waiter.end(HandBack(reason, until - now, name))

    def _check(self, gate: Gate, group: Group, now: float) -> None:
        """Refuse a call that would only wait for its deadline."""
        if gate.closed is not None:
            raise HandBack(gate.closed, 0.0)
        blocked = _blocked(group, now)
        if blocked is not None and blocked[0] > gate.deadline:
            until, reason, name = blocked
            raise HandBack(reason, until - now, name)
        if now >= gate.deadline:
            _, reason, name = _met(group, now)
            raise HandBack(reason, self._rng.uniform(LEAST_DELAY, MOST_DELAY), name)

    def _moved(self, pool: Pool) -> None:
        for lane in pool.lanes:
            self.pump(lane)


def _met(group: Group, now: float) -> tuple[float, WaitReason, str]:
    """What stands against a call now: until when, as far as time decides, why, and where."""
    open_ = next((lane for lane in group.lanes if lane.blocked(now)[0] <= now), None)
    if open_ is not None:
        return now, open_.why, open_.name
    return min((*lane.blocked(now), lane.name) for lane in group.lanes)


def _blocked(group: Group, now: float) -> tuple[float, WaitReason, str] | None:
    """Until when no lane of a group takes anything, why, and which comes back first."""
    first: tuple[float, WaitReason, str] | None = None
    for lane in group.lanes:
        until, reason = lane.blocked(now)
        if until <= now:
            return None
        if first is None or until < first[0]:
            first = (until, reason, lane.name)
    return first
