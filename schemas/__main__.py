"""`python -m schemas`: writes everything that crosses a boundary as JSON Schemas."""

import argparse
import json
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from schemas.deployments import Deployment
from schemas.jobs import JobOptions
from schemas.messages import JobRequest, JobsMessage, ShardMessage, StatusEvent, WebhookMessage
from schemas.requests import InputRow
from schemas.results import ErrorRow, Manifest, OutputRow
from schemas.status import JobStatus
from schemas.webhooks import WebhookEvent

FOLDER: Final = Path(__file__).parent.parent / "docs/schemas"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

CONTRACTS: Final[dict[str, Any]] = {
    "input-row": InputRow,
    "output-row": OutputRow,
    "error-row": ErrorRow,
    "job-request": JobRequest,
    "job-options": JobOptions,
    "job-status": JobStatus,
    "status-event": StatusEvent,
    "manifest": Manifest,
    "deployments": tuple[Deployment, ...],
    "jobs-message": JobsMessage,
    "shard-message": ShardMessage,
    "webhook-message": WebhookMessage,
    "webhook-event": WebhookEvent,
}


def exported() -> dict[str, str]:
    """The text of each schema by its file name."""
    return {f"{name}.schema.json": _text(name, kind) for name, kind in CONTRACTS.items()}


def _text(name: str, kind: Any) -> str:
    schema = TypeAdapter(kind).json_schema()
    head = {"$schema": DIALECT, "$id": f"{name}.schema.json", "title": name}
    return json.dumps({**head, **schema}, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path) -> None:
    """Write all schemas into a folder; a schema there that is none any more is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = exported()
    for old in folder.glob("*.schema.json"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")


def main() -> None:
    """Read the command line and write the schemas."""
    parser = argparse.ArgumentParser(prog="python -m schemas", description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=FOLDER, help="where to (default: docs/schemas)"
    )
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
