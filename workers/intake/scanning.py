"""Reads a whole input file: what rows it has, where to cut it, which custom_ids repeat."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from schemas.deployments import Task
from schemas.jobs import Job
from schemas.plans import PlannedShard
from workers.intake.formats import what_it_is
from workers.intake.pieces import MostTokens, ScannedRows, Scanner
from workers.intake.planning import Draft, Survey
from workers.ports import BlobRef, Blobs
from workers.rows.reading import RowRules
from workers.rows.sizes import MeanSize

PIECE_BYTES: Final = 8 * 1024 * 1024
SLICE_BYTES: Final = 256 * 1024
HOLD_SECONDS: Final = 0.01
"""For so long reading rows holds the loop, whatever is made of them; others' leases wait behind."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What a scan of the file came to.

    `foreign` says what the file is where it is no JSON Lines at all, `beyond` from which line on
    its rows would need too many shards, and then nothing is planned.
    `duplicates` are the lines whose custom_id is not theirs alone, `repeated` the first of them
    that gave it. `sizes` are what its requests have on average, `most` what those of a capped job
    may be billed for.
    """

    shards: list[PlannedShard]
    survey: Survey
    duplicates: list[int]
    sizes: Mapping[tuple[Task, str | None], MeanSize] = field(default_factory=dict)
    repeated: Sequence[int] = ()
    foreign: str | None = None
    beyond: int | None = None
    most: MostTokens = field(default_factory=dict)


async def pieces_of(blobs: Blobs, job: Job) -> AsyncGenerator[bytes, None]:
    """The file by ranges pinned to its ETag, two read ahead."""
    ref = BlobRef(job.container, job.name)

    def fetch(offset: int) -> asyncio.Task[bytes]:
        return asyncio.create_task(blobs.read_range(ref, offset, PIECE_BYTES, etag=job.etag))

    ahead: deque[asyncio.Task[bytes]] = deque()
    try:
        for offset in range(0, job.size, PIECE_BYTES):
            ahead.append(fetch(offset))
            if len(ahead) == 3:
                yield await ahead.popleft()
        while ahead:
            yield await ahead.popleft()
    finally:
        for task in ahead:
            task.cancel()
        await asyncio.gather(*ahead, return_exceptions=True)


def slices_of(piece: bytes) -> Iterator[bytes]:
    """A piece in parts that end where a line does, if one does: one in two is read by itself."""
    start = 0
    while start < len(piece):
        most = start + SLICE_BYTES
        end = piece.rfind(b"\n", start, most) + 1 or most
        yield piece[start:end]
        start = end


async def scan(blobs: Blobs, job: Job, rules: RowRules) -> Planned:
    """Read a whole file once (twice where custom_ids may repeat) and plan it.

    Memory is three pieces and 8 bytes a row. Errors are those of reading the blob.
    """
    draft, scanner = Draft(job.size), Scanner(rules)
    survey, finder = draft.survey, draft.finder
    async with aclosing(_scanned(blobs, job, scanner)) as slices:
        async for found in slices:
            await _in_turns(found, draft.add)
            if survey.is_foreign or draft.beyond is not None:
                break
    shards = draft.close()
    if survey.is_foreign:
        return Planned([], survey, [], foreign=what_it_is(scanner.head))
    if draft.beyond is not None:
        return Planned([], survey, [], beyond=draft.beyond)
    if finder.candidates():
        async for found in _scanned(blobs, job, Scanner(rules)):
            await _in_turns(found, draft.confirm)
    lines = finder.duplicates
    marked = _with_duplicates(shards, lines)
    means, most = scanner.sizes.means, scanner.most
    return Planned(marked, survey, lines, means, finder.repeated, most=most)


async def _scanned(
    blobs: Blobs, job: Job, scanner: Scanner
) -> AsyncGenerator[Iterator[ScannedRows], None]:
    """Rows slice by slice; each slice is to be used up before the next is asked for."""
    async with aclosing(pieces_of(blobs, job)) as pieces:
        async for piece in pieces:
            for each in slices_of(piece):
                yield scanner.feed(each)
    yield scanner.close()


async def _in_turns(found: Iterator[ScannedRows], note: Callable[[ScannedRows], None]) -> None:
    """Note a slice's rows, and let others have the loop in between and at its end."""
    clock = asyncio.get_running_loop().time
    since = clock()
    for rows in found:
        note(rows)
        if clock() - since >= HOLD_SECONDS:
            await asyncio.sleep(0)
            since = clock()
    await asyncio.sleep(0)


def _with_duplicates(shards: list[PlannedShard], lines: list[int]) -> list[PlannedShard]:
    """Tell each shard where its duplicates stand in the list."""
    if not lines:
        return shards
    marked, first = [], 0
    for shard, following in zip(shards, [*shards[1:], None], strict=True):
        end = first
        while end < len(lines) and (following is None or lines[end] < following.line):
            end += 1
        marked.append(shard.model_copy(update={"duplicates": (first, end - first)}))
        first = end
    return marked
