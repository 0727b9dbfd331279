"""What a table's rows are called: no two by the same id, and by their numbers only in its order."""

import hashlib
from collections.abc import Iterator

import orjson

from phi3batch.mistakes import Mistake
from phi3batch.tables import Table, TableRow
from phi3batch.tasks import Naming
from workers.intake.planning import DuplicateFinder

_DIGITS = 16


class RollCall:
    """Reads a table's rows once, and notes their ids in 8 bytes each."""

    def __init__(self, table: Table, naming: Naming) -> None:
        self._table = table
        self._naming = naming
        self._ids = DuplicateFinder()
        self._digest = hashlib.sha256()

    def rows(self) -> Iterator[TableRow]:
        """The rows of the table, from the first."""
        for number, row in enumerate(self._table.rows(), 1):
            if (row_id := self._naming.id_of(number, row)) is not None:
                self._ids.add(row_id)
            if self._naming.is_by_number(row):
                self._digest.update(orjson.dumps([number, row], option=orjson.OPT_SORT_KEYS))
            yield row

    @property
    def digest(self) -> str:
        """That of all rows read which are called by their numbers."""
        return self._digest.hexdigest()[:_DIGITS]

    def refuse_repeated(self) -> None:
        """Raise Mistake where two rows would have each other's answers, and end the reading."""
        if not self._ids.candidates():
            return
        for number, row in enumerate(self._table.rows(), 1):
            row_id = self._naming.id_of(number, row)
            if row_id is not None and self._ids.confirm(number, row_id):
                raise Mistake(
                    f"{self._table.path}, row {number}: an earlier row has its id, {row_id!r}: "
                    "name a column whose values differ with --id-column, or drop that column, and "
                    "rows are called by their numbers"
                )


def refuse_other_table(table: Table, naming: Naming) -> None:
    """Raise Mistake where rows are called by numbers that they had in another table or order."""
    if naming.table is None or naming.id_column is not None:
        return
    roll = RollCall(table, naming)
    for _ in roll.rows():
        pass
    if roll.digest != naming.table:
        raise Mistake(
            f"{table.path} is not the table that was submitted, or not in its order, and rows are "
            "called by their numbers: join that one, or name a column that holds those numbers "
            "with --id-column"
        )
