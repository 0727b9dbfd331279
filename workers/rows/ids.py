"""Which custom_id a row gives itself."""

from collections.abc import Mapping
from typing import Any

import orjson
from msgspec import Raw, Struct
from msgspec.json import Decoder

from schemas.requests import IDS, LONGEST_ID
from workers.rows.dialects import WrongRow


class _Written(Struct):
    """The ids of a row as its line has them: a parsed 7.0 or 1e3 is not what was written."""

    custom_id: Raw = Raw()
    id: Raw = Raw()
    prompt_id: Raw = Raw()


_written = Decoder(_Written).decode


def names_itself(row: Mapping[str, Any]) -> bool:
    """Whether a row gives any id."""
    return any(row.get(name) is not None for name in IDS)


def custom_id_of(row: Mapping[str, Any], line: bytes | None = None) -> str | None:
    """The id that a row gives itself; None where it gives none.

    That of a number is as `line` has it, or as JSON is written. Raises WrongRow for one that
    nobody could take.
    """
    for name in IDS:
        value = row.get(name)
        if value is None:
            continue
        if isinstance(value, int | float) and not isinstance(value, bool):
            written = orjson.dumps(value) if line is None else bytes(getattr(_written(line), name))
            value = written.decode()
        if not isinstance(value, str):
            raise WrongRow("invalid_row", f"{name} has to be a string or a number")
        if not 1 <= len(value) <= LONGEST_ID:
            raise WrongRow("invalid_row", f"{name} has to have 1 to {LONGEST_ID} characters")
        return value
    return None


def good_id_of(row: Mapping[str, Any], line: bytes | None = None) -> str | None:
    """The id that a row gives itself; None where it gives none, or none that is valid."""
    try:
        return custom_id_of(row, line)
    except WrongRow:
        return None


def told_apart(custom_id: str, line: int) -> str:
    """A custom_id for a row whose own stood in an earlier line."""
    mark = f"#{line}"
    return custom_id[: LONGEST_ID - len(mark)] + mark
