"""How a file is cut into shards, and which of its rows are duplicates."""

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from schemas.deployments import Task
from schemas.jobs import PlannedShard
from workers.core.rows import RAW_BYTES, Refusal, Request, RowRules, read_row, split_lines

MAX_ROWS = 500
MAX_BYTES = 8 * 1024 * 1024
MAX_SHARDS = 40_000
# A file of few rows is still cut into several shards, so that workers share it and progress shows.
FEW_ROWS = 50
USUAL_SHARDS = 32


@dataclass(slots=True)
class Survey:
    """What a scan has seen of the rows."""

    rows: int = 0
    invalid: int = 0
    first_invalid: Refusal | None = None
    asked: dict[tuple[Task, str | None], int] = field(default_factory=dict)

    def note(self, row: Request | Refusal) -> None:
        """Count one row."""
        self.rows += 1
        if isinstance(row, Refusal):
            self.invalid += 1
            self.first_invalid = self.first_invalid or row
            return
        kind = (row.task, row.model)
        # Bounded, whatever the file claims: beyond this nobody reads the list.
        if kind in self.asked or len(self.asked) < 256:
            self.asked[kind] = self.asked.get(kind, 0) + 1


class DuplicateFinder:
    """Finds rows whose custom_id stood earlier, in 12 bytes a row.

    A first scan keeps a 64-bit hash of each custom_id; rows whose hash stands twice are candidates,
    and a second scan tells by another 64 bits whether they are the same.
    """

    def __init__(self) -> None:
        self._hashes = array("q")
        self._lines = array("I")
        self._candidates: np.ndarray[tuple[int], np.dtype[np.uint32]] | None = None
        self._seen: set[tuple[int, bytes]] = set()
        self._found: list[int] = []

    def add(self, line: int, custom_id: str) -> None:
        """A row of the first scan, in order of lines."""
        self._hashes.append(hash(custom_id))
        self._lines.append(line)

    def candidates(self) -> int:
        """How many rows the second scan has to look at; ends the first scan."""
        hashes = np.frombuffer(self._hashes, dtype=np.int64)
        lines = np.frombuffer(self._lines, dtype=np.uint32)
        order = np.argsort(hashes, kind="stable")
        same = hashes[order[1:]] == hashes[order[:-1]]
        twice = np.zeros(len(hashes), dtype=bool)
        twice[order[1:][same]] = True
        twice[order[:-1][same]] = True
        self._candidates = lines[twice].copy()
        self._hashes, self._lines = array("q"), array("I")
        return len(self._candidates)

    def confirm(self, line: int, custom_id: str) -> None:
        """A row of the second scan, in order of lines."""
        if self._candidates is None:
            raise RuntimeError("the first scan has not ended")
        place = int(np.searchsorted(self._candidates, line))
        if place == len(self._candidates) or self._candidates[place] != line:
            return
        digest = hashlib.blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=8)
        key = (hash(custom_id), digest.digest())
        if key in self._seen:
            self._found.append(line)
        self._seen.add(key)

    @property
    def duplicates(self) -> list[int]:
        """Line numbers of rows whose custom_id stood earlier, in order."""
        return self._found


class Scanner:
    """Reads a file piece by piece, row by row, whatever the length of its lines."""

    def __init__(self, rules: RowRules) -> None:
        self._rules = rules
        self._rest = b""
        self._line = 1
        self._start = 0
        self._dropped = 0

    def feed(self, piece: bytes) -> Iterator[tuple[int, int, Request | Refusal]]:
        """(offset, length, row) of each row that ends in this piece."""
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            yield from self._end_line(line)
        # A line beyond the limit is refused anyway: its beginning is all that is kept of it.
        if len(self._rest) > max(self._rules.max_line_bytes, RAW_BYTES) + 1:
            keep = max(self._rules.max_line_bytes, RAW_BYTES) + 1
            self._dropped += len(self._rest) - keep
            self._rest = self._rest[:keep]

    def close(self) -> Iterator[tuple[int, int, Request | Refusal]]:
        """The last row, where no newline ends the file."""
        if self._rest:
            yield from self._end_line(self._rest)
            self._rest = b""

    def _end_line(self, line: bytes) -> Iterator[tuple[int, int, Request | Refusal]]:
        length = len(line) + self._dropped
        for number, content in split_lines(line, self._line):
            yield self._start, length, read_row(number, content, self._rules)
        self._line += 1
        self._start += length + 1
        self._dropped = 0


class Planner:
    """Cuts newline-aligned shards: at most 500 rows and 8 MiB; an over-long line stands alone."""

    def __init__(self, file_size: int) -> None:
        self._target = file_size / USUAL_SHARDS
        self._least = file_size / MAX_SHARDS
        self._next = 0
        self._offset = self._end = self._line = self._last = self._rows = 0

    def add(self, offset: int, length: int, line: int) -> PlannedShard | None:
        """One row; gives the shard that ends before it, if one does."""
        done = self._cut() if self._rows and self._full(offset + length) else None
        if not self._rows:
            self._offset, self._line = offset, line
        self._end = offset + length
        self._last = line
        self._rows += 1
        return done

    def close(self) -> PlannedShard | None:
        """The last shard, if there is one."""
        return self._cut() if self._rows else None

    def _full(self, end: int) -> bool:
        held = self._end - self._offset
        if end - self._offset > MAX_BYTES:
            return True
        if held < self._least:
            return False
        return self._rows >= MAX_ROWS or (self._rows >= FEW_ROWS and held >= self._target)

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
