"""What is told of batches that have ended: it never changes again, so it is kept."""

from collections import OrderedDict
from typing import Final, NamedTuple

from schemas.jobs import Job
from schemas.openai import Batch

MOST_BYTES: Final = 8 * 1024 * 1024
"""Of answers that are kept: those of about 6,000 batches."""


class KnownEnd(NamedTuple):
    """A batch at its end. `created` is its job's, in seconds since the epoch."""

    created: float
    batch: Batch


class EndedBatches:
    """The batches that were asked for last, by tenant and job: another tenant finds none."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()
        self._held = 0

    def find(self, tenant: str, job_id: str) -> KnownEnd | None:
        """A batch of a tenant, where it is kept."""
        kept = self._kept.get((tenant, job_id))
        if kept is None:
            return None
        self._kept.move_to_end((tenant, job_id))
        created, data = kept
        return KnownEnd(created, Batch.model_validate_json(data))

    def keep(self, job: Job, batch: Batch) -> None:
        """Keep a batch whose state is terminal."""
        data = batch.model_dump_json().encode()
        if (job.tenant, job.id) not in self._kept:
            self._kept[job.tenant, job.id] = (job.created, data)
            self._held += len(data)
        while self._held > self._most:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._held -= len(dropped)
