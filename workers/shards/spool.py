"""A shard's results: kept while it runs, and written at its end as output, errors and receipt."""

import asyncio
import hashlib
import io
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final

from schemas.budgets import Spend
from schemas.jobs import Job
from schemas.money import PinnedPrice
from schemas.results import CallRecord, Lost, Part, Receipt, Tokens
from workers.jobs.store import JobStore
from workers.rows import writing
from workers.rows.unmetered import bounded
from workers.rows.writing import RowResult
from workers.shards.input import Row

MEMORY_BYTES: Final = 512 * 1024
COPIED_BYTES: Final = 1024 * 1024
_PIECE_BYTES: Final = 256 * 1024


class Spool:
    """Results by row. The lines may be large (embeddings): beyond a bound they lie in a temporary
    file. All else is kept as it is. `size` is the bytes of all lines, `invalid` are the rows that
    could not be asked.

    A long line is written beside the event loop, and what comes meanwhile after it: there is a task
    `writing` then.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._texts = SpooledTemporaryFile(max_size=memory_bytes)  # noqa: SIM115 - closed by close
        self._memory_bytes = memory_bytes
        self.size = self.invalid = 0
        self._metered = self._prompt = self._completion = self._cost = 0
        self._unwritten: list[tuple[int, list[bytes | memoryview]]] = []
        self.writing: asyncio.Task[None] | None = None
        self._fault: OSError | None = None
        self._then: list[Callable[[], None]] = []
        self._closed = False
        self._places: dict[int, tuple[int, int]] = {}
        self._results: dict[int, RowResult] = {}

    def __len__(self) -> int:
        return len(self._results)

    def __contains__(self, row: int) -> bool:
        return row in self._results

    def add(self, result: RowResult) -> bool:
        """Keep a result if it is the first of its row, and return whether it is.

        Raises OSError, also of an earlier line, where the disk takes no more.
        """
        if result.row in self._results:
            return False
        if self._fault is not None:
            raise self._fault
        at, pieces = self.size, writing.pieces(result)
        long = len(result.text) + sum(map(len, result.vectors)) > COPIED_BYTES
        size = self._write_later(at, pieces) if long or self.writing else self._write(at, pieces)
        self.size += size
        self.invalid += result.kind == "invalid"
        self._places[result.row] = (at, size)
        self._results[result.row] = result._replace(text=b"", vectors=())
        return True

    def _write(self, at: int, pieces: Iterable[bytes | memoryview]) -> int:
        """Write a line at its place; gives its length."""
        line = list(pieces)
        size = sum(map(len, line))
        if at + size > self._memory_bytes:
            self._texts.rollover()  # by itself it would do so with another copy in memory
        self._texts.seek(at)
        self._texts.writelines(line)
        return size

    def _write_later(self, at: int, pieces: Iterable[bytes | memoryview]) -> int:
        line = list(pieces)
        self._unwritten.append((at, line))
        if self.writing is None:
            self.writing = asyncio.create_task(self._write_all(), name="lines to a spool")
        return sum(map(len, line))

    async def _write_all(self) -> None:
        """Write what there is, one line after the other: a file has one place at a time."""
        try:
            while self._unwritten and not self._closed:
                await asyncio.to_thread(self._write, *self._unwritten.pop(0))
        except OSError as error:
            self._fault = error
        finally:
            self._unwritten.clear()
            self.writing = None
            for then in self._then:
                then()
            self._then.clear()
            if self._closed:
                self._texts.close()

    def when_written(self, then: Callable[[], None]) -> None:
        """Call `then` once no line is in memory because it has to be written."""
        if self.writing is None:
            then()
        else:
            self._then.append(then)

    async def written(self) -> None:
        """Wait until all lines are written. Raises OSError."""
        while self.writing is not None:
            await asyncio.wait([self.writing])
        if self._fault is not None:
            raise self._fault

    def use_of(self, row: int) -> Sequence[CallRecord]:
        """The calls that the result of a row tells of."""
        return self._results[row].use

    def results(self) -> Iterator[RowResult]:
        """All results in input order, without their lines."""
        for row in sorted(self._results):
            yield self._results[row]

    def metered(
        self, prices: Mapping[str, PinnedPrice], spent: Mapping[int, Sequence[CallRecord]]
    ) -> tuple[Tokens, int]:
        """Tokens of all results, and their cost as of `writing.cost_of`; each is looked at once.

        `spent` are calls that were made in vain, by row, for rows that may have no result yet.
        """
        for result in islice(self._results.values(), self._metered, None):
            self._prompt += result.usage.prompt_tokens
            self._completion += result.usage.completion_tokens
            self._cost += writing.cost_of(result, prices)
        self._metered = len(self._results)
        waiting = (calls for row, calls in spent.items() if row not in self._results)
        cost = self._cost + sum(writing.cost_of_calls(calls, prices) for calls in waiting)
        return Tokens(prompt=self._prompt, completion=self._completion), cost

    def part(self, rows: Sequence[int]) -> tuple[IO[bytes], int, str]:
        """The lines of some rows as one file at its start, its length, and its SHA-256 in hex.

        Nothing is copied: the file reads from the spool, which must not change meanwhile.
        """
        places = [self._places[row] for row in rows]
        lines = io.BufferedReader(_Lines(self._texts, places), _PIECE_BYTES)
        digest, length = hashlib.sha256(), 0
        while piece := lines.read(_PIECE_BYTES):
            digest.update(piece)
            length += len(piece)
        lines.seek(0)
        return lines, length, digest.hexdigest()

    def close(self) -> None:
        """Remove the temporary file, once nobody writes to it."""
        self._closed = True
        if self.writing is None:
            self._texts.close()


class _Lines(io.RawIOBase):
    """Texts at some places of a file, each with a newline behind it, as a file of their own.

    It has no `fileno`: the storage SDK asks for one, and a spool in memory would become a real file
    to have it.
    """

    def __init__(self, texts: IO[bytes], places: Sequence[tuple[int, int]]) -> None:
        self._texts = texts
        self._places = places
        # Where each line begins, and behind them the end of the last.
        self._starts = list(accumulate((size + 1 for _, size in places), initial=0))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """At most to the end of a line; 0 is the end of all."""
        if self._at >= self._starts[-1]:
            return 0
        line = bisect_right(self._starts, self._at) - 1
        start, size = self._places[line]
        skipped = self._at - self._starts[line]
        self._texts.seek(start + skipped)
        read = self._texts.read(min(size - skipped, len(buffer))) or b"\n"
        buffer[: len(read)] = read
        self._at += len(read)
        return len(read)


async def write_receipt(
    store: JobStore,
    job: Job,
    shard: int,
    attempt: str,
    results: Spool,
    *,
    rows: Sequence[Row],
    lost: Lost,
    spent: Spend | None = None,
) -> Receipt:
    """Write output and errors, in input order; gives the receipt that stands, whoever wrote it.

    `rows` are those of the input, and `lost` is what no result tells of their calls.
    """
    await results.written()
    found = list(results.results())
    good = [each.row for each in found if each.kind == "succeeded"]
    bad = [each.row for each in found if each.kind != "succeeded"]
    sums = writing.sums_of(found, job.prices)
    if job.prices and any(each.unmetered_calls for each in sums.use.values()):
        lost = lost.plus(bounded(found, rows, job.prices))
    receipt = Receipt(
        schema_version=job.schema_version,
        shard=shard,
        attempt=attempt,
        output=await _write_part(store, job.id, f"output/{shard}.{attempt}", results, good),
        errors=await _write_part(store, job.id, f"errors/{shard}.{attempt}", results, bad),
        lost=lost,
        spent=spent,
        **vars(sums),
    )
    return await store.create_receipt(job.id, receipt)


async def _write_part(
    store: JobStore, job: str, name: str, results: Spool, rows: Sequence[int]
) -> Part | None:
    """Write the lines of some rows."""
    if not rows:
        return None
    # Copied and hashed beside the loop where that takes more than a moment.
    large = results.size > COPIED_BYTES
    read = await asyncio.to_thread(results.part, rows) if large else results.part(rows)
    data, length, digest = read
    ref = store.ref(job, name)
    with data:
        await store.create_once(ref, data, content_type="application/jsonl")
    return Part(name=ref.name, length=length, rows=len(rows), sha256=digest)
