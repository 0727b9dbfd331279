"""Tables of every format: their rows, and the same table with columns added."""

from phi3batch.tables.opening import FORMATS, Format, format_of, open_table
from phi3batch.tables.table import Kind, Table, TableRow

__all__ = ["FORMATS", "Format", "Kind", "Table", "TableRow", "format_of", "open_table"]
