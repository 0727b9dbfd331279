"""The journal of a shard's attempts: the rows done so far, and in suspect mode the rows begun.

One append blob an attempt, `jobs/{job}/journal/{shard}/{attempt}`; its lines are a header (written
with the first of the others), results, calls spent on rows that have to wait, in suspect mode a
mark for each group of rows that is begun (`begin` for a row alone), of a capped job what the calls
may cost (`lot`) and did (`used`), how many calls were cut off (`lost`), and an `end` mark. Without
an end mark it was a crash.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import msgspec
import orjson

from schemas.budgets import NOTHING_SPENT, Spend
from schemas.outcomes import Usage
from schemas.results import CallRecord, Lost
from schemas.versions import NEWEST_VERSION, SCHEMA_VERSION
from workers.ports import BlobInfo, BlobRef, Blobs
from workers.ports.errors import BlobExists, BlobFull, BlobMissing, NewerVersion
from workers.rows.writing import RowResult, pieces
from workers.shards.spool import Spool
from workers.shards.suspicion import Suspicion, Trace

# One byte less than the service takes, for the newline that parts a torn line from the next.
MAX_APPEND: Final = 4 * 1024 * 1024 - 1
_HEADER: Final = orjson.dumps({"schema_version": SCHEMA_VERSION}) + b"\n"
_END: Final = b'{"end":true}\n'


_CALL_FIELDS: Final = tuple(each.name for each in fields(CallRecord))


class JournalLine(msgspec.Struct):
    """A parsed line of a journal, of any kind; what a later version says beside is left out.

    `text` is the row's own line, as it stands.
    """

    schema_version: int = 1
    row: int | None = None
    kind: Any = None
    usage: tuple[int, int] = (0, 0)
    use: tuple[dict[str, Any], ...] = ()
    text: msgspec.Raw = msgspec.Raw(b"null")
    at: float = 0.0
    spent: int | None = None
    begin: int | None = None
    group: tuple[int, ...] | None = None
    lot: tuple[int, int] | None = None
    used: tuple[int, int] | None = None
    lost: int | None = None
    most: int | None = None
    end: bool = False


class _OwnError(msgspec.Struct):
    """What the sums need to know of a row's own line."""

    error: dict[str, Any] | None = None
    line: int | None = None


def journal_line(result: RowResult) -> list[bytes | memoryview]:
    """A result as a line of a journal, newline included, in pieces: its text may be large."""
    head = orjson.dumps(
        {
            "row": result.row,
            "kind": result.kind,
            "usage": [result.usage.prompt_tokens, result.usage.completion_tokens],
            "use": result.use,
            "at": result.at,
        }
    )
    return [head[:-1] + b',"text":', *pieces(result), b"}\n"]


def from_journal(row: int, line: JournalLine) -> RowResult:
    """The result of a row in such a line."""
    text = bytes(line.text)
    told = msgspec.json.decode(text, type=_OwnError)
    return RowResult(
        row,
        line.kind,
        Usage(*line.usage),
        text,
        calls_of(line),
        None if told.error is None else (told.error["code"], told.line),
        at=line.at,
    )


def spent_line(row: int, attempts: Sequence[CallRecord]) -> bytes:
    """Calls made in vain for a row that has to wait, as a line of a journal."""
    return orjson.dumps({"spent": row, "use": attempts}, option=orjson.OPT_APPEND_NEWLINE)


def chargeable(*calls: CallRecord) -> int:
    """Of how many calls the service may have charged."""
    return sum(call.billed or call.tokens > 0 for call in calls)


def calls_of(line: JournalLine) -> tuple[CallRecord, ...]:
    """The calls that a line of a journal tells of."""
    return tuple(
        CallRecord(**{name: call[name] for name in _CALL_FIELDS if name in call})
        for call in line.use
    )


_LINE: Final = msgspec.json.Decoder(JournalLine)


class Journal:
    """This attempt's own journal. Only its attempt ever writes to it.

    Lines that could not be written stay, and go with the next write. One that is there twice, by a
    repeated append, is harmless: readers keep one.
    """

    def __init__(self, blobs: Blobs, folder: BlobRef, attempt: str) -> None:
        self._blobs = blobs
        self._folder = folder
        self._attempt = attempt
        self._pending: list[bytes | memoryview] = [_HEADER]
        self._one_writer = asyncio.Lock()
        self._rolled = 0
        self._torn = False
        self._tells = False
        self._opened = False
        self._ended = False
        self._out: list[Callable[[], None]] = []

    @property
    def _ref(self) -> BlobRef:
        suffix = f"-{self._rolled:03d}" if self._rolled else ""
        return BlobRef(self._folder.container, f"{self._folder.name}{self._attempt}{suffix}")

    @property
    def behind(self) -> bool:
        """Whether something that was added is not durable yet."""
        return self._tells and bool(self._pending)

    async def open(self) -> None:
        """Create the blob. That it exists is one's own success, the name being one's own."""
        with contextlib.suppress(BlobExists):
            await self._blobs.create_append(self._ref)
        self._opened = True

    def add(self, *line: bytes | memoryview) -> None:
        """Keep a line, or the pieces of one, for the next write; none goes behind the end mark."""
        if self._ended:
            return
        self._tells = True
        self._pending += line

    def when_out(self, told: Callable[[], None]) -> None:
        """Have `told` called when what was added so far is in memory no more."""
        self._out.append(told)

    def drop(self) -> None:
        """Forget what could not be written: it never will be."""
        self._pending.clear()
        self._tell_out(len(self._out))

    def _tell_out(self, count: int) -> None:
        out, self._out = self._out[:count], self._out[count:]
        for told in out:
            told()

    async def flush(self) -> None:
        """Make durable what was added."""
        await self._write()

    async def begin(self, rows: Sequence[int]) -> None:
        """Say, before they are asked, that a group of rows is begun; flushes too."""
        self._tells = True
        mark = {"begin": rows[0]} if len(rows) == 1 else {"group": rows}
        await self._write(orjson.dumps(mark, option=orjson.OPT_APPEND_NEWLINE))

    async def lot(self, level: Spend) -> None:
        """Say, before calls are made within it, what all of the attempt's may cost; flushes too."""
        self._tells = True
        await self._write(orjson.dumps({"lot": [*level]}, option=orjson.OPT_APPEND_NEWLINE))

    def used(self, spent: Spend) -> None:
        """Keep, for the last write, what was spent of the lot."""
        self.add(orjson.dumps({"used": [*spent]}, option=orjson.OPT_APPEND_NEWLINE))

    def lost(self, cut_off: Lost) -> None:
        """Keep, for the last write, how many calls may have been billed that no line tells of, and
        what they may have cost, if that is known.
        """
        most = {"most": cut_off.most} if cut_off.bounded else {}
        line = {"lost": cut_off.calls, **most}
        self.add(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    async def end(self) -> None:
        """Say, once, that this attempt did not crash; flushes too.

        One that has nothing else to say leaves nothing: a job that waits for its quota for a day
        would have hundreds of journals to read at each attempt.
        """
        if self._ended:
            return
        if self._tells:
            await self._write(_END)
        else:
            await self._blobs.delete(self._ref)
        self._ended = True

    async def _write(self, mark: bytes = b"") -> None:
        async with self._one_writer:
            lines, out = len(self._pending), len(self._out)
            block: list[bytes | memoryview] = []
            size = 0
            for line in (*self._pending, mark):
                if block and size + len(line) > MAX_APPEND:
                    await self._append(b"".join(block))
                    block, size = [], 0
                if len(line) > MAX_APPEND:
                    await self._append(line)
                else:
                    block.append(line)
                    size += len(line)
            if size:
                await self._append(b"".join(block))
            del self._pending[:lines]
            self._tell_out(out)

    async def _append(self, data: bytes | memoryview) -> None:
        # A line longer than one append goes in pieces; a crash between them leaves a torn line.
        for start in range(0, len(data), MAX_APPEND):
            piece = bytes(data[start : start + MAX_APPEND])
            if self._torn:
                piece = b"\n" + piece  # what the lost append left is a line of its own
            self._torn = True
            try:
                await self._append_piece(piece)
            except BlobFull:
                # The full blob cannot take its end mark: the next one's existence stands for it.
                self._rolled += 1
                self._opened = False
                await self._append_piece(piece)
            self._torn = False

    async def _append_piece(self, piece: bytes) -> None:
        if not self._opened:
            await self.open()
        await self._blobs.append(self._ref, piece)


@dataclass(slots=True)
class Past:
    """What earlier attempts at a shard left behind, besides results."""

    suspicion: Suspicion
    spent: dict[int, tuple[CallRecord, ...]]
    charged: dict[str, Spend]
    lost: Lost


@dataclass(slots=True)
class Lot:
    """What the calls of one attempt may have cost: all of its lot, unless it says what they did."""

    level: Spend = NOTHING_SPENT
    used: Spend | None = None

    def note(self, line: JournalLine) -> None:
        """Take up a line. One may come late, and none makes a lot smaller."""
        if line.lot is not None:
            self.level = self.level.most(Spend(*line.lot))
        if line.used is not None:
            self.used = Spend(*line.used)

    @property
    def cost(self) -> Spend:
        """The most that the calls have cost."""
        return self.level if self.used is None else self.used


async def read_journals(blobs: Blobs, journals: Sequence[BlobInfo], results: Spool) -> Past:
    """Read a shard's earlier journals, oldest first, into `results`."""
    traces: dict[str, Trace] = {}
    spent: dict[int, tuple[CallRecord, ...]] = {}
    lots: dict[str, Lot] = {}
    lost: dict[str, Lost] = {}
    twice = 0
    for info in journals:
        name = info.ref.name.rsplit("/", 1)[-1]
        attempt = _attempt_of(name)
        trace = traces.setdefault(attempt, Trace())
        try:
            async for line in _lines(blobs, info):
                twice += _note(line, trace, spent, results)
                if results.writing is not None:
                    await results.written()
                if line.lost is not None:
                    lost[attempt] = _cut_off(line.lost, line.most)
                if line.lot is not None or line.used is not None:
                    lots.setdefault(attempt, Lot()).note(line)
        except BlobMissing:
            trace.ended = True  # a late one ended just now and had nothing to say
    charged = {each[len("000000-") :]: lots.get(each, Lot()).cost for each in traces}
    untold = twice + _spent_beside(spent, results)
    told = Lost(calls=untold, crashes=sum(not each.ended for each in traces.values()))
    for each in lost.values():
        told = told.plus(each)
    return Past(Suspicion(list(traces.values())), spent, charged, told)


def _cut_off(calls: int, most: int | None) -> Lost:
    return Lost(calls=calls) if most is None else Lost(calls=calls, bounded=calls, most=most)


def _spent_beside(spent: Mapping[int, Sequence[CallRecord]], results: Spool) -> int:
    """Calls for rows that have an answer whose line does not tell of them."""
    return sum(
        chargeable(*(call for call in calls if call not in results.use_of(row)))
        for row, calls in spent.items()
        if row in results
    )


def _attempt_of(name: str) -> str:
    """The attempt in a journal's name: `{ordinal}-{uuid}`, with `-{roll}` behind it or not."""
    return name[: len("000000-") + 36]


def attempt_name(ordinal: int, attempt: str) -> str:
    """A journal's name."""
    return f"{ordinal:06d}-{attempt}"


def next_ordinal(earlier: Sequence[BlobInfo]) -> int:
    """What makes a journal's name sort after those that stood before it, `earlier` in order."""
    return int(earlier[-1].ref.name.rsplit("/", 1)[-1][:6]) + 1 if earlier else 0


def _note(
    line: JournalLine,
    trace: Trace,
    spent: dict[int, tuple[CallRecord, ...]],
    results: Spool,
) -> int:
    """Take up a line; gives the calls of a row that an earlier attempt had an answer to."""
    if line.schema_version > NEWEST_VERSION:
        raise NewerVersion("a journal", line.schema_version)
    if line.row is not None:
        result, repeated = from_journal(line.row, line), line.row in trace.done
        trace.done.add(line.row)
        if not results.add(result) and not repeated:
            return chargeable(*result.use)
    elif line.spent is not None:
        if line.spent not in trace.spent:  # an attempt says it once, but its append may be repeated
            trace.spent.add(line.spent)
            spent[line.spent] = (*spent.get(line.spent, ()), *calls_of(line))
    elif line.begin is not None:
        trace.group = (line.begin,)
    elif line.group is not None:
        trace.group = line.group
    elif line.end:
        trace.ended = True
    return 0


async def _lines(blobs: Blobs, info: BlobInfo) -> AsyncIterator[JournalLine]:
    """The whole lines of a journal; what a crash tore is passed over."""
    offset, piece = 0, b""
    begun: list[bytes] = []  # pieces of a line, which may be far longer than one
    while offset == 0 or len(piece) == MAX_APPEND:
        piece = await blobs.read_range(info.ref, offset, MAX_APPEND)
        offset += MAX_APPEND
        *whole, rest = piece.split(b"\n")
        if whole:
            whole[0] = b"".join((*begun, whole[0]))
            begun.clear()
        begun.append(rest)
        for line in whole:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                yield _LINE.decode(line)
