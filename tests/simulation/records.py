"""What lies in a world's storage, read past all ports and faults."""

from collections.abc import Iterator

import orjson

from tests.doubles.blobs import MemoryBlobs
from tests.simulation.process import EPOCH
from tests.simulation.scenario import Row, Version
from workers.ports import BlobRef


class Records:
    """Storage as one who knows everything sees it.

    `versions` holds each content that a file ever had, by ETag, and `current` the ETag of each file
    that is there now.
    """

    def __init__(self, blobs: MemoryBlobs) -> None:
        self._blobs = blobs
        self._rows: dict[tuple[str, int], tuple[Row, ...]] = {}
        self._etags: dict[str, str] = {}  # a job's document is written once
        self.versions: dict[str, Version] = {}
        self.current: dict[str, str] = {}

    def stored(self, container: str, name: str) -> bytes | None:
        """A blob's content; None where there is none."""
        blob = self._blobs.blobs.get(BlobRef(container, name))
        return None if blob is None else bytes(blob.data)

    def of_job(self, job: str, name: str) -> bytes | None:
        """A document of a job in the state container; None where it does not stand."""
        return self.stored("state", f"jobs/{job}/{name}")

    def modified_at(self, name: str) -> float:
        """When a document in the state container was changed last, in virtual seconds."""
        return self._blobs.blobs[BlobRef("state", name)].last_modified - EPOCH

    def below(self, container: str, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Name and content of each blob below a prefix."""
        for ref in self._blobs.blobs.below(container, prefix):
            yield ref.name, bytes(self._blobs.blobs[ref].data)

    def jobs(self) -> list[str]:
        """Ids of all jobs that were accepted."""
        names = self._blobs.blobs.names("state", "jobs/")
        return [name.split("/")[1] for name in names if name.endswith("/job.json")]

    def open_markers(self) -> list[str]:
        """Ids of the jobs that are marked as open."""
        marks = self._blobs.blobs.names("state", "open/")
        return [name.removeprefix("open/") for name in marks]

    def etag_of(self, job: str) -> str:
        """The ETag of the content that a job was made of."""
        if job not in self._etags:
            self._etags[job] = str(orjson.loads(self.of_job(job, "job.json") or b"{}")["etag"])
        return self._etags[job]

    def file_of(self, job: str) -> Version:
        """The content that a job was made of."""
        return self.versions[self.etag_of(job)]

    def results_of(self, job: str) -> str:
        """The folder of a job's results."""
        return str(orjson.loads(self.of_job(job, "job.json") or b"{}")["results"])

    def rows_of(self, job: str, shard: int) -> tuple[Row, ...]:
        """The rows of a shard, by the plan."""
        if (job, shard) not in self._rows:
            first = 0
            plan = self.of_job(job, "plan.jsonl") or b""
            for line in map(orjson.loads, plan.splitlines()):
                rows = self.file_of(job).rows[first : first + line["rows"]]
                self._rows[job, line["shard"]] = rows
                first += line["rows"]
        return self._rows[job, shard]

    def journals(self, job: str, shard: int) -> dict[str, bytes]:
        """The journals of a shard by attempt, oldest first; a rolled one is one."""
        folder = f"jobs/{job}/journal/{shard}/"
        found: dict[str, bytes] = {}
        for name, data in self.below("state", folder):
            attempt = name.removeprefix(folder)[7:43]
            found[attempt] = found.get(attempt, b"") + data
        return found
