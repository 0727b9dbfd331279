"""How attempts at shards ended, told by the one who knows which processes died.

Production can only look for end marks, and takes a missing one for a crash. Here a missing one is
an anomaly where the process lived on, and so are suspicion, and rows that were given up, without as
many deaths as the protocol asks for. A process that stood still counts as one that died: nobody
could have told them apart.
"""

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tests.simulation.billing import Run

if TYPE_CHECKING:
    from tests.simulation.world import World

SUSPECT_DEATHS = 2
ALONE_DEATHS = 3


class Attempts:
    """All attempts of a world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._excuses: dict[str, int] = {}

    # -- while the world lives

    def looks_back(self, run: Run) -> None:
        """A run lists the journals: from what stands now it judges the attempts before it."""
        if run.attempt is None:
            return
        excuses = 0
        for earlier in self._others(run):
            if not self.ended(earlier):
                excuses += 1  # dead, or it still owes its end
            elif self._did_something(earlier):
                excuses = 0
        self._excuses[run.attempt] = excuses

    def ended(self, run: Run) -> bool:
        """Whether an attempt's end can be read, or nothing of it."""
        lines = self._lines(run)
        return lines is None or any("end" in line for line in lines)

    def owing(self) -> list[Run]:
        """Attempts whose processes live, and that still owe their end or their lease."""
        alive = {process.name for process in self._world.host.alive}
        return [
            run
            for run in self._world.billing.runs
            if run.process in alive
            if not self.ended(run) or (run.holds and not run.released)
        ]

    # -- when nothing moves any more

    def faults(self) -> Iterator[str]:
        """What is wrong with how attempts ended."""
        for run in self._world.billing.runs:
            where = f"by {run.process} on shard {run.shard} of {run.job}"
            if run.process not in self._world.host.killed and not self.ended(run):
                yield f"an attempt left no end though its process lived: {where}"
            lived = run.process not in self._world.host.killed
            if run.holds and run.done and lived and not run.released:
                yield f"a lease was not given back though its process lived: {where}"
            if run.process not in self._world.host.killed:
                yield from self._lost(run, where)
            if self._suspected(run) and self._excuses.get(run.attempt or "", 0) < SUSPECT_DEATHS:
                yield f"a shard was suspected without two deaths in a row: {where}"

    def _lost(self, run: Run, where: str) -> Iterator[str]:
        """Answers that a living attempt had and did not bring to its journal."""
        until = self._world.now if run.struck_at is None else run.struck_at
        answered = {
            prompt
            for call in run.calls
            if call.answered is not None and call.answered < until and not call.lost
            for prompt in call.prompts
        }
        assert run.job is not None
        assert run.shard is not None
        kept = self._world.billing.journaled(run.job, run.shard, run.attempt or "")
        if lost := sorted(answered - kept):
            yield f"answers were lost by an attempt that lived: {lost} {where}"

    def deaths_over(self, job: str, shard: int, place: int) -> int:
        """How many processes died over a row that they had begun alone."""
        return sum(
            run.died_at is not None and {"begin": place} in (self._lines(run) or ())
            for run in self._world.billing.runs
            if (run.job, run.shard) == (job, shard)
        )

    # -- journals

    def _others(self, run: Run) -> list[Run]:
        """The other attempts at a shard, in the order in which their journals were begun.

        One that stood still when it had its lease begins its journal after those that took over.
        """
        assert run.job is not None
        assert run.shard is not None
        begun = list(self._world.records.journals(run.job, run.shard))
        others = [
            other
            for other in self._world.billing.runs
            if (other.job, other.shard) == (run.job, run.shard)
            if other is not run and other.attempt in begun
        ]
        return sorted(others, key=lambda other: begun.index(other.attempt or ""))

    def _lines(self, run: Run) -> list[dict[str, Any]] | None:
        """The lines of an attempt's journal; None where there is no journal."""
        assert run.job is not None
        assert run.shard is not None
        data = self._world.records.journals(run.job, run.shard).get(run.attempt or "")
        if data is None:
            return None
        lines = []
        for line in data.split(b"\n"):
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
        return lines

    def _did_something(self, run: Run) -> bool:
        return any("row" in line for line in self._lines(run) or ())

    def _suspected(self, run: Run) -> bool:
        return any("begin" in line or "group" in line for line in self._lines(run) or ())
