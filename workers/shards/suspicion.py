"""Which rows are to be blamed for a shard's crashes, and how are the others asked meanwhile?

After two crashes in a row the rows that are left are asked in groups, each journaled as begun. A
crash blames the last group that its attempt began, and a blamed row is asked in groups of half that
size from then on, until it is asked alone. Only a row that was alone can be given up.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

SUSPECT_CRASHES: Final = 2
ALONE_CRASHES: Final = 3


@dataclass(slots=True)
class Trace:
    """What one attempt left in its journal.

    `group` holds the rows that it began last, and is empty where it marked none. `done` are the
    rows with a result, `spent` those whose calls came back in vain. A trace that is not `ended` is
    of a crash.
    """

    group: tuple[int, ...] = ()
    done: set[int] = field(default_factory=set)
    spent: set[int] = field(default_factory=set)
    ended: bool = False


class Suspicion:
    """What a shard's attempts, oldest first, say against its rows.

    `crashes` counts those in a row: since the last attempt that ended well with a row done in it.
    `died` tells whether the very last one crashed. `given_up` are the rows over which the last
    three attempts that asked them alone crashed.
    """

    def __init__(self, traces: Sequence[Trace]) -> None:
        self.crashes = _in_a_row(traces)
        self.died = bool(traces) and not traces[-1].ended
        self.given_up = _given_up(traces)
        self._blamed = [frozenset(trace.group) for trace in traces if not trace.ended]

    @property
    def suspect(self) -> bool:
        """Whether rows are to be asked in groups that are journaled as begun."""
        return self.crashes >= SUSPECT_CRASHES

    def groups(self, left: Sequence[int]) -> list[list[int]]:
        """Each of the rows that are left in one group; those that are blamed most come first.

        No group is larger than half of any that a crash blamed for one of its rows, so each crash
        halves the rows that a culprit hides among.
        """
        most = self._most(left)
        groups: list[list[int]] = []
        for row in sorted(left, key=lambda row: most[row]):
            if groups and len(groups[-1]) < most[groups[-1][0]]:
                groups[-1].append(row)
            else:
                groups.append([row])
        return groups

    def _most(self, left: Sequence[int]) -> dict[int, int]:
        """How many rows may be asked together with each row, itself included."""
        most = dict.fromkeys(left, _half(len(left)))
        for blamed in self._blamed:
            among = blamed.intersection(left)
            for row in among:
                most[row] = min(most[row], _half(len(among)))
        return most


def _half(rows: int) -> int:
    return (rows + 1) // 2


def _in_a_row(traces: Sequence[Trace]) -> int:
    crashes = 0
    for trace in traces:
        if not trace.ended:
            crashes += 1
        elif trace.done:
            crashes = 0
    return crashes


def _given_up(traces: Sequence[Trace]) -> frozenset[int]:
    alone: Counter[int] = Counter()
    for trace in traces:
        if not trace.ended and len(trace.group) == 1:
            alone.update(trace.group)
        for row in trace.spent | trace.done:
            alone[row] = 0  # it came back, so asking it does not kill
    return frozenset(row for row, crashes in alone.items() if crashes >= ALONE_CRASHES)
