"""What a job left in storage: its results, held against their manifest, and its journals."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob.aio import BlobServiceClient

from local import results
from phi3batch.verifying import verify
from schemas.results import Manifest
from schemas.status import JobStatus


@dataclass(frozen=True, slots=True)
class Results:
    """What a job left, verified against its manifest."""

    output: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    errors_raw: bytes
    manifest: Manifest

    def check(self, rows: int) -> None:
        """Each of the input's rows has exactly one line, and the lines stand in input order."""
        good, bad = (
            [int(line["id"].rpartition("-")[2]) for line in lines]
            for lines in (self.output, self.errors)
        )
        assert good == sorted(set(good)), "output.jsonl doubles or reorders rows"
        assert bad == sorted(set(bad)), "errors.jsonl doubles or reorders rows"
        assert sorted(good + bad) == list(range(1, rows + 1))
        assert self.manifest.counts.total == rows

    def answers(self) -> dict[str, Any]:
        """The answer of each row that succeeded, by custom_id."""
        return {line["custom_id"]: answer_of(line["response"]["body"]) for line in self.output}

    def codes(self) -> dict[int, str]:
        """The error code of each row that did not, by line number."""
        return {line["line"]: line["error"]["code"] for line in self.errors}


def answer_of(body: Mapping[str, Any]) -> Any:
    """The text of a completion, or the vectors of an embeddings answer."""
    if "choices" in body:
        choice = body["choices"][0]
        return choice["message"]["content"] if "message" in choice else choice["text"]
    return [item["embedding"] for item in body["data"]]


async def download(storage: BlobServiceClient, status: JobStatus, folder: Path) -> Results:
    """Download a job's results and verify them, digests and counts, against the manifest."""
    assert status.results is not None
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a moment
    await results.download(storage, status.results, folder, status.manifest)
    manifest = Manifest.model_validate_json((folder / results.MANIFEST).read_bytes())
    assert verify(manifest, folder) == []
    assert manifest.job == status.job
    assert manifest.counts == status.counts
    raw = [_bytes_of(folder / name) for name in (results.OUTPUT, results.ERRORS)]
    output, errors = ([orjson.loads(line) for line in each.splitlines()] for each in raw)
    return Results(output, errors, raw[1], manifest)


async def journaled(storage: BlobServiceClient, job: str) -> dict[str, list[dict[str, Any]]]:
    """The whole lines of each of a job's journals, by the journal's name."""
    container = storage.get_container_client("state")
    found = {}
    async for blob in container.list_blobs(f"jobs/{job}/journal/"):
        try:
            data = await (await container.download_blob(blob.name)).readall()
        except ResourceNotFoundError:
            continue
        lines = data.split(b"\n")[:-1]
        found[blob.name] = [orjson.loads(line) for line in lines if line.strip()]
    return found


def _bytes_of(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
