"""How a file is cut into shards, and which of its rows are duplicates."""

import hashlib
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress, islice

import numpy as np

from schemas.deployments import Task
from schemas.plans import LineError, PlannedShard
from workers.intake.pieces import MAX_ANSWER_BYTES, Run, ScannedRows, Seen
from workers.rows.capped import UNBOUNDED
from workers.rows.dialects import told_apart
from workers.rows.reading import MAX_BYTES, Refusal
from workers.rows.sizes import MOST_KINDS

MAX_ROWS = 200
MAX_SHARDS = 50_000
"""Blocks that Azure lets a blob have: each shard's output is one of the results."""
LIGHT_SHARDS = 40_000
"""A file gets larger shards rather than more of them, as far as they are not too heavy."""
MOST_ROWS = 5_000
"""Rows of such a shard: their answers in words, of 1,024 tokens each, are within its bound too."""
# A file of few rows is still cut into several shards, so that workers share it and progress shows.
FEW_ROWS = 50
USUAL_SHARDS = 32
MOST_WRONG = 100
"""Lines that a job which fails for them names, as in the OpenAI Batch API."""
JUDGED_ROWS = 1000
"""Among as many rows, or all of a smaller file, one has to be a JSON object."""


@dataclass(slots=True)
class Survey:
    """What a scan has seen of the rows: refusals, and how many ask which model for which task.

    `wrong` are the first refusals, `first` the first lines that ask for a model's task.
    `strangers` are rows that are no JSON objects, `unbounded` the first row of a capped job whose
    answer has no limit.
    """

    invalid: int = 0
    wrong: list[LineError] = field(default_factory=list)
    unbounded: LineError | None = None
    strangers: int = 0
    is_foreign: bool = False
    asked: dict[tuple[Task, str | None], int] = field(default_factory=dict)
    first: dict[tuple[Task, str | None], int] = field(default_factory=dict)

    def note(self, row: Seen | Refusal) -> None:
        """Count one row."""
        if isinstance(row, Refusal):
            self.invalid += 1
            if len(self.wrong) < MOST_WRONG:
                self.wrong.append(_told(row))
            if row.code == UNBOUNDED and self.unbounded is None:
                self.unbounded = _told(row)
            if not row.is_object:
                self.strangers += 1
                self.is_foreign |= self.strangers == JUDGED_ROWS and self._all_strangers
            return
        self._ask((row.task, row.model), 1, row.line)

    def note_run(self, run: Run) -> None:
        """Count the rows of a run."""
        counts, models = {run.models[0]: run.models.count(run.models[0])}, run.models
        # Mostly all ask the same one, and comparing costs less than hashing.
        if counts[models[0]] < len(models):
            counts = Counter(models)
        for model, count in counts.items():
            self._ask((run.task, model), count, run.line + models.index(model))

    def _ask(self, kind: tuple[Task, str | None], count: int, line: int) -> None:
        if kind in self.asked:
            self.asked[kind] += count
        elif len(self.asked) < MOST_KINDS:
            # Bounded, whatever the file claims: beyond this nobody reads the list.
            self.asked[kind] = count
            self.first[kind] = line

    def close(self) -> None:
        """Note that there are no more rows."""
        self.is_foreign |= 0 < self.strangers < JUDGED_ROWS and self._all_strangers

    @property
    def _all_strangers(self) -> bool:
        return self.strangers == self.invalid and not self.asked


def _told(refusal: Refusal) -> LineError:
    # Without the row itself, which may be megabytes.
    return LineError(code=refusal.code, message=refusal.message, line=refusal.line)


class DuplicateFinder:
    """Finds requests whose custom_id is not theirs alone, in 8 bytes a request.

    A row that gives a custom_id has it before one that is called by its line's number.

    A first scan keeps a 64-bit hash of each custom_id; requests whose hash stands twice are
    candidates, and a second scan tells by another 64 bits whether they are the same. Only what
    stands twice costs more than its hash. The hashes also tell which numbered ids (`a#7`) are given
    in the file; should one of them lie, a row is called otherwise, and no harm is done.
    """

    def __init__(self) -> None:
        self._hashes = array("q")
        self._given = np.empty(0, np.int64)
        self._twice: frozenset[int] | None = None
        self._seen: set[tuple[int, bytes]] = set()
        self._found: list[int] = []
        self._repeated = array("q")
        self._numbered = array("q")

    def add(self, custom_id: str) -> None:
        """Note a request of the first scan."""
        self._hashes.append(hash(custom_id))

    def add_run(self, custom_ids: Sequence[str]) -> None:
        """Note several of them."""
        hashes = np.fromiter(map(hash, custom_ids), np.int64, len(custom_ids))
        self._hashes.frombytes(hashes.tobytes())

    def candidates(self) -> int:
        """How many hashes the second scan has to look at; ends the first scan."""
        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        hashes.sort()
        self._twice = frozenset(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        self._hashes = array("q")
        if self._twice:
            self._given = hashes
        return len(self._twice)

    def stand_once(self, custom_ids: Iterable[str]) -> bool:
        """Whether the second scan has nothing to look at among them."""
        return self._twice is not None and self._twice.isdisjoint(map(hash, custom_ids))

    def confirm(self, line: int, custom_id: str, *, named: bool = True) -> bool:
        """Note a request of the second scan, in the file's order; tells whether its id stood."""
        if self._twice is None:
            raise RuntimeError("the first scan has not ended")
        if (hashed := hash(custom_id)) not in self._twice:
            return False
        if not named:
            # No other line has this number: somebody gave it.
            self._found.append(line)
            return False
        digest = hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=8)
        key = (hashed, digest.digest())
        stood = key in self._seen
        if stood:
            self._found.append(line)
            self._repeated.append(line)
            self._numbered.append(hash(told_apart(custom_id, line)))
        self._seen.add(key)
        return stood

    @property
    def repeated(self) -> list[int]:
        """The first lines that give a custom_id which stood earlier."""
        return self._repeated[:MOST_WRONG].tolist()

    @property
    def duplicates(self) -> list[int]:
        """Line numbers of rows whose custom_id stood earlier, or is another's, in order.

        A line stands twice where the file gives its numbered id as well.
        """
        numbered = np.frombuffer(self._numbered, dtype=np.int64)
        places = np.searchsorted(self._given, numbered)
        taken = self._given.take(places, mode="clip") == numbered if len(numbered) else []
        return sorted([*self._found, *compress(self._repeated, taken)])


class Planner:
    """Cuts newline-aligned shards: at most 200 rows, and 8 MiB as lines and by weight.

    A row that is heavier stands alone. Files of more than 8 million rows get shards of more rows,
    up to 5,000, so that 40,000 do; heavier ones need more.
    """

    def __init__(self, file_size: int) -> None:
        self._target = file_size / USUAL_SHARDS
        self._least = file_size / LIGHT_SHARDS
        self._next = 0
        self._offset = self._end = self._line = self._last = self._rows = self._weight = 0

    def add(self, offset: int, length: int, line: int, weight: int) -> PlannedShard | None:
        """Add a row with its weight in bytes; gives the shard that ends before it."""
        done, end = None, offset + length
        if self._rows and self._ends_before(end, self._rows, self._end, self._weight + weight):
            done = self._cut()
        if not self._rows:
            self._offset, self._line, self._weight = offset, line, 0
        self._take(1, end, line, weight)
        return done

    def add_run(self, run: Run) -> Iterator[PlannedShard]:
        """Add the rows of a run; gives the shards that end before any of them."""
        at = 0
        while at < len(run):
            first, offset = at + 1, run.offset(at)
            length = run.offset(first) - 1 - offset
            if done := self.add(offset, length, run.line + at, run.weight(at, first)):
                yield done
            # Whatever ends a shard before a row ends it before all that follow.
            ends_before = partial(self._ends_within, run, first)
            # Mostly it is their number that ends a shard: then this is the only look.
            at = min(len(run), first + MAX_ROWS - self._rows % MAX_ROWS)
            if first < at and ends_before(at - 1):
                at = first + bisect_left(range(first, at - 1), True, key=ends_before)
            weight = run.weight(first, at)
            self._take(at - first, run.offset(at) - 1, run.line + at - 1, weight)

    def close(self) -> PlannedShard | None:
        """The last shard, if there is one."""
        return self._cut() if self._rows else None

    def _take(self, rows: int, end: int, line: int, weight: int) -> None:
        self._rows += rows
        self._end, self._last = end, line
        self._weight += weight

    def _ends_within(self, run: Run, first: int, at: int) -> bool:
        """Whether the shard at hand would end before a row of a run, with those from `first` on."""
        rows, weight = self._rows + at - first, self._weight + run.weight(first, at + 1)
        return self._ends_before(run.offset(at + 1) - 1, rows, run.offset(at) - 1, weight)

    def _ends_before(self, end: int, rows: int, held_end: int, weight: int) -> bool:
        """Whether a shard of so many rows ends before one that would end it there, so heavy."""
        if end - self._offset > MAX_BYTES or weight > MAX_BYTES or rows >= MOST_ROWS:
            return True
        held = held_end - self._offset
        if held < self._least or rows < FEW_ROWS:
            return False
        return rows >= MAX_ROWS or held >= self._target

    def _cut(self) -> PlannedShard:
        shard = PlannedShard(
            shard=self._next,
            offset=self._offset,
            length=self._end - self._offset,
            line=self._line,
            rows=self._rows,
            gaps=self._last - self._line + 1 != self._rows,
        )
        self._next += 1
        self._rows = 0
        return shard


class Draft:
    """A plan in the making, by what its scans see, in the order of the file."""

    def __init__(self, file_size: int) -> None:
        self.survey = Survey()
        self.finder = DuplicateFinder()
        self._planner = Planner(file_size)
        self._shards: list[PlannedShard] = []

    def add(self, rows: ScannedRows) -> None:
        """Note some rows of the first scan."""
        if isinstance(rows, Run):
            self.survey.note_run(rows)
            self.finder.add_run(rows.custom_ids)
            self._keep(self._planner.add_run(rows))
            return
        for row in rows:
            self._add(*row)

    def _add(self, offset: int, length: int, row: Seen | Refusal) -> None:
        self.survey.note(row)
        weight = length
        if isinstance(row, Seen):
            self.finder.add(row.custom_id)
            weight = row.weight
        if done := self._planner.add(offset, length, row.line, weight):
            self._keep((done,))

    def _keep(self, shards: Iterable[PlannedShard]) -> None:
        # The first that is one too many tells where to split the file, and none is needed behind.
        self._shards += islice(shards, MAX_SHARDS + 1 - len(self._shards))

    def confirm(self, rows: ScannedRows) -> None:
        """Note some rows of a second scan."""
        if isinstance(rows, Run) and self.finder.stand_once(rows.custom_ids):
            return
        for _, _, row in rows:
            if isinstance(row, Seen):
                self.finder.confirm(row.line, row.custom_id, named=row.named)

    @property
    def beyond(self) -> int | None:
        """The line from which on the rows need more shards than a plan has; None while none do."""
        return self._shards[MAX_SHARDS].line if len(self._shards) > MAX_SHARDS else None

    def close(self) -> list[PlannedShard]:
        """Note that there are no more rows; gives the shards."""
        self.survey.close()
        if last := self._planner.close():
            self._keep((last,))
        return self._shards


def too_many_shards(line: int) -> str:
    """Why a file is too large for one job: it would be, from a line on."""
    return (
        f"its rows need more than {MAX_SHARDS:,} shards, for one holds no more than "
        f"{MAX_ANSWER_BYTES >> 20} MiB of expected answers, {MAX_BYTES >> 20} MiB of requests and "
        f"{MOST_ROWS:,} rows: split the file before line {line:,}, and drop its parts"
    )
