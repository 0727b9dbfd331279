"""The row template: how the fields of a data set's row become a request."""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import orjson

from workers.rows.dialects import WrongRow

OnMissing = Literal["refuse", "empty"]

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
# An item has one name: with leading zeros a template would hold as many names of it as it likes.
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")

MOST_PLACES: Final = 1000
"""Places of a template that a row fills: what a row costs grows with them, not with its bytes."""


class Template:
    """A template that is ready to be filled with the fields of rows.

    `{field}` in any string is the row's field, `{list.0}` and `{object.name}` what lies in one; a
    string that is nothing but `{field}` becomes the field's value with its type; `{{` and `}}` are
    braces. Raises ValueError where a brace is left alone, or fields stand in more than
    `most_places`; it names the place and quotes nothing, for a template holds prompts. `keys` are
    those of what it makes, `places` as many as fields stand in.
    """

    def __init__(
        self,
        template: Mapping[str, Any],
        on_missing: OnMissing = "refuse",
        most_places: float = MOST_PLACES,
    ) -> None:
        self._on_missing = on_missing
        self._own_size = len(orjson.dumps(template))
        # The template as JSON, in pieces: those that a field fills are empty. A field stands inside
        # longer texts, alone in its string, or in places of both kinds.
        self._pieces = [bytearray()]
        self._in_text: dict[str, list[int]] = {}
        self._alone: dict[str, list[int]] = {}
        self._write(template, "template")
        self._template = tuple(map(bytes, self._pieces))
        self._names = tuple({**self._in_text, **self._alone})
        self.keys = frozenset(template)
        self.places = len(self._pieces) // 2
        if self.places > most_places:
            raise ValueError(
                f"template: fields stand in {self.places:,} places of it, {most_places:,} are the "
                "most: put them together in the file, into fields of their own"
            )

    @property
    def fields(self) -> tuple[str, ...]:
        """What it takes of a row."""
        return self._names

    def fill(self, row: Mapping[str, Any], most: int) -> tuple[Any, int]:
        """What the template makes of a row, and its bytes as JSON (a few more at most).

        Raises WrongRow where a field cannot stand in its place, and where the result would have
        more than `most` bytes: before it is made, for a field that stands in a template a thousand
        times makes a thousandfold of a row.
        """
        written, size = self.line(row, most)
        return orjson.loads(written), size

    def line(self, row: Mapping[str, Any], most: int) -> tuple[bytes, int]:
        """The same, as JSON."""
        values = [self._value(row, name) for name in self._names]
        pieces, size = [*self._template], self._own_size
        for name, value in zip(self._names, values, strict=True):
            written, in_text = orjson.dumps(value), self._in_text.get(name, ())
            alone = self._alone.get(name, ())
            size += len(written) * (len(in_text) + len(alone))
            # At once: many names may be of one large value, and writing it takes milliseconds.
            if size > most:
                raise WrongRow(
                    "request_too_large",
                    f"the template would make a request of more than {most:,} bytes of it, which "
                    "are the most: shorten the row, or use its fields less often",
                )
            for at in alone:
                pieces[at] = written
            if in_text:
                text = written if isinstance(value, str) else orjson.dumps(written.decode())
                text = text[1:-1]
                for at in in_text:
                    pieces[at] = text
        return b"".join(pieces), size

    def _value(self, row: Mapping[str, Any], name: str) -> Any:
        value = _look_up(row, name)
        if value is None:
            if self._on_missing == "empty":
                return ""
            raise WrongRow(
                "template_field",
                f"the template's field {name!r} is null or missing: fill it, or set the option "
                "on_missing to empty",
            )
        if name in self._in_text and isinstance(value, list | dict):
            kind = "a list" if isinstance(value, list) else "an object"
            raise WrongRow(
                "template_field",
                f"the template's field {name!r} is {kind}, which cannot stand inside a text: "
                f"name what lies in it, such as {{{name}.{'0' if kind == 'a list' else 'name'}}}",
            )
        return value

    def _write(self, template: Any, where: str) -> None:
        if isinstance(template, str):
            self._write_text(template, where)
        elif isinstance(template, list):
            for at, item in enumerate(template):
                self._pieces[-1] += b"," if at else b"["
                self._write(item, f"{where}.{at}")
            self._pieces[-1] += b"]" if template else b"[]"
        elif isinstance(template, dict):
            for at, (name, value) in enumerate(template.items()):
                self._pieces[-1] += (b"," if at else b"{") + orjson.dumps(name) + b":"
                self._write(value, f"{where}.{name}")
            self._pieces[-1] += b"}" if template else b"{}"
        else:
            self._pieces[-1] += orjson.dumps(template)

    def _write_text(self, text: str, where: str) -> None:
        parts = _parts(text, where)
        if len(parts) == 1 and isinstance(parts[0], tuple):
            self._leave_place(parts[0][0], self._alone)
            return
        self._pieces[-1] += b'"'
        for part in parts:
            if isinstance(part, tuple):
                self._leave_place(part[0], self._in_text)
            else:
                self._pieces[-1] += orjson.dumps(part)[1:-1]
        self._pieces[-1] += b'"'

    def _leave_place(self, name: str, places: dict[str, list[int]]) -> None:
        places.setdefault(name, []).append(len(self._pieces))
        self._pieces += [bytearray(), bytearray()]


def _parts(text: str, where: str) -> list[str | tuple[str]]:
    """Texts, and the names of fields as tuples."""
    parts: list[str | tuple[str]] = []
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        if match[0] in ("{{", "}}"):
            parts.append(match[0][0])
        elif match[1]:
            parts.append((match[1],))
        else:
            place = f"{where}, character {match.start() + 1}"
            raise ValueError(f"{place}: {match[0]!r} names no field: write a brace twice")
    parts.append(text[end:])
    return [part for part in parts if part != ""]


def _look_up(row: Mapping[str, Any], name: str) -> Any:
    """A field, or what lies in one; None where there is none. A field's own name goes first."""
    if name in row:
        return row[name]
    found: Any = row
    for step in name.split("."):
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list) and _INDEX.fullmatch(step) and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found
