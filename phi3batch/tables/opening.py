"""In which format is a table? By what its name ends in, or else by how it begins."""

from pathlib import Path
from typing import Final, Literal, get_args

from phi3batch.mistakes import Mistake
from phi3batch.tables.delimited import DelimitedTable
from phi3batch.tables.jsonlines import JsonLinesTable
from phi3batch.tables.table import Table

Format = Literal["csv", "tsv", "parquet", "jsonl"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

_ENDINGS: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_HEAD_BYTES: Final = 4096


def format_of(path: Path) -> Format:
    """The format of a file. Raises Mistake where it cannot be opened."""
    if (known := _ENDINGS.get(path.suffix.lower())) is not None:
        return known
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror}") from None
    if head.startswith(b"PAR1"):
        return "parquet"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{") or not text:
        return "jsonl"
    return "csv"


def open_table(path: Path, chosen: Format | None = None) -> Table:
    """A table, by its format or the chosen one. Raises Mistake where it cannot be opened."""
    match chosen or format_of(path):
        case "parquet":
            # Loads pyarrow, which is large and may not be installed.
            from phi3batch.tables.parquet import ParquetTable  # noqa: PLC0415

            return ParquetTable(path)
        case "jsonl":
            return JsonLinesTable(path)
        case "tsv":
            return DelimitedTable(path, "\t")
        case "csv":
            return DelimitedTable(path)
