"""How a file is cut into shards, and which of its rows are duplicates."""

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
from msgspec import Struct

from schemas.deployments import Task
from schemas.plans import LineError, PlannedShard
from workers.intake.formats import HEAD_BYTES
from workers.rows.dialects import told_apart
from workers.rows.fast_path import read_usual
from workers.rows.lines import BLANK, kept_bytes, line_content
from workers.rows.reading import MAX_BYTES, UNBOUNDED, Refusal, Request, RowRules, read_row
from workers.rows.sizes import SizeSample, answer_bytes

MAX_ROWS = 200
MAX_SHARDS = 40_000
# A file of few rows is still cut into several shards, so that workers share it and progress shows.
FEW_ROWS = 50
USUAL_SHARDS = 32
MOST_KINDS = 256
MOST_WRONG = 100
"""Lines that a job which fails for them names, as in the OpenAI Batch API."""
JUDGED_ROWS = 1000
"""Among as many rows, or all of a smaller file, one has to be a JSON object."""
MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Bytes that a shard's answers may be expected to have: they lie on a worker's disk until the shard
is done, and are uploaded in one go. One row whose answer is larger stands alone."""


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

    def note(self, row: "Seen | Refusal") -> None:
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
        asked, kind = self.asked, (row.task, row.model)
        if kind in asked:
            asked[kind] += 1
        elif len(asked) < MOST_KINDS:
            # Bounded, whatever the file claims: beyond this nobody reads the list.
            asked[kind] = 1
            self.first[kind] = row.line

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

    def candidates(self) -> int:
        """How many hashes the second scan has to look at; ends the first scan."""
        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        hashes.sort()
        self._twice = frozenset(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        self._hashes = array("q")
        if self._twice:
            self._given = hashes
        return len(self._twice)

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


class Seen(Struct, frozen=True, gc=False):
    """What a scan keeps of a request. There is one for each row, so it is the cheapest object."""

    line: int
    custom_id: str
    task: Task
    model: str | None
    weight: int
    named: bool = True


ScannedRow = tuple[int, int, Seen | Refusal]


class Scanner:
    """Reads a file piece by piece, row by row, whatever the length of its lines."""

    def __init__(self, rules: RowRules) -> None:
        self._rules = rules
        # A line beyond this is refused anyway: its beginning is all that is kept of it.
        self._kept = kept_bytes(rules.max_line_bytes) + 1
        self._rest = bytearray()
        self._dropped = 0
        self._line = 1
        self._start = 0
        self.head = b""
        self.sizes = SizeSample()

    def feed(self, piece: bytes) -> Iterator[ScannedRow]:
        """The rows that end in this piece, each with its offset and length in the file."""
        if len(self.head) < HEAD_BYTES:
            self.head += piece[: HEAD_BYTES - len(self.head)]
        first, *lines = piece.split(b"\n")
        self._hold(first)
        if not lines:
            return
        rest = lines.pop()
        yield from self._end_line()
        longest, due = self._rules.max_line_bytes, self.sizes.due
        plain, number, start = self._rules.takes_usual, self._line, self._start
        for line in lines:
            length = len(line)
            # As `line_content`: the first line of a file never comes here.
            if content := line.strip(BLANK) if length <= longest else line:
                usual = None
                if plain and number < due and length <= longest:
                    usual = read_usual(content)
                if usual:
                    row = Seen(number, usual.custom_id, "chat", usual.body.model, length)
                    yield start, length, row
                else:
                    yield start, length, self._read(number, content, start, length)
                    due = self.sizes.due
            number += 1
            start += length + 1
        self._line, self._start = number, start
        self._hold(rest)

    def close(self) -> Iterator[ScannedRow]:
        """The last row, where no newline ends the file."""
        yield from self._end_line()

    def _hold(self, part: bytes) -> None:
        """The beginning of a line that goes on."""
        room = self._kept - len(self._rest)
        self._rest += part[:room]
        self._dropped += max(0, len(part) - room)

    def _end_line(self) -> Iterator[ScannedRow]:
        line, length = bytes(self._rest), len(self._rest) + self._dropped
        number, start = self._line, self._start
        self._rest.clear()
        self._dropped = 0
        self._line += 1
        self._start += length + 1
        if content := line_content(line, number, self._rules.max_line_bytes):
            yield start, length, self._read(number, content, start, length)

    def _read(self, number: int, content: bytes, start: int, length: int) -> Seen | Refusal:
        row = read_row(number, content, self._rules, start, length)
        if isinstance(row, Request) and number >= self.sizes.due:
            self.sizes.add(number, row.task, row.model, row.body)
        return seen(row)


def seen(row: Request | Refusal) -> Seen | Refusal:
    """What a scan keeps of a row."""
    if isinstance(row, Refusal):
        return row
    # Either bound ends a shard: what is nearer to its own counts.
    answer = answer_bytes(row.task, row.body) * MAX_BYTES // MAX_ANSWER_BYTES
    weight = max(row.size, answer)
    return Seen(row.line, row.custom_id, row.task, row.model, weight, row.named)


class Planner:
    """Cuts newline-aligned shards: at most 200 rows, and 8 MiB as lines and by weight.

    An over-long line stands alone. Files of more than 8 million rows get bigger shards, so that a
    plan stays below 40,000.
    """

    def __init__(self, file_size: int) -> None:
        self._target = file_size / USUAL_SHARDS
        self._least = file_size / MAX_SHARDS
        self._next = 0
        self._offset = self._end = self._line = self._last = self._rows = self._weight = 0

    def add(self, offset: int, length: int, line: int, weight: int) -> PlannedShard | None:
        """Add a row with its weight in bytes; gives the shard that ends before it."""
        done, end, rows = None, offset + length, self._rows
        large = self._weight + weight > MAX_BYTES
        if rows and (
            end - self._offset > MAX_BYTES
            or ((large or rows >= FEW_ROWS) and self._full(rows, large))
        ):
            done, rows = self._cut(), 0
        if not rows:
            self._offset, self._line, self._weight = offset, line, 0
        self._end = end
        self._last = line
        self._rows = rows + 1
        self._weight += weight
        return done

    def close(self) -> PlannedShard | None:
        """The last shard, if there is one."""
        return self._cut() if self._rows else None

    def _full(self, rows: int, large: bool) -> bool:
        held = self._end - self._offset
        return held >= self._least and (large or rows >= MAX_ROWS or held >= self._target)

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
