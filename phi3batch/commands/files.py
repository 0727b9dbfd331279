"""`phi3batch files ls` and `files rm`: what was uploaded."""

import sys
from argparse import Namespace
from functools import partial

from phi3batch.printing import moment, print_columns, print_json
from phi3batch.service import BatchService, connected, each
from schemas.openai import FileDeleted


def run(given: Namespace) -> int:
    """Print or delete files; the exit status is 0, or 1 where one was not to be had."""
    with connected() as service:
        if given.action == "rm":
            return each(given.ids, partial(_delete, service, given))
        files = list(service.files(given.limit))
    if given.json:
        for file in files:
            print_json(file)
    elif files:
        rows = [
            (each.id, f"{each.bytes:,}", moment(each.created_at), each.filename) for each in files
        ]
        print_columns([("ID", "BYTES", "CREATED", "NAME"), *rows])
    if not files:
        print("no files", file=sys.stderr)
    return 0


def _delete(service: BatchService, given: Namespace, file_id: str) -> None:
    service.delete(file_id)
    if given.json:
        print_json(FileDeleted(id=file_id))
    else:
        print(f"{file_id} deleted")
