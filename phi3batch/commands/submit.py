"""`phi3batch submit`: files and tables become batches."""

import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3batch.inputs import Prepared, options_of, prepared
from phi3batch.printing import print_json
from phi3batch.service import BatchService, connected
from phi3batch.watching import told, watch
from schemas.openai import Batch

# Characters of a value in metadata.
_MOST = 512


def run(given: Namespace) -> int:
    """0 where all were submitted; with --watch, as `watch`."""
    options_of(given)
    with connected() as service:
        ids = [_submitted(service, given, file) for file in given.files]
        if not given.watch:
            return 0
        return watch(
            service,
            ids,
            strict=given.strict,
            interval=given.interval,
            timeout=given.timeout,
            tell=print_json if given.json else told,
        )


def _submitted(service: BatchService, given: Namespace, name: str) -> str:
    with prepared(given, name) as file:
        _tell_not_asked(name, file)
        file_id = service.upload(file.path, file.name)
        batch = _created(service, given, file, file_id, Path(name).name[:_MOST])
    if given.json:
        if not given.watch:
            print_json(batch)
    elif not given.watch:
        print(batch.id)
    come_back = "" if given.watch else f"; follow it with: phi3batch watch {batch.id}"
    print(f"{name} is {batch.id}{come_back}", file=sys.stderr)
    return batch.id


def _created(
    service: BatchService, given: Namespace, file: Prepared, file_id: str, name: str
) -> Batch:
    """The batch of a file: rows may ask for anything, and a bad one harms no other."""
    wanted: dict[str, Any] = {"mixed": True, "on_invalid": "skip"}
    wanted |= {**given.options, **dict(given.option)}
    metadata: Mapping[str, str] = wanted.pop("metadata", {})
    named = file.naming.as_metadata() if file.naming else {}
    return service.create(
        file_id,
        endpoint=wanted.pop("endpoint", "/v1/chat/completions"),
        window=wanted.pop("completion_window", "24h"),
        metadata={"file": name, **metadata, **dict(given.meta), **named},
        options=wanted,
    )


def _tell_not_asked(name: str, file: Prepared) -> None:
    if not file.codes:
        return
    codes = ", ".join(f"{count:,} {code}" for code, count in file.codes.items())
    print(f"{name}: not everything can be asked: {codes}", file=sys.stderr)
    for task in file.not_asked:
        print(f"  {task.message}", file=sys.stderr)
