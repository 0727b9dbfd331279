"""Who asked what, and was it paid twice only where the promise allows it?

A run is one handling of a message. Of the runs that ask rows it is known what stood in the shard's
journals when it took the lease, what it was billed for, and what it had journaled when it broke.
"""

import asyncio
import contextlib
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

import orjson

from tests.simulation.endpoint import Call
from workers.ports import BlobRef

if TYPE_CHECKING:
    from tests.simulation.world import World

RUN: "ContextVar[Run | None]" = ContextVar("run", default=None)


@dataclass(slots=True, eq=False)
class Run:
    """One handling of one message by one process.

    Its process `died` when it was killed or stood still: for others that is the same. It was
    `struck` where something made it fail though its process lived, and is `closing` while it ends.
    """

    process: str
    handler: "asyncio.Task[Any] | None" = None
    sweeps: bool = False
    job: str | None = None
    shard: int | None = None
    attempt: str | None = None
    known: frozenset[str] = frozenset()
    calls: list[Call] = field(default_factory=list)
    exposed: set[str] = field(default_factory=set)
    broken_at: float | None = None
    lost_at: float | None = None
    taken_at: float = 0.0
    died_at: float | None = None
    done_at: float | None = None
    struck_at: float | None = None
    troubled: bool = False
    holds: bool = False
    closing: bool = False
    released: bool = False
    done: bool = False

    def struck(self, now: float) -> None:
        """A refusal, a cancellation or a bug befalls it."""
        self.troubled = True
        if self.struck_at is None:
            self.struck_at = now

    def cancel(self) -> None:
        """The host calls its handler off."""
        if self.handler is not None:
            self.handler.cancel()

    def billed(self) -> Counter[str]:
        """Prompts whose answer it got or was about to get."""
        return Counter(prompt for call in self.calls if not call.lost for prompt in call.prompts)


class Billing:
    """Follows all runs of a world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.runs: list[Run] = []

    def took_lease(self, run: Run, job: str, shard: int, attempt: str) -> None:
        """A run may ask from now on; whoever had the lease before has lost it."""
        for other in self.runs:
            here = (other.job, other.shard) == (job, shard) and other is not run
            if here and other.lost_at is None:
                other.lost_at = self._world.now
                if not other.done:
                    self.broke(other)
        run.job, run.shard, run.attempt, run.taken_at = job, shard, attempt, self._world.now
        run.known = frozenset(self.journaled(job, shard))
        for other in self.runs:
            if (other.job, other.shard) == (job, shard) and other.troubled:
                other.exposed |= set(other.billed()) - run.known  # it may be journaled too late
        if run not in self.runs:
            self.runs.append(run)
            return
        # It has it anew: what it asked meanwhile would be judged no more.
        for fault in self._without_lease(run):
            self._world.fault_found(fault)
        run.lost_at = run.broken_at = None

    def _without_lease(self, run: Run) -> list[str]:
        lost_at = inf if run.lost_at is None else run.lost_at
        late = [call.prompts for call in run.calls if call.asked > lost_at]
        where = f"{run.process} on shard {run.shard}"
        return [f"asked after another had taken the lease: {late} by {where}"] if late else []

    def died(self, process: str) -> None:
        """All runs of a process broke that had not come to their ends."""
        for run in self.runs:
            if run.process == process and run.died_at is None:
                if not run.done:
                    self.broke(run)
                if not (run.done and self._world.attempts.ended(run)):
                    run.died_at = self._world.now

    def broke(self, run: Run) -> None:
        """It died, froze or lost the lease: what it had not journaled may be paid again."""
        if run.attempt is None or run.job is None or run.shard is None:
            return
        if run.broken_at is None:
            run.broken_at = self._world.now
        run.exposed |= set(run.billed()) - self.journaled(run.job, run.shard, run.attempt)

    def ended(self, run: Run) -> None:
        """It came to its own end."""
        run.done, run.done_at = True, self._world.now

    def journaled(self, job: str, shard: int, attempt: str = "") -> set[str]:
        """Prompts of the rows in a shard's journals, or in those of one attempt."""
        prompts: set[str] = set()
        rows = self._world.records.rows_of(job, shard)
        for each, data in self._world.records.journals(job, shard).items():
            for line in data.split(b"\n")[:-1] if attempt in each else ():
                with contextlib.suppress(ValueError):
                    parsed = orjson.loads(line)
                    if "row" in parsed:
                        prompts.add(rows[parsed["row"]].prompt)
        return prompts

    def faults(self) -> list[str]:
        """What was paid and should not have been."""
        found = [fault for run in self.runs for fault in self._of(run)]
        paid = Counter(p for call in self._world.service.calls for p in call.prompts)
        lost = sum(len(call.prompts) for call in self._world.service.calls if call.lost)
        extra = sum(times - 1 for times in paid.values())
        bound = lost + sum(self._exposure(run) for run in self.runs)
        if extra > bound:
            found.append(f"calls billed beyond the bound: {extra} twice, {bound} allowed")
        return found

    def _exposure(self, run: Run) -> int:
        if run.broken_at is None:
            return len(run.exposed)
        late = {p for c in run.calls if c.begun >= run.broken_at and not c.lost for p in c.prompts}
        return len(run.exposed | late)

    def _of(self, run: Run) -> list[str]:
        if run.job is None or run.shard is None or run.attempt is None:
            return []
        found = []
        billed = run.billed()
        where = f"{run.process} on shard {run.shard}"
        if again := sorted(set(billed) & run.known):
            found.append(f"asked although a journal had it: {again} by {where}")
        if twice := sorted(prompt for prompt, times in billed.items() if times > 1):
            found.append(f"asked twice in one attempt: {twice} by {where}")
        found += self._without_lease(run)
        kept = self.journaled(run.job, run.shard, run.attempt)
        if run.broken_at is None:
            if (lost := sorted(set(billed) - kept)) and not run.troubled:
                found.append(f"paid and not journaled by an attempt that lived: {lost} by {where}")
            run.exposed |= set(billed) - kept
        elif not run.troubled:
            found += self._slow(run, run.broken_at, where)
        return found

    def _slow(self, run: Run, broken_at: float, where: str) -> list[str]:
        """Answers that were older than a journal interval when the run broke."""
        scenario = self._world.scenario
        patience = scenario.journal_seconds + 4.0 * max(1.0, scenario.latency)
        late = sorted(
            prompt
            for call in run.calls
            for prompt in call.prompts
            if prompt in run.exposed and not call.lost
            if call.answered is not None and call.answered < broken_at - patience
        )
        return [f"not journaled within an interval: {late} by {where}"] if late else []


def lease_of(ref: BlobRef) -> tuple[str, int] | None:
    """Job and shard of a lease blob."""
    parts = ref.name.split("/")
    return (parts[1], int(parts[3])) if len(parts) == 4 and parts[2] == "leases" else None
