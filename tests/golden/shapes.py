"""What can stand in a document: each field by its path, with its type and the words it may hold."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter

import schemas.listing as listed
from schemas import files
from schemas.budgets import MonthBudget
from schemas.estimates import JobEstimate
from schemas.health import DeploymentHealth, Probed
from schemas.history import Sample
from schemas.jobs import Job, JobState
from schemas.messages import (
    Announcement,
    Expire,
    Finish,
    JobRequest,
    ShardMessage,
    StatusEvent,
    WebhookMessage,
)
from schemas.plans import PlannedShard, Verdict
from schemas.results import CallRecord, ErrorRow, Manifest, OutputRow, Receipt
from schemas.walks import Walk
from workers.quota.book import Book

# By the golden file's name: for documents the one they have in the container, or nearly.
DOCUMENTS: Final[Mapping[str, type]] = {
    "job.json": Job,
    "state.json": JobState,
    "verdict.json": Verdict,
    "estimate.json": JobEstimate,
    "plan.jsonl": PlannedShard,
    "receipt.json": Receipt,
    "samples.jsonl": Sample,
    "open.json": Announcement,
    "month.json": MonthBudget,
    "index.json": listed.IndexEntry,
    "rejected.json": listed.Rejection,
    "done.json": listed.Done,
    "nightly.json": Walk,
    "drops.json": Walk,
    "file.json": files.FileRecord,
    "upload.json": files.UploadRecord,
    "creation.json": files.Creation,
    "due.json": files.Due,
    "deployment.json": DeploymentHealth,
    "probed.json": Probed,
    "quota.json": Book,
    "output.jsonl": OutputRow,
    "errors.jsonl": ErrorRow,
    "manifest.json": Manifest,
}
MESSAGES: Final[Mapping[str, type[BaseModel]]] = {
    "request.json": JobRequest,
    "announce.json": Announcement,
    "finish.json": Finish,
    "expire.json": Expire,
    "shard.json": ShardMessage,
    "webhook.json": WebhookMessage,
}
# Lines of other kinds that the journal holds have no model; its golden file has them all.
SHAPED: Final[Mapping[str, type]] = {
    **DOCUMENTS,
    **MESSAGES,
    "event": StatusEvent,
    "journal.jsonl": CallRecord,
}

Shape = Mapping[str, str]


def shape_of(model: type) -> Shape:
    """Each field of a model: `counts.total`, `out[]`, `codes{}.rows`, and what it may hold."""
    schema = TypeAdapter(model).json_schema(mode="serialization")
    found: dict[str, set[str]] = {}
    for path, kind in _walk(schema, schema.get("$defs", {}), ""):
        if "unknown" in path:
            continue  # where the ledger keeps what a later version says
        found.setdefault(path, set()).add(kind)
    return {path: " | ".join(sorted(kinds)) for path, kinds in sorted(found.items())}


def current() -> Mapping[str, Shape]:
    """The shapes of this version."""
    return {name: shape_of(model) for name, model in SHAPED.items()}


def changes(before: Shape, after: Shape) -> Mapping[str, str]:
    """What is new, gone or other in a document, by the field's path, in words."""
    told = {}
    for path in sorted({*before, *after}):
        if path not in before:
            told[path] = f"new: {after[path]}"
        elif path not in after:
            told[path] = "gone"
        elif before[path] != after[path]:
            told[path] = f"{before[path]} -> {after[path]}"
    return told


def _walk(node: Mapping[str, Any], named: Any, path: str) -> Iterator[tuple[str, str]]:
    if "$ref" in node:
        node = named[node["$ref"].rsplit("/", 1)[-1]]
    for either in node.get("anyOf", node.get("oneOf", ())):
        yield from _walk(either, named, path)
    for name, inner in node.get("properties", {}).items():
        yield from _walk(inner, named, f"{path}.{name}".lstrip("."))
    if isinstance(inner := node.get("additionalProperties"), Mapping):
        yield from _walk(inner, named, f"{path}{{}}")
    for inner in node.get("prefixItems", [node["items"]] if "items" in node else []):
        if isinstance(inner, Mapping):
            yield from _walk(inner, named, f"{path}[]")
    words = node.get("enum", [node["const"]] if "const" in node else [])
    yield from ((path, repr(word)) for word in words)
    if path and not words and "properties" not in node and "anyOf" not in node:
        yield path, str(node.get("type", "anything"))
