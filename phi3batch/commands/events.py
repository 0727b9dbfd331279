"""`phi3batch events`: what has happened to a batch, the earliest first."""

from argparse import Namespace

from phi3batch.printing import moment, print_columns, print_json
from phi3batch.service import connected


def run(given: Namespace) -> int:
    """Print the events; the exit status is 0."""
    with connected() as service:
        events = list(reversed(service.events(given.id)))
    if given.json:
        for event in events:
            print_json(event)
    elif events:
        print_columns((moment(each.created_at), each.type, each.message) for each in events)
    return 0
