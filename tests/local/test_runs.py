"""What is kept of a job that was interrupted, and what is forgotten."""

import json
from collections.abc import Mapping

import pytest
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from local.azurite import Azurite
from local.runs import reopen
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
