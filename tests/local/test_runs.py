"""What is kept of a job that was interrupted, and what is forgotten."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from azure.storage.blob.aio import BlobServiceClient, ContainerClient
from rich.console import Console

from local import running
from local.azurite import Azurite
from local.runs import Record, Run, reopen
from schemas.status import JobStatus
from tests.local.test_commands import write_results
from workers.settings import Settings

ANSWERED = {"counts": {"total": 2, "succeeded": 2, "cancelled": 0, "expired": 0}}
WRITTEN_OFF = {"counts": {"total": 2, "succeeded": 1, "cancelled": 1, "expired": 0}}
FILES = {
    "index/default/1-job": {},
    "done/job": {},
    "open/job": {},
    "quota/mini.json": {},
    "jobs/job/job.json": {},
    "jobs/job/plan.jsonl": {},
    "jobs/job/planning": {},
    "jobs/job/leases/0": {},
    "jobs/job/journal/0/000000-a": {},
    "jobs/job/receipts/0": ANSWERED,
    "jobs/job/receipts/1": WRITTEN_OFF,
    "jobs/job/output/0.a": {},
}
ALWAYS = {
    "quota/mini.json",
    "jobs/job/plan.jsonl",
    "jobs/job/planning",
    "jobs/job/leases/0",
    "jobs/job/journal/0/000000-a",
    "jobs/job/output/0.a",
}


@pytest.mark.parametrize(
    ("ending", "kept"),
    [
        (None, {*ALWAYS, "jobs/job/receipts/0"}),
        ("cancelled", {*ALWAYS, "jobs/job/receipts/0"}),
        ("failed", ALWAYS),
    ],
)
@pytest.mark.asyncio(loop_scope="session")
async def test_answers_are_kept_and_the_end_is_forgotten(
    azurite: Azurite, ending: str | None, kept: set[str]
) -> None:
    files = {**FILES, "jobs/job/state.json": {"ending": ending}}
    assert await reopened(azurite, f"ending-{ending}".lower(), files) == kept


@pytest.mark.asyncio(loop_scope="session")
async def test_a_job_that_failed_before_it_was_asked_begins_anew(azurite: Azurite) -> None:
    files: dict[str, object] = {
        "jobs/job/job.json": {},
        "jobs/job/plan.jsonl": {},
        "jobs/job/verdict.json": {},
    }
    assert await reopened(azurite, "verdict", files) == set()


async def reopened(azurite: Azurite, name: str, files: Mapping[str, object]) -> set[str]:
    """What is left of these documents, of which a killed host holds the leases."""
    chosen = Settings(deployments=(), state_container=f"s-{name}", results_container=f"r-{name}")
    async with BlobServiceClient.from_connection_string(azurite.connection_string) as storage:
        state = await storage.create_container(chosen.state_container)
        results = await storage.create_container(chosen.results_container)
        for path, document in files.items():
            blob = await state.upload_blob(path, json.dumps(document))
            if path.startswith(("jobs/job/leases", "jobs/job/planning")):
                await blob.acquire_lease(15)
        await results.upload_blob("rows/job/output.jsonl", b"{}\n")
        await reopen(storage, chosen)
        assert await names(results) == set()
        return await names(state)


async def names(container: ContainerClient) -> set[str]:
    return {blob.name async for blob in container.list_blobs()}


async def test_who_comes_while_results_are_brought_home_waits_and_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p"}\n')
    given = running._arguments(
        [str(tmp_path / "rows.jsonl"), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    )
    starts, ended, note = [0], asyncio.Event(), Run.note

    @asynccontextmanager
    async def started(*_: object) -> AsyncIterator[SimpleNamespace]:
        starts[0] += 1
        given.run.blobs.mkdir(parents=True, exist_ok=True)
        yield SimpleNamespace(endpoint=None)

    async def job(*_: object) -> tuple[JobStatus, Path]:
        (tmp_path / "out").mkdir(exist_ok=True)
        write_results(tmp_path / "out")
        ended.set()
        return JobStatus(job="j", state="completed", results="results/rows/j"), tmp_path / "out"

    def noted(run: Run, record: Record) -> None:
        time.sleep(0.5)  # somebody else has all the time to begin
        note(run, record)

    monkeypatch.setattr(running, "stack", started)
    monkeypatch.setattr(running, "_job", job)
    monkeypatch.setattr(running, "report", lambda *_: None)
    monkeypatch.setattr(Run, "note", noted)
    console = Console(file=io.StringIO())
    async with asyncio.TaskGroup() as group:
        group.create_task(running._run(given, console))
        await ended.wait()
        second = group.create_task(running._run(given, console))
    assert starts == [1]
    assert second.result()[0].state == "completed"
    assert not given.run.blobs.exists()
