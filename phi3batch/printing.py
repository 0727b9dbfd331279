"""Data on standard output: JSON a line each, or columns for people."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import BaseModel


def print_json(value: BaseModel | Mapping[str, Any]) -> None:
    """One object on a line of its own."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    sys.stdout.write(orjson.dumps(plain, option=orjson.OPT_APPEND_NEWLINE).decode())


def print_columns(rows: Iterable[Sequence[str]]) -> None:
    """Rows with their columns one below the other; the last is as wide as it is."""
    lines = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def moment(seconds: int | None) -> str:
    """A time in UTC; a dash where there is none."""
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
