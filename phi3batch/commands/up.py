"""`phi3batch up`: the whole service on this machine, where the repository is installed."""

import importlib
import importlib.util
from argparse import Namespace

from phi3batch.mistakes import Mistake


def run(given: Namespace) -> int:
    """As `python -m local up`."""
    if not _is_here():
        raise Mistake(
            "the local stack is not installed here: clone the repository, say `make setup` there, "
            "and then .venv/bin/phi3batch up"
        )
    status: int = importlib.import_module("local.__main__").main(["up", *given.rest])
    return status


def _is_here() -> bool:
    try:
        return importlib.util.find_spec("local.staying") is not None
    except ModuleNotFoundError:  # what pip installs has no `local` at all
        return False
