"""`phi3batch ls`: the latest batches."""

import sys
from argparse import Namespace

from phi3batch.printing import moment, print_columns, print_json
from phi3batch.service import connected
from phi3batch.tasks import METADATA_KEY
from schemas.openai import Batch


def run(given: Namespace) -> int:
    """Print the batches; the exit status is 0."""
    with connected() as service:
        batches = [each for each in service.batches(given.limit) if _wanted(given, each)]
    if given.json:
        for batch in batches:
            print_json(batch)
    elif batches:
        head = ("ID", "STATUS", "ROWS", "FAILED", "CREATED", "ABOUT")
        print_columns([head, *map(_columns, batches)])
    if not batches:
        of_these = f"none of the latest {given.limit:,} batches is {given.status}"
        print(of_these if given.status else "no batches yet", file=sys.stderr)
    return 0


def _wanted(given: Namespace, batch: Batch) -> bool:
    return given.status is None or given.status in (batch.status, _state(batch))


def _state(batch: Batch) -> str:
    return "paused" if batch.phi3.paused else batch.status


def _columns(batch: Batch) -> tuple[str, ...]:
    counts = batch.request_counts
    about = {k: v for k, v in (batch.metadata or {}).items() if k != METADATA_KEY}
    words = " ".join(f"{name}={value}" for name, value in about.items())
    return (
        batch.id,
        _state(batch),
        f"{counts.completed + counts.failed:,}/{counts.total:,}",
        f"{counts.failed:,}",
        moment(batch.created_at),
        words or batch.phi3.filename or batch.phi3.input,
    )
