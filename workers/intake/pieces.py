"""Which rows are in a file that comes piece by piece? Usual ones in runs, all others one by one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from msgspec import Struct

from schemas.deployments import Task
from workers.intake.formats import HEAD_BYTES
from workers.rows.fast_path import Usual, UsualRows
from workers.rows.lines import kept_bytes, line_content
from workers.rows.most_tokens import most_tokens
from workers.rows.reading import MAX_BYTES, Refusal, Request, RowRules, read_row
from workers.rows.sizes import MOST_KINDS, SizeSample, answer_bytes

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Bytes that a shard's answers may be expected to have: they lie on a worker's disk until the shard
is done, and are uploaded in one go. One row whose answer is larger stands alone."""


class Seen(Struct, frozen=True, gc=False):
    """What a scan keeps of a request. There is one for each row, so it is the cheapest object."""

    line: int
    custom_id: str
    task: Task
    model: str | None
    weight: int
    named: bool = True


ScannedRow = tuple[int, int, Seen | Refusal]
ScannedRows = Iterable[ScannedRow]
"""A run, or what stands between two: one row at most."""
MostTokens = Mapping[tuple[Task, str | None] | None, tuple[int, int]]
"""Of prompts and of answers, by task and model; None: of all beyond so many kinds."""


class Run:
    """Usual rows in lines that follow each other, the first of them `line` at `offset`.

    What is done with a run costs no call for each of its rows. As an iterable it is the same rows
    one by one.
    """

    def __init__(self, line: int, offset: int, lengths: Sequence[int], usual: Usual) -> None:
        self.line = line
        self.task, self._given, self.models, weights, _ = usual
        self.custom_ids = (
            self._given
            if all(self._given)
            else [given or str(at) for at, given in enumerate(self._given, line)]
        )
        self._offset = offset
        self._sums = list(accumulate(lengths, initial=0))
        same = weights == lengths
        self._weights = self._sums if same else list(accumulate(weights, initial=0))

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[ScannedRow]:
        told = zip(self.custom_ids, self.models, self._given, strict=True)
        for at, (custom_id, model, given) in enumerate(told):
            weight, named = self.weight(at, at + 1), bool(given)
            seen = Seen(self.line + at, custom_id, self.task, model, weight, named)
            yield self.offset(at), self._sums[at + 1] - self._sums[at], seen

    def offset(self, at: int) -> int:
        """Where a row begins in the file; beyond the last one, where the next line does."""
        return self._offset + self._sums[at] + at

    def weight(self, first: int, end: int) -> int:
        """What some rows weigh together, in bytes."""
        return self._weights[end] - self._weights[first]


class Scanner:
    """Reads a file piece by piece, row by row, whatever the length of its lines."""

    def __init__(self, rules: RowRules) -> None:
        self._rules = rules
        self._usual = UsualRows(rules, answer_weight)
        # A line beyond this is refused anyway: its beginning is all that is kept of it.
        self._kept = kept_bytes(rules.max_line_bytes) + 1
        self._rest = bytearray()
        self._dropped = 0
        self._line = 1
        self._start = 0
        self.head = b""
        self.sizes = SizeSample()
        self.most: dict[tuple[Task, str | None] | None, tuple[int, int]] = {}

    def feed(self, piece: bytes) -> Iterator[ScannedRows]:
        """The rows that end in this piece, each with its offset and length in the file."""
        if len(self.head) < HEAD_BYTES:
            self.head += piece[: HEAD_BYTES - len(self.head)]
        first, *lines = piece.split(b"\n")
        self._hold(first)
        if not lines:
            return
        rest = lines.pop()
        yield self._end_line()
        yield from self._whole(lines)
        self._hold(rest)

    def close(self) -> Iterator[ScannedRows]:
        """The last row, where no newline ends the file."""
        yield self._end_line()

    def _hold(self, part: bytes) -> None:
        """The beginning of a line that goes on."""
        room = self._kept - len(self._rest)
        self._rest += part[:room]
        self._dropped += max(0, len(part) - room)

    def _end_line(self) -> ScannedRows:
        line, length = bytes(self._rest), len(self._rest) + self._dropped
        self._rest.clear()
        self._dropped = 0
        return self._single(line, length)

    def _whole(self, lines: list[bytes]) -> Iterator[ScannedRows]:
        """The rows of lines that lie in a piece as a whole: runs, and what interrupts them."""
        at, lengths = 0, list(map(len, lines))
        short = max(lengths, default=0) <= self._rules.max_line_bytes
        while at < len(lines):
            if short and (usual := self._usual.read(lines, at)):
                end = at + len(usual.models)
                yield self._run(lines[at:end], lengths[at:end], usual)
                at = end
            else:
                yield self._single(lines[at], lengths[at])
                at += 1

    def _run(self, lines: list[bytes], lengths: list[int], usual: Usual) -> Run:
        run, at = Run(self._line, self._start, lengths, usual), 0
        while (at := max(at, self.sizes.due - run.line)) < len(lines):
            self._read(run.line + at, lines[at], run.offset(at), lengths[at])
            at += 1
        if usual.most:
            self._bound_run(usual)
        self._line += len(lines)
        self._start = run.offset(len(lines))
        return run

    def _single(self, line: bytes, length: int) -> ScannedRows:
        number, start = self._line, self._start
        self._line += 1
        self._start += length + 1
        if content := line_content(line, number, self._rules.max_line_bytes):
            row = self._read(number, content, start, length)
            if self._rules.capped and isinstance(row, Request):
                self._bound((row.task, row.model), most_tokens(row.task, row.body) or (0, 0))
            return [(start, length, seen(row))]
        return ()

    def _read(self, number: int, content: bytes, start: int, length: int) -> Request | Refusal:
        row = read_row(number, content, self._rules, start, length)
        if isinstance(row, Request) and number >= self.sizes.due:
            self.sizes.add(number, row.task, row.model, row.body)
        return row

    def _bound_run(self, usual: Usual) -> None:
        models, most = usual.models, usual.most
        # Mostly all ask the same one, and a sum of all is had for less than one by one.
        if models.count(models[0]) == len(models):
            prompts, answers = zip(*most, strict=True)
            models, most = models[:1], [(sum(prompts), sum(answers))]
        for model, each in zip(models, most, strict=True):
            self._bound((usual.task, model), each)

    def _bound(self, kind: tuple[Task, str | None] | None, most: tuple[int, int]) -> None:
        if kind not in self.most and len(self.most) >= MOST_KINDS:
            kind = None
        before = self.most.get(kind, (0, 0))
        self.most[kind] = before[0] + most[0], before[1] + most[1]


def seen(row: Request | Refusal) -> Seen | Refusal:
    """What a scan keeps of a row."""
    if isinstance(row, Refusal):
        return row
    # Either bound ends a shard: what is nearer to its own counts.
    weight = max(row.size, answer_weight(row.task, row.body))
    return Seen(row.line, row.custom_id, row.task, row.model, weight, row.named)


def answer_weight(task: Task, body: Mapping[str, Any]) -> int:
    """What a request weighs for its answer, which has a bound of its own, rounded up."""
    return -(-answer_bytes(task, body) * MAX_BYTES // MAX_ANSWER_BYTES)
