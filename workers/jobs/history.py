"""The samples of a job: an append blob, to which whoever changes the job's state adds a line, and
once it ends a series that is exact.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import orjson
from pydantic import ValidationError

from schemas.history import MOST_BYTES, Sample
from workers.jobs.store import JobStore, dump
from workers.ports.errors import BlobExists, BlobMissing, StorageError, Unavailable

log = logging.getLogger(__name__)


class Samples(NamedTuple):
    """Samples, the oldest first, and the place behind the last of them."""

    data: tuple[Sample, ...]
    end: int


class History:
    """Adds samples, and reads them. A sample that is lost does no harm."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    async def add(self, job: str, sample: Sample) -> None:
        """Add a sample; where storage will not have it now, there will be another."""
        line = dump(sample) + b"\n"
        ref = self._store.ref(job, "samples")
        try:
            try:
                await self._store.blobs.append(ref, line)
            except BlobMissing:
                await self._create(job)
                await self._store.blobs.append(ref, line)
        except (StorageError, Unavailable) as error:
            log.debug("a sample of %s is lost: %s", job, error)

    async def _create(self, job: str) -> None:
        try:
            await self._store.blobs.create_append(self._store.ref(job, "samples"))
        except BlobExists:
            return  # somebody else's, or one's own

    async def close(self, job: str, series: Sequence[Sample]) -> None:
        """Keep the exact series of a job that is about to end; the first one stands."""
        lines = b"".join(dump(sample) + b"\n" for sample in series)
        ref = self._store.ref(job, "series")
        await self._store.create_once(ref, lines, content_type="application/jsonl")

    async def series(self, job: str) -> Samples | None:
        """The exact series of a job that has ended; None for one that has not.

        Its place is the one behind all samples, where there is nothing more to come: 0 where each
        of them is lost.
        """
        try:
            data = (await self._store.blobs.read(self._store.ref(job, "series"))).data
        except BlobMissing:
            return None
        try:
            end = (await self._store.blobs.head(self._store.ref(job, "samples"))).size
        except BlobMissing:
            end = 0
        return Samples(_samples(data), end)

    async def read(self, job: str, after: int = 0) -> Samples:
        """The samples behind a place; 0 is before the first."""
        try:
            data = await self._store.blobs.read_range(
                self._store.ref(job, "samples"), after, MOST_BYTES
            )
        except BlobMissing:
            return Samples((), 0)
        whole = data[: data.rfind(b"\n") + 1]
        return Samples(_samples(whole), after + len(whole))


def _samples(lines: bytes) -> tuple[Sample, ...]:
    found: list[Sample] = []
    for line in lines.splitlines():
        sample = _parsed(line)
        if sample is not None and not (found and sample.at == found[-1].at):
            found.append(sample)
    return tuple(found)


def _parsed(line: bytes) -> Sample | None:
    """A line's sample; None for half a line, where reading began inside of one."""
    try:
        return Sample.model_validate(orjson.loads(line))
    except (orjson.JSONDecodeError, ValidationError):
        return None
