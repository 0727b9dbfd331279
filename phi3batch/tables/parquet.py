"""Parquet, read and written batch by batch; the columns that it had stay as they were."""

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Final

from phi3batch.mistakes import Mistake
from phi3batch.tables.table import Kind, TableRow, as_text

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise Mistake(
        "reading Parquet needs pyarrow: pip install 'phi3-batch-worker[parquet]', or save the "
        "table as CSV"
    ) from None

_TYPES: Final[dict[Kind, Any]] = {
    "text": pa.string(),
    "vector": pa.list_(pa.float64()),
    "json": pa.string(),
}
_BATCH_ROWS: Final = 1000


class ParquetTable:
    """A table of typed columns. What JSON has no type for (dates, decimals) is a text."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uniform = True
        try:
            with pq.ParquetFile(path) as file:
                self._schema = file.schema_arrow
        except (OSError, pa.ArrowException) as error:
            raise Mistake(f"{path} is no Parquet file that can be read: {error}") from None

    @property
    def columns(self) -> Sequence[str]:
        """The columns, in the table's order."""
        names: list[str] = self._schema.names
        return names

    def rows(self) -> Iterator[TableRow]:
        """The rows, from the first."""
        for batch in self._batches():
            for row in batch.to_pylist():
                yield {name: _plain(value) for name, value in row.items()}

    def write(
        self, target: Path, added: Mapping[str, Kind], values: Iterable[Sequence[Any]]
    ) -> None:
        """Write the same rows with columns added."""
        schema = self._schema
        for name, kind in added.items():
            schema = schema.append(pa.field(name, _TYPES[kind]))
        more = iter(values)
        with pq.ParquetWriter(target, schema) as writer:
            for batch in self._batches():
                rows = list(islice(more, batch.num_rows))
                columns = [
                    pa.array([_as_cell(row[at], kind) for row in rows], _TYPES[kind])
                    for at, kind in enumerate(added.values())
                ]
                writer.write_batch(pa.record_batch([*batch.columns, *columns], schema=schema))

    def _batches(self) -> Iterator[Any]:
        try:
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(_BATCH_ROWS)
        except (OSError, pa.ArrowException) as error:
            raise Mistake(f"{self.path}: {error}") from None


def _as_cell(value: Any, kind: Kind) -> Any:
    return value if kind == "vector" else as_text(value, kind)


def _plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal() | timedelta():
            return str(value)
        case bytes():
            return base64.b64encode(value).decode()
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case tuple():  # an entry of a map
            return [_plain(item) for item in value]
        case _:
            return value
