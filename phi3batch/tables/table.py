"""What a table is, whatever its format."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import orjson

TableRow = dict[str, Any]
"""A row's values by column, as JSON can hold them. What a cell lacks is None."""

Kind = Literal["text", "vector", "json"]
"""What a column that is added holds: texts, lists of numbers, or anything as JSON."""


class Table(Protocol):
    """A file of rows. Errors of reading are `Mistake`, which names the file and the place."""

    path: Path
    uniform: bool
    """Whether every row has the same columns."""

    @property
    def columns(self) -> Sequence[str]:
        """The columns, in the table's order; of JSON Lines, those of the first row."""

    def rows(self) -> Iterator[TableRow]:
        """The rows, from the first."""

    def write(
        self, target: Path, added: Mapping[str, Kind], values: Iterable[Sequence[Any]]
    ) -> None:
        """Write the same rows with columns added: one list of values for each row, in order."""


def as_text(value: Any, kind: Kind) -> str | None:
    """A value where only texts can stand: a text as it is, anything else as JSON."""
    if value is None or (kind == "text" and isinstance(value, str)):
        return value
    return orjson.dumps(value).decode()
