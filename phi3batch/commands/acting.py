"""`phi3batch cancel`, `pause`, `resume`: of batches that run."""

from argparse import Namespace

from phi3batch.printing import print_json
from phi3batch.service import connected
from phi3batch.watching import told


def run(given: Namespace) -> int:
    """0 where it was done to all; the first that refuses ends it."""
    with connected() as service:
        for batch_id in given.ids:
            batch = service.act(batch_id, given.action)
            (print_json if given.json else told)(batch)
    return 0
