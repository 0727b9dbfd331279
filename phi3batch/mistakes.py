"""What a user can mend: told in one line, without a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from phi3batch.statuses import INTERRUPTED, TOO_LATE

LEFT: Final = frozenset({TOO_LATE, INTERRUPTED})
"""Statuses of who does not wait any longer, which is no error."""


class Mistake(Exception):
    """Wrong usage, or a file that cannot be read: what is wrong and what to do."""


class Ended(Exception):
    """A command ends with an exit status of its own, its reason told by the message."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes a file of this machine. Raises Mistake where that cannot be done."""
    try:
        yield
    except OSError as error:
        # A write that fails does not name its file, as an open does.
        raise Mistake(cannot_be_used(error, path)) from None


def cannot_be_used(error: OSError, path: Path | None = None) -> str:
    """Which file of this machine cannot be used, and why."""
    name = error.filename or path
    return f"{error.strerror or error}" if name is None else f"{name}: {error.strerror or error}"
