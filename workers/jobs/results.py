"""Which files are a job's results? Its own have the usual names, or others where those are taken.

The answers are paid for: what somebody else wrote under one of the names is left as it is, is never
taken for them, and what is the job's stands beside it.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from schemas.jobs import Job
from schemas.results import Manifest, ManifestFile, ManifestPart
from workers.jobs.store import JobStore
from workers.ports import BlobRef
from workers.ports.errors import BlobMissing, StorageError

MANIFEST: Final = "manifest.json"
MARK: Final = "parts_sha256"
"""The metadata of a result file that says of which parts it was made."""
_READ_BYTES: Final = 4 * 1024 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StandingManifest:
    """A job's manifest as it was written, by whichever worker, and the name under which it lies."""

    name: str
    data: bytes


def names_for(usual: str) -> Sequence[str]:
    """The names that a result file may have, in the order in which they are tried."""
    stem, _, ending = usual.rpartition(".")
    return (usual, *(f"{stem}.{n}.{ending}" for n in range(2, 10)))


async def read_manifest(store: JobStore, job: Job) -> StandingManifest:
    """The manifest of a job, not one that somebody else wrote. Raises BlobMissing before it stands.

    Its own has the first name that another file has not.
    """
    for name in names_for(MANIFEST):
        stored = await store.blobs.read(store.result(job, name))
        if _is_of(job, stored.data):
            return StandingManifest(name, stored.data)
    raise BlobMissing(f"no manifest of {job.id} is among its results")


async def create_manifest(store: JobStore, job: Job, manifest: Manifest) -> StandingManifest:
    """Write a job's manifest once; gives the one that stands, one's own or an earlier one."""
    data = manifest.model_dump_json(indent=2).encode()
    for name in names_for(MANIFEST):
        ref = store.result(job, name)
        if await store.create_once(ref, data, content_type="application/json"):
            return StandingManifest(name, data)
        stands = (await store.blobs.read(ref)).data
        if _is_of(job, stands):
            return StandingManifest(name, stands)
        _tell_taken(ref)
    raise StorageError(f"all names for the manifest of {job.id} are taken by others' files")


def _is_of(job: Job, data: bytes) -> bool:
    # Not by the model: a later version may say what this one cannot read.
    try:
        told = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(told, dict) and told.get("job") == job.id


def _tell_taken(ref: BlobRef) -> None:
    log.warning("[RESULT_TAKEN] %s is another's: what is ours gets another name", ref.name)


def mark_of(parts: Sequence[ManifestPart]) -> str:
    """What tells a file made of these parts from every other: a hash of their hashes, in hex."""
    return hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()


async def is_ours(store: JobStore, ref: BlobRef, file: ManifestFile) -> bool:
    """Whether a file that stands is the one to be written; by its content, where it has no mark.

    Those of the releases before 0.2.0 have none.
    """
    found = await store.blobs.head(ref)
    mark = found.metadata.get(MARK)
    ours = found.size == file.length and mark in (None, mark_of(file.parts))
    if ours and mark is None:
        ours = await _is_made_of(store, ref, file.parts, found.etag)
    if not ours:
        _tell_taken(ref)
    return ours


async def _is_made_of(
    store: JobStore, ref: BlobRef, parts: Sequence[ManifestPart], etag: str
) -> bool:
    for part in parts:
        digest, end = hashlib.sha256(), part.offset + part.length
        for start in range(part.offset, end, _READ_BYTES):
            size = min(_READ_BYTES, end - start)
            digest.update(await store.blobs.read_range(ref, start, size, etag=etag))
        if digest.hexdigest() != part.sha256:
            return False
    return True
