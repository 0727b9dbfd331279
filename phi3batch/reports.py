"""Where does a batch's report lie on this machine, among pages that people made themselves?"""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

from schemas.openai import BATCH_PREFIX
from schemas.reports import mark

REPORT: Final = "report.html"


def report_in(folder: Path, batch_id: str) -> Path | None:
    """The page in a folder that says how a batch went; None where there is none."""
    known = mark(batch_id.removeprefix(BATCH_PREFIX)).encode()
    pages = (folder / REPORT, *sorted(folder.glob(f"{BATCH_PREFIX}*.{REPORT}")))
    return next((each for each in pages if known in (_content(each) or b"")), None)


def put_report(folder: Path, batch_id: str, page: bytes) -> Path:
    """Where a batch's report lies from now on: under the first name that nothing else has.

    Raises OSError.
    """
    for path in map(folder.joinpath, _names(batch_id)):
        if _content(path) == page:
            return path
        if not os.path.lexists(path):
            break
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(page)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _names(batch_id: str) -> Iterator[str]:
    yield from (REPORT, f"{batch_id}.{REPORT}")
    yield from (f"{batch_id}.{number}.{REPORT}" for number in count(2))


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
