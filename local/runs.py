"""Which run is this, and where does it go on? `runs/{digest of what is asked, and of whom}`.

A run's storage stays on disk until its job has completed and its results are at home; a small
record stays for good, so that the same command tells where they are and pays for nothing twice.
"""

import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from azure.storage.blob.aio import BlobServiceClient, ContainerClient
from pydantic import BaseModel, ConfigDict, ValidationError

from local.azurite import locked
from local.results import MANIFEST
from workers.settings import Settings

RECORD = "run.json"
# What an earlier attempt at a job leaves for the next: plan, answers, and shards that are done;
# and what carries nothing but leases, which a killed host may still hold.
KEPT = frozenset(
    {"plan.jsonl", "duplicates", "journal", "receipts", "output", "errors", "leases", "planning"}
)
# Where a job is listed by its id: as open, as done, as made.
LISTED = ("open/", "done/", "index/")


class Record(BaseModel):
    """What a run came to so far: the job's id and state, and the folder of its results."""

    model_config = ConfigDict(frozen=True)

    job: str
    state: str
    results: Path


class Run:
    """One run's folder. Only who holds it may change it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.blobs = folder / "azurite"

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """The run to oneself, from before its record is read until its results are noted.

        Azurite's own lock ends with Azurite, before that. Errors: `FolderInUseError`.
        """
        lock = await locked(self._folder)
        try:
            yield
        finally:
            os.close(lock)

    @property
    def record(self) -> Record | None:
        """What was noted last; None where there is nothing, or its results are gone."""
        try:
            record = Record.model_validate_json((self._folder / RECORD).read_bytes())
        except (OSError, ValidationError):
            return None
        return record if (record.results / MANIFEST).exists() else None

    def note(self, record: Record) -> None:
        """The results are at home. Those of a completed job need no storage any more."""
        (self._folder / RECORD).write_text(record.model_dump_json())
        if record.state == "completed":
            shutil.rmtree(self.blobs)

    def forget(self) -> None:
        """Remove what was stored and noted. To be done while no storage runs."""
        shutil.rmtree(self.blobs, ignore_errors=True)
        (self._folder / RECORD).unlink(missing_ok=True)

    async def begin_anew(self, storage: BlobServiceClient, _: Settings) -> None:
        """Empty the run's storage, and remove its record. To be done while no host runs."""
        (self._folder / RECORD).unlink(missing_ok=True)
        # Whole containers: a blob whose lease a killed host still holds could not be deleted.
        for container in [each.name async for each in storage.list_containers()]:
            await storage.delete_container(container)
            await storage.create_container(container)


def run_of(data: Path, file: Path, options: Mapping[str, Any], endpoints: Iterable[str]) -> Run:
    """The run of a file with a job's options at these endpoints, below the folder `data`."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256")
    digest.update(json.dumps([file.name, options, sorted(endpoints)], sort_keys=True).encode())
    return Run(data / "runs" / digest.hexdigest()[:16])


async def reopen(storage: BlobServiceClient, chosen: Settings) -> None:
    """Forget how the jobs of an interrupted run stood and ended; keep what they were answered.

    Announced again, a job is then made, counted and finished anew: its shards take their rows from
    their journals and ask what is left. To be done while no host runs.
    """
    state = storage.get_container_client(chosen.state_container)
    async for folder in state.walk_blobs("jobs/"):
        await _reopen(state, folder.name)
        job = folder.name.removeprefix("jobs/").rstrip("/")
        for place in LISTED:
            await _delete(state, place, lambda name, job=job: name.endswith(job))
    await _delete(storage.get_container_client(chosen.results_container), "", lambda _: True)


async def _reopen(state: ContainerClient, folder: str) -> None:
    def forgotten(name: str) -> bool:
        return name.removeprefix(folder).split("/")[0] not in KEPT

    if await state.get_blob_client(f"{folder}verdict.json").exists():
        # Nothing was asked, and what was amiss may be mended.
        await _delete(state, folder, lambda name: "/planning" not in name)
        return
    failed = await _ending(state, folder) == "failed"
    async for receipt in state.list_blobs(f"{folder}receipts/"):
        counts = (await _read(state, receipt.name))["counts"]
        if failed or counts["cancelled"] or counts["expired"]:
            await state.delete_blob(receipt.name)
    await _delete(state, folder, forgotten)


async def _ending(state: ContainerClient, folder: str) -> str | None:
    if not await state.get_blob_client(f"{folder}state.json").exists():
        return None
    ending: str | None = (await _read(state, f"{folder}state.json")).get("ending")
    return ending


async def _read(container: ContainerClient, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(await (await container.download_blob(name)).readall())
    return document


async def _delete(container: ContainerClient, prefix: str, wanted: Any) -> None:
    names = [blob.name async for blob in container.list_blobs(prefix)]
    for name in filter(wanted, names):
        await container.delete_blob(name)
