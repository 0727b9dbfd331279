"""The row template: how the fields of a data set's row become a request."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import orjson

from workers.rows.dialects import WrongRow

OnMissing = Literal["refuse", "empty"]

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
# An item has one name: with leading zeros a template would hold as many names of it as it likes.
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")

MOST_PLACES: Final = 1000
"""Places of a template that a row fills: what a row costs grows with them, not with its bytes."""

_Values = Mapping[str, Any]
_Fill = Callable[[_Values], Any]


class Template:
    """A template that is ready to be filled with the fields of rows.

    `{field}` in any string is the row's field, `{list.0}` and `{object.name}` what lies in one; a
    string that is nothing but `{field}` becomes the field's value with its type; `{{` and `}}` are
    braces. Raises ValueError where a brace is left alone, or fields stand in more than
    `most_places`; it names the place and quotes nothing, for a template holds prompts.
    """

    def __init__(
        self,
        template: Any,
        on_missing: OnMissing = "refuse",
        most_places: float = MOST_PLACES,
    ) -> None:
        self._on_missing = on_missing
        # How often each field stands inside a longer text, and how often alone in its string.
        self._in_text: dict[str, int] = {}
        self._alone: dict[str, int] = {}
        self._fill = self._compile(template, "template")
        self._names = tuple({**self._in_text, **self._alone})
        self._own_size = len(orjson.dumps(template))
        places = sum(self._in_text.values()) + sum(self._alone.values())
        if places > most_places:
            raise ValueError(
                f"template: fields stand in {places:,} places of it, {most_places:,} are the most: "
                "put them together in the file, into fields of their own"
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
        values = {name: self._value(row, name) for name in self._names}
        size = self._own_size
        for name, value in values.items():
            written = len(orjson.dumps(value))
            size += written * (self._in_text.get(name, 0) + self._alone.get(name, 0))
            # At once: many names may be of one large value, and writing it takes milliseconds.
            if size > most:
                raise WrongRow(
                    "request_too_large",
                    f"the template would make a request of more than {most:,} bytes of it, which "
                    "are the most: shorten the row, or use its fields less often",
                )
        return self._fill(values), size

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

    def _compile(self, template: Any, where: str) -> _Fill:
        if isinstance(template, str):
            return self._compile_text(template, where)
        if isinstance(template, list):
            items = [self._compile(item, f"{where}.{at}") for at, item in enumerate(template)]
            return lambda values: [item(values) for item in items]
        if isinstance(template, dict):
            fields = {
                name: self._compile(value, f"{where}.{name}") for name, value in template.items()
            }
            return lambda values: {name: value(values) for name, value in fields.items()}
        return lambda values: template

    def _compile_text(self, text: str, where: str) -> _Fill:
        parts = _parts(text, where)
        if len(parts) == 1 and isinstance(parts[0], tuple):
            (name,) = parts[0]
            self._alone[name] = self._alone.get(name, 0) + 1
            return lambda values: values[name]
        for part in parts:
            if isinstance(part, tuple):
                self._in_text[part[0]] = self._in_text.get(part[0], 0) + 1
        return lambda values: "".join(
            part if isinstance(part, str) else _as_text(values[part[0]]) for part in parts
        )


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


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
