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
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

import orjson
from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder

from schemas.deployments import Task
from schemas.requests import LONGEST_ID
from workers.rows.capped import UNBOUNDED
from workers.rows.dialects import WrongRow, custom_id_of, dialect_of
from workers.rows.lines import MAX_ADDED_BYTES
from workers.rows.most_tokens import most_tokens, says_again, text_tokens
from workers.rows.reading import Refusal, Request, RowRules, completed, read_row, refuse_deep
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


class _Body(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    model: _Text = ""

    @staticmethod
    def bodies(rows: list[Any]) -> list[Any]:
        return rows

    def asked(self) -> dict[str, Any]:
        """The body that `read_row` makes of it, but for what the job's options add."""
        return {"model": self.model} if self.model else {}


class _Generation(_Body):
    """Defaults that no row may give stand for what a row does not say."""

    max_tokens: Annotated[int, Meta(ge=1, le=_LARGEST)] = 0
    temperature: (
        Annotated[int, Meta(ge=0, le=_LARGEST)] | Annotated[float, Meta(ge=0, le=_LARGEST)]
    ) = -1

    def asked(self) -> dict[str, Any]:
        asked: dict[str, Any] = {"model": self.model} if self.model else {}
        if self.max_tokens:
            asked["max_tokens"] = self.max_tokens
        if self.temperature >= 0:
            asked["temperature"] = self.temperature
        return asked


class _Turn(Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: _Text


class _Chat(_Generation, kw_only=True):
    messages: Annotated[list[_Turn], Meta(min_length=1)]

    def asked(self) -> dict[str, Any]:
        turns = [{"role": turn.role, "content": turn.content} for turn in self.messages]
        return {"messages": turns, **_Generation.asked(self)}

    @staticmethod
    def texts(bodies: Iterable[Any]) -> list[str]:
        return [turn.content for body in bodies for turn in body.messages]


class _Prompt(_Generation, kw_only=True):
    prompt: _Text
    custom_id: _Id = ""
    id: _Id = ""
    prompt_id: _Id = ""

    def asked(self) -> dict[str, Any]:
        turn = {"role": "user", "content": self.prompt}
        return {"messages": [turn], **_Generation.asked(self)}

    @staticmethod
    def texts(bodies: Iterable[Any]) -> list[str]:
        return [body.prompt for body in bodies]


class _Embedding(_Body, kw_only=True):
    input: _Text
    max_tokens: ClassVar[int] = 0

    def asked(self) -> dict[str, Any]:
        return {"input": self.input, **_Body.asked(self)}

    @staticmethod
    def texts(bodies: Iterable[Any]) -> list[str]:
        return [body.input for body in bodies]


class _BareChat(_Chat, kw_only=True):
    custom_id: _Id = ""
    id: _Id = ""
    prompt_id: _Id = ""


class _BareEmbedding(_Embedding, kw_only=True):
    custom_id: _Id = ""
    id: _Id = ""
    prompt_id: _Id = ""


class _BatchRow(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    custom_id: _Id = ""
    id: _Id = ""
    prompt_id: _Id = ""
    method: Literal["POST"] = "POST"

    @staticmethod
    def bodies(rows: list[Any]) -> list[Any]:
        return [row.body for row in rows]


class _ChatRow(_BatchRow, kw_only=True):
    url: Literal["/v1/chat/completions", "/chat/completions"]
    body: _Chat


class _EmbeddingRow(_BatchRow, kw_only=True):
    url: Literal["/v1/embeddings", "/embeddings"]
    body: _Embedding


_AnyBody = _Chat | _Prompt | _Embedding
_Row = _ChatRow | _EmbeddingRow | _BareChat | _Prompt | _BareEmbedding
# Each shape with a field that it has in every row, and with the least that its rows say, beside
# what a job with a cap may want to have said.
_SHAPES: Final[Sequence[tuple[type[_Row], bytes, bytes]]] = (
    (
        _ChatRow,
        b'"messages"',
        b'{"url":"/chat/completions","body":{%b"messages":[{"role":"user","content":"?"}]}}',
    ),
    (_Prompt, b'"prompt"', b'{%b"prompt":"?"}'),
    (_BareChat, b'"messages"', b'{%b"messages":[{"role":"user","content":"?"}]}'),
    (_EmbeddingRow, b'"input"', b'{"url":"/embeddings","body":{%b"input":"?"}}'),
    (_BareEmbedding, b'"input"', b'{%b"input":"?"}'),
)
_LIMIT: Final = b'"max_tokens":1,'

Id = str | int
AnswerWeight = Callable[[Task, Mapping[str, Any]], int]
_Decode = Callable[[bytes], _Row]
_Found = tuple[list[_Row], list[Id], list[int]]
"""Rows, the custom_ids that they give, and the bytes of what they ask for."""
_Rows = Callable[[Sequence[bytes]], _Found]


class Usual(NamedTuple):
    """What a scan keeps of usual rows of one task that follow each other, row by row.

    A custom_id is empty where a row gives none. `most` are the tokens that each may be billed for,
    in a job with a cap.
    """

    task: Task
    custom_ids: Sequence[str]
    models: Sequence[str | None]
    weights: Sequence[int]
    most: Sequence[tuple[int, int]]


class UsualRows:
    """Reads a job's usual rows. `answer_weight` is what a request weighs for its answer alone."""

    def __init__(self, rules: RowRules, answer_weight: AnswerWeight) -> None:
        self._kinds = tuple(_kinds(rules, answer_weight))

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
        least, decode = read_row(1, line % b"", bare), Decoder(shape).decode
        if isinstance(least, Refusal) and least.code == UNBOUNDED:
            least = read_row(1, line % _LIMIT, bare)
        if not isinstance(least, Request) or tells_prompt(least.body):
            continue
        if rules.capped and says_again(least.body):
            continue
        if rules.template_of(orjson.loads(line % b"")) is None:
            plain = partial(_plain, decode, rules.added_bytes)
            yield _Kind(plain, least, rules, answer_weight, mark)
        if template is not None and template.keys.issubset(shape.__struct_fields__):
            filled = partial(_filled, decode, template, rules)
            yield _Kind(filled, least, rules, answer_weight)


class _Kind:
    """Usual rows of one shape, under the job's options. `mark` stands in each of their lines."""

    def __init__(
        self,
        rows: _Rows,
        least: Request,
        rules: RowRules,
        answer_weight: AnswerWeight,
        mark: bytes = b"",
    ) -> None:
        self.mark = mark
        self._rows, self._least, self._rules = rows, least, rules
        self._answer_weight = answer_weight
        # An answer of one token weighs nothing where no answer does.
        self._weighs = self._weight(1) > 0
        self._window = _MOST_ROWS

    def read(self, lines: Sequence[bytes], at: int) -> Usual | None:
        """Those with which the lines begin."""
        rows, ids, sizes = self._rows(lines[at : at + self._window])
        if not rows:
            return None
        read, bodies, most = len(rows), rows[0].bodies(rows), list[tuple[int, int]]()
        del bodies[_spoken(bodies) :]
        if self._rules.capped:
            most += self._most(bodies)
            del bodies[len(most) :]
        count = len(bodies)
        # What is behind the end of a run was read in vain: little is, where runs are short.
        self._window = 1 if count < read else min(2 * self._window, _MOST_ROWS)
        if not count:
            return None
        del ids[count:], sizes[count:]
        if self._weighs:
            answers = {most: self._weight(most) for most in {body.max_tokens for body in bodies}}
            sizes = list(map(max, sizes, [answers[body.max_tokens] for body in bodies]))
        models = [body.model or self._least.model for body in bodies]
        return Usual(self._least.task, _texts(ids), models, sizes, most)

    def _most(self, bodies: Iterable[_AnyBody]) -> Iterator[tuple[int, int]]:
        """The tokens of those that come before the first whose answer has no limit.

        What is not in the texts goes by the options and by `max_tokens`.
        """
        task, known = self._least.task, dict[int, tuple[int, int]]()
        for body in bodies:
            asked = completed(task, body.asked(), self._rules)
            text, limit = text_tokens(asked), body.max_tokens
            if limit not in known:
                most = most_tokens(task, asked)
                if most is None:
                    return
                known[limit] = most[0] - text, most[1]
            other, answer = known[limit]
            yield text + other, answer

    def _weight(self, max_tokens: int) -> int:
        """What the answer of a request weighs that says so, or where that is 0, says nothing."""
        said = {"max_tokens": max_tokens} if max_tokens else {}
        return self._answer_weight(self._least.task, {**self._least.body, **said})


def _texts(ids: list[Any]) -> list[str]:
    """Ids as rows have them; few files have numbers among them."""
    return ids if int not in set(map(type, ids)) else list(map(str, ids))


def _plain(decode: _Decode, added: int, lines: Sequence[bytes]) -> _Found:
    """Rows that are asked as they stand in their lines."""
    rows = _decoded(decode, lines)
    # Of blanks, JSON has no others around it than a row may have.
    sizes = list(map(len, map(bytes.strip, lines[: len(rows)])))
    if added:
        sizes = [size + added for size in sizes]
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
    try:
        rows.extend(map(decode, lines))
    except _NOT_USUAL:
        return rows
    return rows


def _spoken(bodies: Sequence[_AnyBody]) -> int:
    """How many of them come before the first that holds a text of nothing but blanks."""
    if not any(map(str.isspace, bodies[0].texts(bodies))):
        return len(bodies)
    each = (any(map(str.isspace, body.texts([body]))) for body in bodies)
    return next(at for at, blank in enumerate(each) if blank)
