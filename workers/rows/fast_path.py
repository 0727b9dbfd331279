"""The rows that most files consist of, read as fast as a scan of a large file needs it.

msgspec reads and checks them in a sixth of the time that orjson and the models take. What it
accepts, `read_row` accepts as the same request; whatever else there is ends the run, for `read_row`
to judge.

What the job's options add is judged once: `read_row` reads a row that says nothing but the least
(`SHAPES`). The models check each field by itself, and of fields that may stand in a usual row it
takes what the options give only where the row is silent. So a row that says more than the least,
and each of it rightly, is right with the same options as well.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any, Final, NamedTuple

import orjson
from msgspec import UNSET

from schemas.deployments import Task
from workers.rows.blocks import Block
from workers.rows.capped import UNBOUNDED
from workers.rows.dialects import WrongRow, custom_id_of, dialect_of
from workers.rows.lines import MAX_ADDED_BYTES
from workers.rows.most_tokens import most_tokens, says_again, text_tokens
from workers.rows.reading import Refusal, Request, RowRules, completed, read_row, refuse_deep
from workers.rows.shapes import LIMIT, SHAPES, UsualBody, UsualRow, decoder
from workers.rows.sizes import tells_prompt
from workers.rows.templating import Template

_NOT_USUAL: Final = (ValueError, RecursionError, WrongRow)
# Reading a run holds the loop, for a few milliseconds: it ends after so many rows, and with a
# template after so many bytes, the fewer the more places it fills.
_MOST_ROWS: Final = 1000
_MADE_BYTES: Final = 128 * 1024
# So many lines are read in one go: as many are read again where one of them is not usual.
_TOGETHER: Final = 64

Id = str | int
AnswerWeight = Callable[[Task, Mapping[str, Any]], int]
_Decode = Callable[[bytes], UsualRow]
Sizes = list[int] | int
"""How many bytes each has, or how many more than its line where that is the same for all."""
_Found = tuple[list[UsualRow], list[Id], Sizes]
"""Rows, the custom_ids that they give, and the sizes of what they ask for."""
_Told = tuple[Any, ...]
"""Values of the fields that an answer's length goes by."""
_Rows = Callable[[Block, int, int], _Found]


class Usual(NamedTuple):
    """What a scan keeps of usual rows of one task that follow each other, row by row.

    A custom_id is empty where a row gives none. `most` are the tokens that each may be billed for,
    in a job with a cap. `asked` tells what one of them asks for.
    """

    task: Task
    custom_ids: Sequence[str]
    models: Sequence[str | None]
    weights: Sizes
    most: Sequence[tuple[int, int]]
    asked: Callable[[int], Mapping[str, Any]]


class UsualRows:
    """Reads a job's usual rows. `answer_weight` is what a request weighs for its answer alone."""

    def __init__(self, rules: RowRules, answer_weight: AnswerWeight) -> None:
        self._kinds = tuple(_kinds(rules, answer_weight))

    def read(self, block: Block, at: int) -> Usual | None:
        """The usual rows in the lines from one on; None where the first of them is none."""
        line = block.line(at)
        for kind in self._kinds:
            if kind.mark in line and (usual := kind.read(block, at)):
                return usual
        return None


def _kinds(rules: RowRules, answer_weight: AnswerWeight) -> Iterator["_Kind"]:
    template, bare = rules.template, replace(rules, template=None)
    for shape, mark, line in SHAPES:
        least = read_row(1, line % b"", bare)
        if isinstance(least, Refusal) and least.code == UNBOUNDED:
            least = read_row(1, line % LIMIT, bare)
        if not isinstance(least, Request) or tells_prompt(least.body):
            continue
        if rules.capped and says_again(least.body):
            continue
        if rules.template_of(orjson.loads(line % b"")) is None:
            plain = _Plain(shape, rules.added_bytes)
            yield _Kind(plain.read, least, rules, answer_weight, mark)
        if template is not None and template.keys.issubset(shape.__struct_fields__):
            filled = _Filled(shape, template, rules)
            yield _Kind(filled.read, least, rules, answer_weight)


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
        self._weighs = answer_weight(least.task, {**least.body, "max_tokens": 1}) > 0
        self._window = _MOST_ROWS

    def read(self, block: Block, at: int) -> Usual | None:
        """Those with which the lines from one on begin."""
        rows, ids, sizes = self._rows(block, at, min(at + self._window, len(block)))
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
        del ids[count:]
        if not isinstance(sizes, int):
            del sizes[count:]
        if self._weighs or bodies[0].weighing(bodies):
            if isinstance(sizes, int):
                sizes = block.lengths(at, at + count, sizes)
            sizes = list(map(max, sizes, self._weights(bodies)))
        models = [body.model or self._least.model for body in bodies]
        asked = partial(self._asked, bodies)
        return Usual(self._least.task, _texts(ids), models, sizes, most, asked)

    def _asked(self, bodies: Sequence[UsualBody], at: int) -> Mapping[str, Any]:
        return completed(self._least.task, bodies[at].asked(), self._rules)

    def _most(self, bodies: Sequence[UsualBody]) -> Iterator[tuple[int, int]]:
        """The tokens of those that come before the first whose answer has no limit.

        What is not in the texts goes by the options and by what an answer's length goes by.
        """
        task, known = self._least.task, dict[_Told, tuple[int, int]]()
        for at, told in enumerate(_told(bodies)):
            asked = self._asked(bodies, at)
            text = text_tokens(asked)
            if told not in known:
                most = most_tokens(task, asked)
                if most is None:
                    return
                known[told] = most[0] - text, most[1]
            other, answer = known[told]
            yield text + other, answer

    def _weights(self, bodies: Sequence[UsualBody]) -> Iterator[int]:
        """What their answers weigh."""
        told, names = _told(bodies), bodies[0].sizing
        weights = {each: self._weight(zip(names, each, strict=True)) for each in set(told)}
        return map(weights.__getitem__, told)

    def _weight(self, told: Iterable[tuple[str, Any]]) -> int:
        said = {name: value for name, value in told if value is not UNSET}
        return self._answer_weight(self._least.task, {**self._least.body, **said})


def _told(bodies: Sequence[UsualBody]) -> list[_Told]:
    """What each says of its answer's length."""
    return list(map(attrgetter(*bodies[0].sizing), bodies)) if bodies else []


def _texts(ids: list[Any]) -> list[str]:
    """Ids as rows have them; few files have numbers among them."""
    try:
        "".join(ids)
    except TypeError:
        return list(map(str, ids))
    return ids


class _Plain:
    """Reads rows of a shape that are asked as they stand in their lines.

    It reads many lines at a time, as long as all of them are such rows.
    """

    def __init__(self, shape: type[UsualRow], added: int) -> None:
        self._decoder, self._added = decoder(shape), added
        self._together = True

    def read(self, block: Block, first: int, end: int) -> _Found:
        """Those with which some lines begin."""
        rows: list[UsualRow] = []
        if self._together and block.blanks is not None:
            rows += chain.from_iterable(self._whole(block, first, end))
        at = first + len(rows)
        if at < end:
            rows += _decoded(self._decoder.decode, block.lines(at, end))
            at = first + len(rows)
        self._together = at == end
        sizes: Sizes = self._added - (block.blanks or 0)
        if block.blanks is None:
            # Of blanks, JSON has no others around it than a row may have.
            sizes = [len(line.strip()) + self._added for line in block.lines(first, at)]
        return rows, [row.custom_id or row.id or row.prompt_id for row in rows], sizes

    def _whole(self, block: Block, first: int, end: int) -> Iterator[list[UsualRow]]:
        """Those of many lines at a time, up to some that are not all such rows.

        msgspec asks for no newline between two of them, and passes over one in the middle of a row.
        But within a row none can stand between } and {. So each of these lines has one at least,
        and exactly one where there are as many as lines.
        """
        for at in range(first, end, _TOGETHER):
            behind = min(at + _TOGETHER, end)
            try:
                rows = self._decoder.decode_lines(block.whole(at, behind))
            except _NOT_USUAL:
                return
            if len(rows) != behind - at:
                return
            yield rows


class _Filled:
    """Reads rows of a shape that the template makes of lines."""

    def __init__(self, shape: type[UsualRow], template: Template, rules: RowRules) -> None:
        self._decode, self._template, self._rules = decoder(shape).decode, template, rules

    def read(self, block: Block, first: int, end: int) -> _Found:
        """Those with which some lines begin."""
        columns, sizes = list[Id](), list[int]()
        lines = block.lines(first, end)
        rows = _decoded(self._decode, _made(self._template, self._rules, lines, columns, sizes))
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


def _decoded(decode: _Decode, lines: Iterable[bytes]) -> list[UsualRow]:
    """The rows of a shape with which lines begin."""
    rows = list[UsualRow]()
    try:
        rows.extend(map(decode, lines))
    except _NOT_USUAL:
        return rows
    return rows


def _spoken(bodies: Sequence[UsualBody]) -> int:
    """How many of them come before the first that holds a text of nothing but blanks."""
    blank = bodies[0].blank(bodies)
    return bodies.index(blank[0]) if blank else len(bodies)
