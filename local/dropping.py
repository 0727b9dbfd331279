"""Drop a file into a container, with the options of its job."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from azure.storage.blob.aio import ContainerClient

# Metadata travels in headers, 8 KiB in all; above this, options go into a blob of their own.
MAX_METADATA = 6 * 1024


def metadata_for(options: Mapping[str, Any]) -> dict[str, str] | None:
    """A blob's metadata with the options; None where they do not fit."""
    if not options:
        return {}
    encoded = base64.urlsafe_b64encode(json.dumps(options).encode()).decode()
    return {"options": encoded} if len(encoded) <= MAX_METADATA else None


async def drop(container: ContainerClient, file: Path, options: Mapping[str, Any]) -> None:
    """Upload `file` under its own name; options that do not fit into metadata go before it."""
    metadata = metadata_for(options)
    if metadata is None:
        beside = file.with_suffix(".options.json").name
        await container.upload_blob(beside, json.dumps(options).encode(), overwrite=True)
    with file.open("rb") as content:
        await container.upload_blob(
            file.name, content, overwrite=True, metadata=metadata or {}, max_concurrency=4
        )
