"""JSON Lines as a table: an object on each line, whose fields are the columns."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from phi3batch.mistakes import Mistake
from phi3batch.tables.table import Kind, TableRow
from workers.rows.lines import line_content


class JsonLinesTable:
    """A table of JSON objects, which need not all have the same fields. Blank lines are no rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uniform = False
        self._columns = list(next(self.rows(), {}))

    @property
    def columns(self) -> Sequence[str]:
        """The fields of the first row."""
        return self._columns

    def rows(self) -> Iterator[TableRow]:
        """The rows, from the first."""
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if content := line_content(line.rstrip(b"\n"), number, len(line)):
                        yield self._row(number, content)
        except OSError as error:
            raise Mistake(f"{self.path}: {error.strerror}") from None

    def write(
        self, target: Path, added: Mapping[str, Kind], values: Iterable[Sequence[Any]]
    ) -> None:
        """Write the same rows with fields added."""
        with target.open("wb") as file:
            for row, more in zip(self.rows(), values, strict=True):
                whole = row | dict(zip(added, more, strict=True))
                file.write(orjson.dumps(whole, option=orjson.OPT_APPEND_NEWLINE))

    def _row(self, number: int, line: bytes) -> TableRow:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            place = f"{self.path}, line {number}, character {error.pos}"
            raise Mistake(f"{place}: not JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise Mistake(f"{self.path}, line {number}: a row has to be a JSON object")
        return row
