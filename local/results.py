"""Fetch a job's results into a folder of their own, and show the first of them."""

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob.aio import BlobServiceClient
from pydantic import ValidationError

from schemas.results import Manifest

OUTPUT, ERRORS, MANIFEST, EVENTS = "output.jsonl", "errors.jsonl", "manifest.json", "events.jsonl"
REPORT = "report.html"
SHOWN_CHARACTERS = 160


def lie_in(folder: Path) -> list[str]:
    """The result files, of whatever job, that a folder holds."""
    names = dict.fromkeys((OUTPUT, ERRORS, *_files(folder), MANIFEST, REPORT, EVENTS))
    return [name for name in names if (folder / name).exists()]


async def download(
    storage: BlobServiceClient, results: str, folder: Path, manifest_name: str | None = None
) -> None:
    """Copy a job's result files into a folder that exists; `results` is container/folder.

    `manifest_name` is what the status says; here it is always called manifest.json. Files
    are called as the manifest has it, which tells ours from what somebody else wrote there. A file
    has its name once it is whole. What the job does not have is not there afterwards either.
    """
    container, _, prefix = results.partition("/")
    fetched = folder / f".{MANIFEST}"
    await _copy(storage, container, f"{prefix}/{manifest_name or MANIFEST}", fetched)
    names = _files(folder, fetched.name)
    async with asyncio.TaskGroup() as tasks:
        for name in {OUTPUT, ERRORS, REPORT, *names}:
            if name in (REPORT, *names):
                tasks.create_task(_copy(storage, container, f"{prefix}/{name}", folder / name))
            else:
                (folder / name).unlink(missing_ok=True)
    if fetched.exists():
        os.replace(fetched, folder / MANIFEST)
    else:
        (folder / MANIFEST).unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """Copy a job's result files into another folder, which is made if needed."""
    target.mkdir(parents=True, exist_ok=True)
    for name in lie_in(source):
        shutil.copy2(source / name, target / name)


async def _copy(storage: BlobServiceClient, container: str, blob: str, target: Path) -> None:
    try:
        content = await storage.get_blob_client(container, blob).download_blob()
    except ResourceNotFoundError:
        await asyncio.to_thread(target.unlink, missing_ok=True)
        return
    part = target.with_name(f".{target.name}.part")
    with part.open("wb") as file:
        async for chunk in content.chunks():
            file.write(chunk)
    os.replace(part, target)


def write_events(events: list[dict[str, Any]], folder: Path) -> None:
    """events.jsonl: every status event, in order of arrival, behind those of an earlier start."""
    with (folder / EVENTS).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(event, ensure_ascii=False) + "\n" for event in events)


def manifest(folder: Path) -> Manifest:
    """The manifest that lies there."""
    return Manifest.model_validate_json((folder / MANIFEST).read_bytes())


def _files(folder: Path, manifest_name: str = MANIFEST) -> tuple[str, str]:
    """What the files of answers and of errors are called there."""
    try:
        found = Manifest.model_validate_json((folder / manifest_name).read_bytes())
    except (OSError, ValidationError):
        return OUTPUT, ERRORS
    return found.output.name, found.errors.name


@dataclass(slots=True)
class Failures:
    """The errors of one code. `first` is what the first row with it was told."""

    count: int
    first: str


def errors_by_code(folder: Path) -> list[tuple[str, Failures]]:
    """The codes of a job's errors with their failures, the most frequent first."""
    codes: dict[str, Failures] = {}
    path = folder / _files(folder)[1]
    if not path.exists():
        return []
    with path.open("rb") as lines:
        for line in lines:
            error = orjson.loads(line)["error"]
            known = codes.setdefault(error["code"], Failures(0, shortened(error["message"])))
            known.count += 1
    return sorted(codes.items(), key=lambda item: -item[1].count)


def first_answers(folder: Path, count: int) -> Iterator[tuple[str, str]]:
    """The custom_id and the shortened answer of the first rows that were answered."""
    path = folder / _files(folder)[0]
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for line in islice(lines, count):
            row = json.loads(line)
            yield row["custom_id"], shortened(answer_of(row["response"]["body"]))


def answer_of(body: Any) -> str:
    """The answer in a response body: a text, or the size of the first embedding."""
    if choices := body.get("choices"):
        return str(choices[0].get("message", choices[0]).get("content") or choices[0].get("text"))
    if data := body.get("data"):
        vector = data[0].get("embedding", [])
        return f"an embedding of {len(vector)} numbers, {len(data)} in this row"
    return json.dumps(body)


def shortened(text: str) -> str:
    """One line of at most SHOWN_CHARACTERS."""
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN_CHARACTERS else flat[: SHOWN_CHARACTERS - 1] + "…"
