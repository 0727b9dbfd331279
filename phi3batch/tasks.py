"""What is asked about each row of a table, and which custom_id each question has."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson
from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from phi3batch.mistakes import Mistake
from phi3batch.tables import TableRow
from schemas.requests import IDS, LONGEST_ID, URL_OF_TASK
from workers.rows.dialects import WrongRow, dialect_of, task_and_body
from workers.rows.templating import OnMissing, Template

METADATA_KEY: Final = "phi3batch"
RETRY_OF: Final = "retry_of"
_METADATA_CHARACTERS: Final = 512
_COLUMN: Final = re.compile(r"[^\s#](?:[^\n\r#]{0,62})")
_BRACES: Final = frozenset("{}")
_NO_ID: Final = f"its id is empty, or has more than {LONGEST_ID} characters"


@dataclass(frozen=True, slots=True)
class RowTask:
    """One question about each row: a template of its request, and the column of its answers."""

    column: str
    template: Mapping[str, Any]
    model: str | None = None


def prompt_task(prompt: str, column: str, system: str | None = None) -> RowTask:
    """A chat of one turn; `{name}` in it is the row's column."""
    turns = [{"role": "user", "content": prompt}]
    if system is not None:
        turns.insert(0, {"role": "system", "content": system})
    return RowTask(column, {"messages": turns})


def embedding_task(source: str, column: str) -> RowTask:
    """The embedding of a column. Raises Mistake where it cannot be named in a template."""
    if _BRACES.intersection(source):
        raise Mistake(f"the column {source!r} has a brace in its name: rename it")
    return RowTask(column, {"input": f"{{{source}}}"})


@dataclass(frozen=True, slots=True)
class Naming:
    """How rows and their answers find each other again.

    A row's id is what stands in `id_column`, or else in the first column of `custom_id`, `id`,
    `prompt_id` that the table has, or else the row's number from 1. Where a row has several tasks,
    the custom_id of each is the row's id, `#` and the column of its answers.

    `table` is the digest of the rows that are called by their numbers, which mean other rows in any
    other table. It is None where it is not known.
    """

    columns: tuple[str, ...]
    id_column: str | None = None
    table: str | None = None

    def id_of(self, number: int, row: Mapping[str, Any]) -> str | None:
        """A row's id; None where its column says nothing, or more than an id may have."""
        name = self._column_of(row)
        value = number if name is None else row.get(name)
        if value is None or value == "":
            return None
        row_id = value if isinstance(value, str) else orjson.dumps(value).decode()
        return row_id if max(map(len, self.custom_ids(row_id))) <= LONGEST_ID else None

    def is_by_number(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is called by its number."""
        return self._column_of(row) is None

    def _column_of(self, row: Mapping[str, Any]) -> str | None:
        return self.id_column or next((each for each in IDS if each in row), None)

    def custom_ids(self, row_id: str) -> Sequence[str]:
        """The custom_id of each task of a row, in the order of the columns."""
        if len(self.columns) == 1:
            return (row_id,)
        return [f"{row_id}#{column}" for column in self.columns]

    def place(self, line: int) -> dict[str, Any]:
        """Of which row a line was made, from 1; and of which column, where there are several."""
        row, at = divmod(line - 1, len(self.columns))
        return {"row": row + 1} | ({"column": self.columns[at]} if self.columns[1:] else {})

    def as_metadata(self) -> dict[str, str]:
        """What a batch is told of it, so that its results can be joined. Raises Mistake."""
        told = {"columns": self.columns, "id": self.id_column}
        if self.table is not None:
            told["table"] = self.table
        text = json.dumps(told, ensure_ascii=False)
        if len(text) > _METADATA_CHARACTERS:
            raise Mistake("too many tasks, or too long names for them: shorten what --as says")
        return {METADATA_KEY: text}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Naming | None":
        """What a batch was told; None where it was made without a table."""
        try:
            told = json.loads(metadata.get(METADATA_KEY, "null"))
            if told is None:
                return None
            return cls(tuple(map(str, told["columns"])), told["id"], told.get("table"))
        except (ValueError, TypeError, KeyError):
            return None


@dataclass(frozen=True, slots=True)
class NotAsked:
    """A task of a row that no request could be made of. `message` names both."""

    custom_id: str | None
    code: str
    message: str

    def as_line(self) -> bytes:
        """A line that is asked of nobody, so that its batch has a line of results for it too.

        It is a line of errors.jsonl that carries no request, which every service refuses.
        """
        named = {} if self.custom_id is None else {"custom_id": self.custom_id}
        told = {**named, "error": {"code": self.code, "message": self.message}, "request": None}
        return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)


class _Why(Struct):
    code: str
    message: str


class _NotAskedLine(Struct):
    error: _Why
    request: None
    custom_id: str | None = None


_not_asked_line = Decoder(_NotAskedLine).decode


def not_asked_in(line: str) -> NotAsked | None:
    """What stands in a line that `NotAsked.as_line` has made; None in any other."""
    try:
        found = _not_asked_line(line)
    except DecodeError:
        return None
    return NotAsked(found.custom_id, found.error.code, found.error.message)


@dataclass(slots=True)
class Asking:
    """Makes the lines of a batch file of the rows of a table."""

    tasks: Sequence[RowTask]
    naming: Naming
    max_line_bytes: int
    on_missing: OnMissing = "refuse"
    _templates: list[Template] = field(init=False)

    def __post_init__(self) -> None:
        names = self.naming.columns
        for name in names:
            if not _COLUMN.fullmatch(name):
                raise Mistake(f"--as {name!r}: 1 to 63 characters, without '#' and line breaks")
            if names.count(name) > 1:
                raise Mistake(f"two tasks write the column {name!r}: name them with --as")
        try:
            self._templates = [Template(each.template, self.on_missing) for each in self.tasks]
        except ValueError as error:
            raise Mistake(str(error)) from None

    @property
    def fields(self) -> list[str]:
        """What the tasks take of a row."""
        return [name for template in self._templates for name in template.fields]

    def lines(self, rows: Iterator[TableRow]) -> Iterator[bytes | NotAsked]:
        """A line for each task of each row, newline included, in order."""
        naming, number = self.naming, 0
        for row_number, row in enumerate(rows, 1):
            row_id = naming.id_of(row_number, row)
            ids = naming.custom_ids(row_id) if row_id else [None] * len(naming.columns)
            for at, custom_id in enumerate(ids):
                line, number = self._line(custom_id, row, at), number + 1
                yield line if isinstance(line, bytes) else self._placed(line, number)

    def _placed(self, task: NotAsked, number: int) -> NotAsked:
        where = ", ".join(f"{name} {each}" for name, each in self.naming.place(number).items())
        return replace(task, message=f"{where}: {task.message}")

    def _line(self, custom_id: str | None, row: TableRow, at: int) -> bytes | NotAsked:
        if custom_id is None:
            return NotAsked(None, "no_id", _NO_ID)
        try:
            filled, _ = self._templates[at].fill(row, self.max_line_bytes)
            task, body = task_and_body(filled, dialect_of(filled))
        except WrongRow as wrong:
            return NotAsked(custom_id, wrong.code, str(wrong))
        if (model := self.tasks[at].model) is not None:
            body = {"model": model, **body}
        request = {
            "custom_id": custom_id, "method": "POST", "url": URL_OF_TASK[task], "body": body
        }  # fmt: skip
        return orjson.dumps(request, option=orjson.OPT_APPEND_NEWLINE)
