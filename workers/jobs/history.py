"""The samples of a job: an append blob, to which whoever changes the job's state adds a line."""

import logging
from typing import NamedTuple

import orjson
from pydantic import ValidationError

from schemas.history import MOST_BYTES, Sample
from workers.errors import BlobExists, BlobMissing, StorageError, Unavailable
from workers.jobs.store import JobStore, dump

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

    async def read(self, job: str, after: int = 0) -> Samples:
        """The samples behind a place; 0 is before the first."""
        try:
            data = await self._store.blobs.read_range(
                self._store.ref(job, "samples"), after, MOST_BYTES
            )
        except BlobMissing:
            return Samples((), 0)
        whole = data[: data.rfind(b"\n") + 1]
        found: list[Sample] = []
        for line in whole.splitlines():
            sample = _parsed(line)
            if sample is not None and not (found and sample.at == found[-1].at):
                found.append(sample)
        return Samples(tuple(found), after + len(whole))


def _parsed(line: bytes) -> Sample | None:
    """A line's sample; None of half a line, behind a place that is none."""
    try:
        return Sample.model_validate(orjson.loads(line))
    except (orjson.JSONDecodeError, ValidationError):
        return None
