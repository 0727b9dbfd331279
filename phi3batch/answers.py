"""The answers of a batch as columns of the table that it was made of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import orjson
from msgspec import Raw, Struct
from msgspec.json import Decoder

from phi3batch.mistakes import Mistake
from phi3batch.tables import Kind, Table, TableRow
from phi3batch.tasks import Naming, not_asked_in

NO_ID: Final = "no_id"
NO_ANSWER: Final = "no_answer"
"""What a row without any line in the results has in the place of an error's code."""


class Cell(NamedTuple):
    """What a row was answered: a text, the numbers of an embedding, whatever it was, or an error.

    An answer that says nothing is an empty text; `value` is None where `error` says why.
    """

    value: Any
    error: str | None = None


class _Error(Struct):
    code: str = "unknown"


class _Head(Struct):
    """What a line is read for to know whose it is."""

    custom_id: str | None = None
    error: _Error | None = None
    raw: str | None = None


class _AnswerBody(Struct):
    choices: list[Any] = []
    data: list[dict[str, Any]] = []


class _Response(Struct):
    body: Raw


class _Line(Struct):
    response: _Response


_head = Decoder(_Head).decode
_line = Decoder(_Line).decode
_body = Decoder(_AnswerBody).decode


def head_of(line: bytes) -> tuple[str | None, str | None]:
    """The custom_id of a line of results, and the code of its error."""
    head = _head(line)
    if head.error is None:
        return head.custom_id, None
    told = None if head.raw is None else not_asked_in(head.raw)
    return (head.custom_id, head.error.code) if told is None else (told.custom_id, told.code)


def is_not_asked(line: bytes) -> bool:
    """Whether a line of errors.jsonl is one that no request could be made of."""
    raw = _head(line).raw
    return raw is not None and not_asked_in(raw) is not None


def value_of(line: bytes) -> Any:
    """What a line of output.jsonl answers."""
    raw = bytes(_line(line).response.body)
    body = _body(raw)
    if body.choices:
        texts = [_text(choice) for choice in body.choices]
        return texts[0] if len(texts) == 1 else texts
    vectors = [each.get("embedding") for each in body.data]
    if vectors:
        return vectors[0] if len(vectors) == 1 else vectors
    return orjson.loads(raw)


def _text(choice: Mapping[str, Any]) -> Any:
    message = choice.get("message")
    if message is None:
        return choice.get("text") or ""
    content = message.get("content")
    called = message.get("tool_calls") or message.get("function_call")
    return called if called and not content else content or message.get("refusal") or ""


def kind_of(value: Any) -> Kind:
    """What a column has to hold for a value."""
    if isinstance(value, str):
        return "text"
    numbers = isinstance(value, list) and all(type(item) in (int, float) for item in value)
    return "vector" if numbers else "json"


class Answers(Protocol):
    """The results of a batch, by custom_id."""

    def answer(self, custom_id: str) -> Cell:
        """What was answered; an error where there is no answer."""


@dataclass(slots=True)
class Joined:
    """What came of a join: rows, and of them those whose every task was answered.

    `known` are those of which the results say anything.
    """

    rows: int = 0
    whole: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    known: int = 0


def added_columns(naming: Naming, kinds: Mapping[str, set[Kind]]) -> dict[str, Kind]:
    """The columns that are added: for each task its answers, and the codes of its errors.

    `kinds` are those of the answers of each column; where they differ, all are written as JSON.
    """
    added: dict[str, Kind] = {}
    for column in naming.columns:
        found = kinds.get(column) or {"text"}
        added[column] = next(iter(found)) if len(found) == 1 else "json"
        added[f"{column}_error"] = "text"
    return added


def refuse_taken(table: Table, added: Iterable[str], where: str = "") -> None:
    """Raise Mistake where a table has a column already that would be added.

    `where` says behind what another is named.
    """
    for name in added:
        if name in table.columns:
            told = f"{table.path} has a column {name!r} already: name another with --as{where}"
            raise Mistake(told)


def joined(
    rows: Iterator[TableRow], naming: Naming, answers: Answers, summary: Joined
) -> Iterator[list[Any]]:
    """The values to add to each row, in the table's order: answers, and codes of errors."""
    for number, row in enumerate(rows, 1):
        found = answers_to(number, row, naming, answers)
        summary.rows += 1
        summary.whole += all(each.error is None for each in found)
        summary.known += any(each.error not in (NO_ANSWER, NO_ID) for each in found)
        for each in found:
            if each.error is not None:
                summary.errors[each.error] = summary.errors.get(each.error, 0) + 1
        yield [value for each in found for value in each]


def answers_to(number: int, row: TableRow, naming: Naming, answers: Answers) -> Sequence[Cell]:
    """The answers to a row, in the order of its tasks."""
    row_id = naming.id_of(number, row)
    if row_id is None:
        return [Cell(None, NO_ID)] * len(naming.columns)
    return [answers.answer(custom_id) for custom_id in naming.custom_ids(row_id)]
