"""Which rows are in a file that comes piece by piece? Usual ones in runs, all others one by one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from msgspec import Struct

from schemas.deployments import Task
from workers.intake.formats import HEAD_BYTES
from workers.rows.blocks import Block
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

    def __init__(self, line: int, offset: int, starts: Sequence[int], usual: Usual) -> None:
        self.line = line
        self.task, self._given, self.models, weights, *_ = usual
        self.custom_ids = (
            self._given
            if all(self._given)
            else [given or str(at) for at, given in enumerate(self._given, line)]
        )
        self._starts = starts
        self._before = offset - starts[0]
        self._weights = weights if isinstance(weights, int) else [*accumulate(weights, initial=0)]

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[ScannedRow]:
        told = zip(self.custom_ids, self.models, self._given, strict=True)
        for at, (custom_id, model, given) in enumerate(told):
            weight, named = self.weight(at, at + 1), bool(given)
            seen = Seen(self.line + at, custom_id, self.task, model, weight, named)
            yield self.offset(at), self._starts[at + 1] - self._starts[at] - 1, seen

    def offset(self, at: int) -> int:
        """Where a row begins in the file; beyond the last one, where the next line does."""
        return self._before + self._starts[at]

    def weight(self, first: int, end: int) -> int:
        """What some rows weigh together, in bytes."""
        if isinstance(self._weights, int):
            return self._starts[end] - self._starts[first] + (end - first) * (self._weights - 1)
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
        first, last = piece.find(b"\n"), piece.rfind(b"\n")
        if first < 0:
            self._hold(piece)
            return
        start = 0
        if self._rest:
            self._hold(piece[:first])
            yield self._end_line()
            start = first + 1
        if start <= last:
            yield from self._whole(Block(piece, start, last + 1))
        self._hold(piece[last + 1 :])

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

    def _whole(self, block: Block) -> Iterator[ScannedRows]:
        """The rows of lines that lie in a piece as a whole: runs, and what interrupts them."""
        at, short = 0, block.longest <= self._rules.max_line_bytes
        while at < len(block):
            if short and (run := self._run(block, at)):
                yield run
                at += len(run)
            else:
                line = block.line(at)
                yield self._single(line, len(line))
                at += 1

    def _run(self, block: Block, first: int) -> Run | None:
        if (usual := self._usual.read(block, first)) is None:
            return None
        at, count = 0, len(usual.models)
        run = Run(self._line, self._start, block.starts[first : first + count + 1], usual)
        while (at := max(at, self.sizes.due - run.line)) < count:
            self.sizes.add(run.line + at, usual.task, usual.models[at], usual.asked(at))
            at += 1
        if usual.most:
            self._bound_run(usual)
        self._line += count
        self._start = run.offset(count)
        return run

    def _single(self, line: bytes, length: int) -> ScannedRows:
        number, start = self._line, self._start
        self._line += 1
        self._start += length + 1
        if content := line_content(line, number, self._rules.max_line_bytes):
            row = read_row(number, content, self._rules, start, length)
            if isinstance(row, Request):
                if number >= self.sizes.due:
                    self.sizes.add(number, row.task, row.model, row.body)
                if self._rules.capped:
                    self._bound((row.task, row.model), most_tokens(row.task, row.body) or (0, 0))
            return [(start, length, seen(row))]
        return ()

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
