"""`phi3batch cancel`, `pause`, `resume`: of batches that run."""

from argparse import Namespace

from phi3batch.printing import print_json
from phi3batch.service import connected, each
from phi3batch.watching import told


def run(given: Namespace) -> int:
    """The exit status, 0 where it was done to all, 1 where one refuses."""
    tell = print_json if given.json else told
    with connected() as service:
        return each(given.ids, lambda batch_id: tell(service.act(batch_id, given.action)))
