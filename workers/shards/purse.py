"""What the attempt at a shard of a capped job may spend, and what it does.

Three bounds lie one within the other. The allotment is what the job's state lets the attempt spend.
What waits for its turn or is on its way has pledged the most that it can cost, out of that. What is
on its way lies within the lot, besides, which the attempt's journal says before: if the process
dies, the lot counts as spent, and nothing beyond it can have been.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from schemas.budgets import NOTHING_SPENT, Allotment, JobBudget, Spend, total
from schemas.deployments import Task
from schemas.jobs import Job, JobState, Waiting
from schemas.outcomes import Outcome
from workers.dispatch.call import Gate, HandBack
from workers.dispatch.spending import BudgetSpent
from workers.jobs import budget, lifecycle, pauses
from workers.jobs.transitions import Transitions
from workers.ports.errors import StorageError, Unavailable
from workers.rows.most_tokens import most_tokens
from workers.rows.reading import Request
from workers.shards.journal import Journal

AMPLE: Final = 8
"""Calls for which an attempt may pledge at a time, at least: each swap is worth several."""
WAIT_SECONDS: Final = 10.0
"""Until others may have given back what they do not need."""
UNREACHED_SECONDS: Final = 5.0
PAUSED: Final = (
    "the cap leaves no room for the next call: cancel the job; what is done is kept. Then drop "
    "errors.jsonl from the results with a new max_cost or max_total_tokens"
)


class ShardPurse:
    """One attempt's. `granted` is of this attempt alone; all attempts before it spent `before`."""

    def __init__(
        self,
        job: Job,
        shard: int,
        gate: Gate,
        journal: Journal,
        transitions: Transitions,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._job = job
        self._shard = shard
        self._gate = gate
        self._journal = journal
        self._transitions = transitions
        self._clock = clock
        self._attempt = ""
        self._before = self._granted = self._used = NOTHING_SPENT
        self._pledged = self._wanted = self._on_its_way = self._lot = NOTHING_SPENT
        self._pledges = 0
        self._holds = False
        """Whether the job's state may have something open for this attempt."""
        self._left: Spend | None = None
        """What was left of the cap when it had no room for a call; None as long as it had."""
        self._waits = False
        """Whether a call waits for what others may give back."""
        self._turn = asyncio.Lock()
        self._growing = asyncio.Lock()
        self._changed = asyncio.Event()

    async def open(
        self,
        attempt: str,
        charged: Callable[[], Mapping[str, Spend]],
        rows: Iterable[Request],
    ) -> None:
        """Have the job's state let this attempt spend what its rows can cost, or what is left.

        `charged` gives what the journals of earlier attempts come to, by attempt, as long as this
        one has its lease. It is asked for each time that the state was read: where that has
        changed, another may have the lease by now, and may have asked.
        """
        self._attempt = attempt
        names = tuple(self._job.prices)
        wants = [self._most(row.task, row.body, names) for row in rows]
        want, need = NOTHING_SPENT, wants[0] if wants else NOTHING_SPENT
        for each in wants:
            want, need = want.plus(each), need.least(each)
        own, _ = await self._allot(want, need, charged)
        # Where it is not this attempt's, another wrote the receipt, or has the lease.
        self._before = total(charged().values()) if own is None else own.spent

    @property
    def spent(self) -> Spend:
        """The most that all attempts at the shard have spent up to now."""
        return self._before.plus(self._used)

    def close(self) -> None:
        """Say in the journal what was spent: no call is made any more.

        It is said also where nothing was spent and the allotment was not given back: without a
        journal that says so, all of it would count as spent.
        """
        if self._holds or self._lot != NOTHING_SPENT:
            self._journal.used(self._used)

    async def give_back(self) -> None:
        """Let others have what was not spent; nothing may be asked after it."""

        def given(held: JobBudget, _out: int) -> JobBudget:
            return budget.give_back(held, self._shard, self._attempt, self.spent)

        await self._swap(given)
        self._holds = False

    async def _swap(self, becomes: "lifecycle.Becomes") -> JobBudget | None:
        def spending(state: JobState | None, _repeated: bool) -> lifecycle.Change:
            if state is None:
                return lifecycle.NOTHING
            return lifecycle.spend(state, self._shard, becomes)

        state = await self._transitions.take(self._job, spending)
        return None if state is None else state.budget

    async def _allot(
        self,
        want: Spend,
        call: Spend,
        charged: Callable[[], Mapping[str, Spend]] | None = None,
    ) -> tuple[Allotment | None, JobBudget | None]:
        """This attempt's part of the job's budget, if it has one, and the budget.

        `want` is all that it would like to spend, `call` the most that its next call costs.
        """

        def allotted(held: JobBudget, out: int) -> JobBudget:
            return budget.allot(
                *(held, self._shard, self._attempt),
                charged=None if charged is None else charged(),
                want=want,
                need=self._used.plus(call),
                ample=self._used.plus(Spend(AMPLE * call.tokens, AMPLE * call.cost)),
                sharers=out,
            )

        self._holds = True
        held = await self._swap(allotted)
        own = None if held is None else budget.allotment(held, self._shard)
        if own is None or own.attempt != self._attempt:
            return None, held
        self._granted = own.open
        return own, held

    # -- what calls ask

    async def pledge(
        self, task: Task, body: Mapping[str, Any], among: Sequence[str]
    ) -> "CallPledge":
        """As `Purse.pledge` of the dispatcher."""
        need = self._most(task, body, among)
        self._wanted = self._wanted.plus(need)
        try:
            async with self._turn:
                while not self.fits(need):
                    await self._make_room(need)
                return self._set_aside(need)
        finally:
            self._wanted = self._wanted.minus(need)

    def spare(
        self, task: Task, body: Mapping[str, Any], among: Sequence[str]
    ) -> "CallPledge | None":
        """As `Purse.spare` of the dispatcher."""
        need = self._most(task, body, among)
        idle = self._wanted == NOTHING_SPENT and self.fits(need)
        return self._set_aside(need) if idle else None

    def _most(self, task: Task, body: Mapping[str, Any], among: Sequence[str]) -> Spend:
        tokens = most_tokens(task, body)
        if tokens is None:
            raise BudgetSpent  # it was refused when it was read
        prompt, answer = tokens
        prices = (self._job.prices.get(name) for name in among)
        costs = (each.of(prompt, answer) for each in prices if each is not None)
        return Spend(prompt + answer, max(costs, default=0))

    def fits(self, need: Spend) -> bool:
        """Whether a call fits what is allotted, beside all that was spent and is pledged."""
        return self._used.plus(self._pledged).plus(need).within(self._granted)

    def _set_aside(self, need: Spend) -> "CallPledge":
        self._pledged = self._pledged.plus(need)
        self._pledges += 1
        return CallPledge(self, need)

    async def _make_room(self, need: Spend) -> None:
        """Wait for calls that are settled, or for more of the cap. Raises BudgetSpent, HandBack."""
        if self._gate.closed is not None:
            raise HandBack(self._gate.closed, 0.0)
        if self._pledges:
            self._changed.clear()
            await self._changed.wait()
            return
        whole = self._used.plus(need)
        if self._left is not None and not whole.within(self._granted.plus(self._left)):
            raise self._no_room()
        try:
            own, held = await self._allot(self._used.plus(self._wanted), need)
        except (StorageError, Unavailable):
            raise HandBack("storage", UNREACHED_SECONDS) from None
        if own is None or held is None:
            raise HandBack("lease", 0.0)
        if whole.within(own.open):
            return
        if budget.held_by_others(held, self._shard):
            self._waits = True
            raise HandBack("budget", WAIT_SECONDS)
        self._left = budget.left(held)
        raise self._no_room()

    def _no_room(self) -> BudgetSpent | HandBack:
        """What ends a call for which the cap has no room. A smaller call may have some."""
        if self._job.options.on_budget == "pause":
            return HandBack("budget", WAIT_SECONDS)
        return BudgetSpent()

    async def pause(self) -> None:
        """Have the job wait until somebody resumes or ends it, if the cap has no room for any row.

        The caller has handed back rows for the cap and for nothing else, and has given back what
        was not spent.
        """
        if self._left is None or self._waits:
            return
        waiting = Waiting(reason="budget", message=PAUSED, since=self._clock())

        def paused(state: JobState | None, _repeated: bool) -> lifecycle.Change:
            if state and state.budget and not budget.exhausted(state.budget, state.out):
                return lifecycle.UNTOLD
            return pauses.pause(state, waiting, now=waiting.since)

        state = await self._transitions.take(self._job, paused)
        if state is not None and state.paused:
            self._gate.close("paused")

    # -- what becomes of a pledge

    async def secure(self, need: Spend) -> None:
        """Have the journal say a lot that holds a pledge beside all that is on its way."""
        secured = False
        self._on_its_way = self._on_its_way.plus(need)
        try:
            async with self._growing:
                await self._grow()
            secured = True
        finally:
            if not secured:
                self._on_its_way = self._on_its_way.minus(need)

    async def _grow(self) -> None:
        level = self._used.plus(self._on_its_way)
        if level.within(self._lot):
            return
        # As much again: the next calls need no append of their own.
        lot = level.plus(self._on_its_way).least(self._granted).most(level).most(self._lot)
        try:
            await self._journal.lot(lot)
        except (StorageError, Unavailable):
            raise HandBack("storage", UNREACHED_SECONDS) from None
        self._lot = lot

    def settle(self, need: Spend, deployment: str, outcome: Outcome | None) -> None:
        """A call that was on its way has come back, or was given up."""
        self._used = self._used.plus(self.charge(need, deployment, outcome))
        self._on_its_way = self._on_its_way.minus(need)
        self.release(need)

    def release(self, need: Spend) -> None:
        """What was pledged is free."""
        self._pledged = self._pledged.minus(need)
        self._pledges -= 1
        self._changed.set()

    def unsecure(self, need: Spend) -> None:
        """A call that might have been made is not."""
        self._on_its_way = self._on_its_way.minus(need)
        self.release(need)

    def charge(self, need: Spend, deployment: str, outcome: Outcome | None) -> Spend:
        """What a call has cost by its answer: all that was pledged, where nobody knows."""
        usage = None if outcome is None else outcome.usage
        if usage is not None and usage.total_tokens:
            price = self._job.prices.get(deployment)
            cost = 0
            if price is not None:
                cost = price.of(usage.prompt_tokens, usage.completion_tokens)
            return Spend(usage.total_tokens, cost)
        # Nobody knows what it cost.
        return need if outcome is None or outcome.billed else NOTHING_SPENT


class CallPledge:
    """A call's, out of a purse."""

    def __init__(self, purse: ShardPurse, need: Spend) -> None:
        self._purse = purse
        self._need = need
        self._secured = self._over = False

    async def secure(self) -> None:
        """As `Pledge.secure` of the dispatcher."""
        await self._purse.secure(self._need)
        self._secured = True

    def settle(self, deployment: str, outcome: Outcome | None) -> None:
        """As `Pledge.settle` of the dispatcher."""
        self._over = True
        self._purse.settle(self._need, deployment, outcome)

    def drop(self) -> None:
        """As `Pledge.drop` of the dispatcher."""
        if self._over:
            return
        self._over = True
        if self._secured:
            self._purse.unsecure(self._need)
        else:
            self._purse.release(self._need)
