"""The rows that most files consist of, read as fast as a scan of a large file needs it.

msgspec reads and checks them in a sixth of the time that orjson and the models take. What it
accepts, `read_row` accepts as the same request; whatever else there is ends the run, for `read_row`
to judge.

What the job's options add is judged once: `read_row` reads a row that says nothing but the least
(`_SHAPES`). The models check each field by itself, and of fields that may stand in a usual row it
takes what the options give only where the row is silent. So a row that says more than the least,
and each of it rightly, is right with the same options as well.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

import orjson
from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder

from schemas.deployments import Task
from schemas.requests import LONGEST_ID
from workers.rows.dialects import WrongRow, custom_id_of, dialect_of
from workers.rows.lines import MAX_ADDED_BYTES
from workers.rows.reading import Request, RowRules, read_row, refuse_deep
from workers.rows.sizes import tells_prompt
from workers.rows.templating import Template

_LARGEST: Final = 2**53
_NOT_USUAL: Final = (DecodeError, ValueError, WrongRow)
# Reading a run holds the loop, for a few milliseconds: it ends after so many rows, and with a
# template after so many bytes, the fewer the more places it fills.
_MOST_ROWS: Final = 1000
_MADE_BYTES: Final = 128 * 1024

_Text = Annotated[str, Meta(min_length=1)]
# Of a number that is at least 1 and whole there is one way to write it.
_Id = (
    Annotated[str, Meta(min_length=1, max_length=LONGEST_ID)]
    | Annotated[int, Meta(ge=1, le=_LARGEST)]
)


class _WithIds(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    custom_id: _Id = ""
    id: _Id = ""
    prompt_id: _Id = ""


class _Said(_WithIds):
    """What every request may say. Within a body, an id is a parameter of which nobody knows."""

    model: _Text = ""
    max_tokens: Annotated[int, Meta(ge=1, le=_LARGEST)] = 0
    temperature: Annotated[float, Meta(ge=0, le=_LARGEST)] = 0.0

    @property
    def body(self) -> Self:
        return self


class _Turn(Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: _Text


class _Chat(_Said, kw_only=True):
    messages: Annotated[list[_Turn], Meta(min_length=1)]

    @staticmethod
    def texts(bodies: Iterable[Any]) -> list[str]:
        return [turn.content for body in bodies for turn in body.messages]


class _Prompt(_Said, kw_only=True):
    prompt: _Text

    @staticmethod
    def texts(bodies: Iterable[Any]) -> list[str]:
        return [body.prompt for body in bodies]


class _Embedding(_Said, kw_only=True):
    input: _Text

    @staticmethod
    def texts(bodies: Iterable[Any]) -> list[str]:
        return [body.input for body in bodies]


class _ChatRow(_WithIds, kw_only=True):
    url: Literal["/v1/chat/completions", "/chat/completions"]
    body: _Chat
    method: Literal["POST"] = "POST"


class _EmbeddingRow(_WithIds, kw_only=True):
    url: Literal["/v1/embeddings", "/embeddings"]
    body: _Embedding
    method: Literal["POST"] = "POST"


_Body = _Chat | _Prompt | _Embedding
_Row = _ChatRow | _EmbeddingRow | _Body
# Each shape with a field that it has in every row, and with the least that its rows say.
_SHAPES: Final[Sequence[tuple[type[_Row], bytes, bytes]]] = (
    (
        _ChatRow,
        b'"messages"',
        b'{"url":"/chat/completions","body":{"messages":[{"role":"user","content":"?"}]}}',
    ),
    (_Prompt, b'"prompt"', b'{"prompt":"?"}'),
    (_Chat, b'"messages"', b'{"messages":[{"role":"user","content":"?"}]}'),
    (_EmbeddingRow, b'"input"', b'{"url":"/embeddings","body":{"input":"?"}}'),
    (_Embedding, b'"input"', b'{"input":"?"}'),
)

Id = str | int
"""As a row gives it; empty where it gives none."""
AnswerWeight = Callable[[Task, Mapping[str, Any]], int]
_Decode = Callable[[bytes], _Row]
_Found = tuple[list[_Row], list[Id], list[int]]
"""Rows, the custom_ids that they give, and the bytes of what they ask for."""
_Rows = Callable[[Sequence[bytes]], _Found]


class Usual(NamedTuple):
    """What a scan keeps of usual rows of one task that follow each other, row by row."""

    task: Task
    custom_ids: Sequence[Id]
    models: Sequence[str | None]
    weights: Sequence[int]


class UsualRows:
    """Reads a job's usual rows. `answer_weight` is what a request weighs for its answer alone."""

    def __init__(self, rules: RowRules, answer_weight: AnswerWeight) -> None:
        self._kinds = () if rules.capped else tuple(_kinds(rules, answer_weight))

    def read(self, lines: Sequence[bytes], at: int) -> Usual | None:
        """The usual rows in lines that follow each other; None where the first of them is none."""
        line = lines[at]
        for kind in self._kinds:
            if kind.mark in line and (usual := kind.read(lines, at)):
                return usual
        return None


def _kinds(rules: RowRules, answer_weight: AnswerWeight) -> Iterator["_Kind"]:
    template, bare = rules.template, replace(rules, template=None)
    for shape, mark, line in _SHAPES:
        least, decode = read_row(1, line, bare), Decoder(shape).decode
        if not isinstance(least, Request) or tells_prompt(least.body):
            continue
        if rules.template_of(orjson.loads(line)) is None:
            yield _Kind(partial(_plain, decode, rules.added_bytes), least, answer_weight, mark)
        if template is not None and template.keys.issubset(shape.__struct_fields__):
            yield _Kind(partial(_filled, decode, template, rules), least, answer_weight)


class _Kind:
    """Usual rows of one shape, under the job's options. `mark` stands in each of their lines."""

    def __init__(
        self, rows: _Rows, least: Request, answer_weight: AnswerWeight, mark: bytes = b""
    ) -> None:
        self.mark = mark
        self._rows, self._least = rows, least
        self._answer_weight = answer_weight

    def read(self, lines: Sequence[bytes], at: int) -> Usual | None:
        """Those with which the lines begin."""
        rows, custom_ids, sizes = self._rows(lines[at : at + _MOST_ROWS])
        bodies = [row.body for row in rows]
        if not (count := _spoken(bodies)):
            return None
        del bodies[count:], custom_ids[count:], sizes[count:]
        answers = {most: self._weight(most) for most in {body.max_tokens for body in bodies}}
        if any(answers.values()):
            sizes = list(map(max, sizes, [answers[body.max_tokens] for body in bodies]))
        models = [body.model or self._least.model for body in bodies]
        return Usual(self._least.task, custom_ids, models, sizes)

    def _weight(self, max_tokens: int) -> int:
        """What the answer of a request weighs that says so, or where that is 0, says nothing."""
        said = {"max_tokens": max_tokens} if max_tokens else {}
        return self._answer_weight(self._least.task, {**self._least.body, **said})


def _plain(decode: _Decode, added: int, lines: Sequence[bytes]) -> _Found:
    """Rows that are asked as they stand in their lines."""
    rows = _decoded(decode, lines)
    # Of blanks, JSON has no others around it than a row may have.
    sizes = [len(line.strip()) + added for line in lines[: len(rows)]]
    return rows, [row.custom_id or row.id or row.prompt_id for row in rows], sizes


def _filled(decode: _Decode, template: Template, rules: RowRules, lines: Sequence[bytes]) -> _Found:
    """Rows that the template makes of lines."""
    columns, sizes = list[Id](), list[int]()
    rows = _decoded(decode, _made(template, rules, lines, columns, sizes))
    ids = [
        row.custom_id or row.id or row.prompt_id or column
        for row, column in zip(rows, columns, strict=False)
    ]
    return rows, ids, sizes


def _made(
    template: Template,
    rules: RowRules,
    lines: Iterable[bytes],
    columns: list[Id],
    sizes: list[int],
) -> Iterator[bytes]:
    """What it makes, as JSON; notes the id in a row's columns, and the bytes of the request."""
    room, most = _MADE_BYTES // (1 + template.places), rules.max_line_bytes + MAX_ADDED_BYTES
    for line in lines:
        row = orjson.loads(line)
        if type(row) is not dict or ("error" in row and dialect_of(row) == "error"):
            return
        refuse_deep(row, line)
        if rules.template_of(row) is None:
            return
        made, size = template.line(row, most)
        columns.append(custom_id_of(row, line) or "")
        sizes.append(size + rules.added_bytes)
        yield made
        room -= size
        if room < 0:
            return


def _decoded(decode: _Decode, lines: Iterable[bytes]) -> list[_Row]:
    """The rows of a shape with which lines begin."""
    rows = list[_Row]()
    note = rows.append
    try:
        for line in lines:
            note(decode(line))
    except _NOT_USUAL:
        return rows
    return rows


def _spoken(bodies: Sequence[_Body]) -> int:
    """How many of them come before the first that holds a text of nothing but blanks."""
    if not bodies or not any(map(str.isspace, bodies[0].texts(bodies))):
        return len(bodies)
    each = (any(map(str.isspace, body.texts([body]))) for body in bodies)
    return next(at for at, blank in enumerate(each) if blank)
