"""How attempts at shards ended, told by the one who knows which processes died.

Production can only look for end marks, and takes a missing one for a crash. Here a missing one is
an anomaly where the process lived on, and so are suspicion, and rows that were given up, without as
many deaths as the protocol asks for. A process that stood still counts as one that died: nobody
could have told them apart.
"""

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from tests.simulation.billing import Run

if TYPE_CHECKING:
    from tests.simulation.world import World

_Lines = tuple[dict[str, Any], ...]

SUSPECT_DEATHS = 2
ALONE_DEATHS = 3


class Attempts:
    """All attempts of a world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._excuses: dict[str, int] = {}
        self._without_end: set[str] = set()

    # -- while the world lives

    def looks_back(self, run: Run) -> None:
        """A run lists the journals: from what stands now it judges the attempts before it."""
        if run.attempt is None:
            return
        excuses = 0
        for attempt, lines in self._before(run).items():
            if not _tell(lines, "end"):
                excuses += 1  # dead, or it still owes its end
                self._without_end.add(attempt)
            elif _tell(lines, "row"):
                excuses = 0
        self._excuses[run.attempt] = excuses

    def ended(self, run: Run) -> bool:
        """Whether an attempt's end can be read, or nothing of it."""
        lines = self._lines(run)
        return lines is None or _tell(lines, "end")

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
        """How many processes died, as far as others could tell, over a row begun alone."""
        return sum(
            (run.died_at is not None or run.attempt in self._without_end)
            and {"begin": place} in (self._lines(run) or ())
            for run in self._world.billing.runs
            if (run.job, run.shard) == (job, shard)
        )

    # -- journals

    def _before(self, run: Run) -> dict[str, _Lines]:
        """The journals of other attempts at a shard, in the order in which they were begun.

        One that stood still when it had its lease begins its journal after those that took over.
        """
        assert run.job is not None
        assert run.shard is not None
        others = {
            other.attempt
            for other in self._world.billing.runs
            if (other.job, other.shard) == (run.job, run.shard) and other is not run
        }
        journals = self._world.records.journals(run.job, run.shard)
        return {attempt: _parsed(data) for attempt, data in journals.items() if attempt in others}

    def _lines(self, run: Run) -> _Lines | None:
        """The lines of an attempt's journal; None where there is no journal."""
        assert run.job is not None
        assert run.shard is not None
        data = self._world.records.journals(run.job, run.shard).get(run.attempt or "")
        return None if data is None else _parsed(data)

    def _suspected(self, run: Run) -> bool:
        lines = self._lines(run) or ()
        return _tell(lines, "begin") or _tell(lines, "group")


def _tell(lines: _Lines, what: str) -> bool:
    return any(what in line for line in lines)


# Those of attempts that are over are looked at by each that comes after them.
@lru_cache(maxsize=1024)
def _parsed(data: bytes) -> _Lines:
    lines = []
    for line in data.split(b"\n"):
        with contextlib.suppress(ValueError):
            lines.append(orjson.loads(line))
    return tuple(lines)
