"""`phi3batch up`: the whole service on this machine, where the repository is installed."""

import importlib
import importlib.util
from argparse import Namespace

from phi3batch.mistakes import Mistake


def run(given: Namespace) -> int:
    """As `python -m local up`."""
    if importlib.util.find_spec("local.staying") is None:
        raise Mistake(
            "the local stack is not installed here: clone the repository, say `make setup` there, "
            "and then .venv/bin/phi3batch up"
        )
    status: int = importlib.import_module("local.__main__").main(["up", *given.rest])
    return status
