"""CSV and TSV, as spreadsheets and data frames write them: UTF-8, with a line of columns."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

from phi3batch.mistakes import Mistake
from phi3batch.tables.table import Kind, TableRow, as_text

_SEPARATORS: Final = (",", ";", "\t", "|")
_HEAD_LINES: Final = 100
_LONGEST_CELL: Final = 64 * 1024 * 1024


class DelimitedTable:
    """A table of texts. An empty cell says nothing: it is None. Blank lines are no rows.

    Without a separator it is the one that gives the first line the most columns.
    """

    def __init__(self, path: Path, separator: str | None = None) -> None:
        self.path = path
        self.uniform = True
        csv.field_size_limit(_LONGEST_CELL)
        self._separator = separator or self._likely()
        self._columns = self._head()

    @property
    def columns(self) -> Sequence[str]:
        """The first line's cells."""
        return self._columns

    def rows(self) -> Iterator[TableRow]:
        """The rows, from the first."""
        for cells in self._cells():
            yield {name: cell or None for name, cell in zip(self._columns, cells, strict=True)}

    def write(
        self, target: Path, added: Mapping[str, Kind], values: Iterable[Sequence[Any]]
    ) -> None:
        """Write the same rows with columns added; lists of numbers are JSON."""
        with target.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=self._separator, lineterminator="\n")
            # Whoever reads it guesses the separator from this line.
            head = csv.writer(
                file,
                delimiter=self._separator,
                lineterminator="\n",
                quoting=csv.QUOTE_ALL if self._misleads(added) else csv.QUOTE_MINIMAL,
            )
            head.writerow([*self._columns, *added])
            for cells, more in zip(self._cells(), values, strict=True):
                writer.writerow([*cells, *map(as_text, more, added.values())])

    def _misleads(self, added: Iterable[str]) -> bool:
        """Whether a column's name holds what may be taken for a separator."""
        return any(each in name for name in (*self._columns, *added) for each in _SEPARATORS)

    def _likely(self) -> str:
        with self._opened() as lines:
            first = list(islice(lines, _HEAD_LINES))
        return max(_SEPARATORS, key=lambda each: _columns_by(each, first))

    def _head(self) -> list[str]:
        with self._opened() as lines:
            head = next(csv.reader(lines, delimiter=self._separator), [])
        if not head:
            raise Mistake(f"{self.path} is empty: its first line has to name the columns")
        for name, times in Counter(head).items():
            if times > 1:
                raise Mistake(f"{self.path}: {times} columns are named {name!r}: rename them")
        return head

    def _cells(self) -> Iterator[list[str]]:
        """The cells of each row as they are written."""
        with self._opened() as lines:
            reader = csv.reader(lines, delimiter=self._separator, strict=True)
            next(reader, None)
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(self._columns):
                    raise Mistake(
                        f"{self.path}, line {reader.line_num}: {len(cells)} cells where the first "
                        f"line names {len(self._columns)} columns: quote cells that hold "
                        f"{self._separator!r} or a newline"
                    )
                yield cells

    @contextmanager
    def _opened(self) -> Iterator[Iterator[str]]:
        """The lines; what cannot be read is told with its place."""
        number = 0

        def counted(file: Iterable[str]) -> Iterator[str]:
            nonlocal number
            for number, line in enumerate(file, 1):  # noqa: B007
                yield line

        try:
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                yield counted(file)
        except OSError as error:
            raise Mistake(f"{self.path}: {error.strerror}") from None
        except UnicodeDecodeError:
            place = f"{self.path}, near line {number + 1}"
            raise Mistake(f"{place}: not UTF-8: save the table as UTF-8") from None
        except csv.Error as error:
            raise Mistake(f"{self.path}, line {number}: {error}") from None


def _columns_by(separator: str, lines: Iterable[str]) -> int:
    """How many columns a first line has by a separator; 0 where it cannot be the one."""
    try:
        return len(next(csv.reader(lines, delimiter=separator, strict=True), []))
    except csv.Error:
        return 0
