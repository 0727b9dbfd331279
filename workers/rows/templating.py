"""The row template: how the fields of a data set's row become a request."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

Template = Callable[[Mapping[str, Any]], Any]


class FieldMissing(Exception):
    """A row lacks a field of the template; the argument is its name."""


def compile_template(template: Any, where: str = "template") -> Template:
    """A function that fills a row's fields into a template.

    `{field}` in any string is the row's field; a string that is nothing but `{field}` becomes the
    field's value with its type; `{{` and `}}` are braces. Raises ValueError where a brace is left
    alone; it names the place and quotes nothing, for a template holds prompts. The function raises
    FieldMissing.
    """
    if isinstance(template, str):
        return _compile_text(template, where)
    if isinstance(template, list):
        items = [compile_template(item, f"{where}.{at}") for at, item in enumerate(template)]
        return lambda row: [item(row) for item in items]
    if isinstance(template, dict):
        fields = {
            name: compile_template(value, f"{where}.{name}") for name, value in template.items()
        }
        return lambda row: {name: value(row) for name, value in fields.items()}
    return lambda row: template


def _compile_text(text: str, where: str) -> Template:
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
    parts = [part for part in parts if part != ""]
    if len(parts) == 1 and isinstance(parts[0], tuple):
        name = parts[0][0]
        return lambda row: _field(row, name)
    return lambda row: "".join(
        part if isinstance(part, str) else _as_text(_field(row, part[0])) for part in parts
    )


def _field(row: Mapping[str, Any], name: str) -> Any:
    try:
        return row[name]
    except KeyError:
        raise FieldMissing(name) from None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
