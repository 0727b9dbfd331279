"""`phi3batch watch`: follow batches until they end."""

from argparse import Namespace

from phi3batch.printing import print_json
from phi3batch.service import connected
from phi3batch.watching import told, watch


def run(given: Namespace) -> int:
    """As `watching.status_of`, the worst of all batches."""
    with connected() as service:
        return watch(
            service,
            given.ids,
            strict=given.strict,
            interval=given.interval,
            timeout=given.timeout,
            tell=print_json if given.json else told,
        )
