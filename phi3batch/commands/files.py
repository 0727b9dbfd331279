"""`phi3batch files ls` and `files rm`: what was uploaded."""

from argparse import Namespace

from phi3batch.printing import moment, print_columns, print_json
from phi3batch.service import connected


def run(given: Namespace) -> int:
    """0: they are on standard output, or gone."""
    with connected() as service:
        if given.action == "rm":
            for file_id in given.ids:
                service.delete(file_id)
            return 0
        files = list(service.files(given.limit))
    if given.json:
        for file in files:
            print_json(file)
    elif files:
        rows = [
            (each.id, f"{each.bytes:,}", moment(each.created_at), each.filename) for each in files
        ]
        print_columns([("ID", "BYTES", "CREATED", "NAME"), *rows])
    return 0
