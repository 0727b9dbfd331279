"""Which of several operations do a method and a path ask for, and is the query one it takes?"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.wrong_values import wrong_values
from workers.api.http import HttpCall, HttpRefusal

METADATA: Final = "metadata_"
"""What a metadata name begins with in a query, as in the properties of events."""

_NUMBER: Final = re.compile(r"-?[0-9]{1,9}")


class Operation(BaseModel):
    """What a call asks for. The fields are parts of the path, and parameters of the query."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unknown: ClassVar[tuple[str, str]] = ("unknown_job", "there is no such job")
    """Code and message where what the path names cannot be."""
    has_body: ClassVar[bool] = False
    """Whether what it asks for is in the body."""


class Route(NamedTuple):
    """A method and a path, and the operation that they ask for."""

    method: str
    path: re.Pattern[str]
    operation: type[Operation]


def routes(*entries: tuple[str, str, type[Operation]]) -> tuple[Route, ...]:
    """A table of routes; a part of a path in braces is anything but a slash."""
    return tuple(
        Route(method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), operation)
        for method, path, operation in entries
    )


def digits(value: object) -> object:
    """A number as it is written: int() takes spaces, and the digits of any script."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError("write a whole number")
    return value


def find(table: Sequence[Route], path: str, call: HttpCall, ignored: frozenset[str]) -> Operation:
    """The operation of a call at a path. Raises HttpRefusal with 404, 405 or 400.

    `ignored` are parameters of the query that mean nothing here.
    """
    found = [
        (route, match.groupdict())
        for route in table
        if (match := route.path.fullmatch(path.rstrip("/")))
    ]
    if not found:
        raise HttpRefusal(404, "unknown_url", f"there is no {call.path[:200]}: see docs/http.md")
    for route, parts in found:
        if route.method == call.method:
            for name in sorted(call.repeated - ignored):
                message = f"{name[:100]}: given more than once, and one value is taken"
                raise HttpRefusal(400, "invalid_value", message, param=name[:100])
            given = {name: text for name, text in call.query.items() if name not in ignored}
            return _read(route.operation, parts, given)
    allowed = ", ".join(sorted({route.method for route, _ in found}))
    raise HttpRefusal(
        405,
        "method_not_allowed",
        f"{call.path[:200]} takes {allowed}, not {call.method}",
        headers={"Allow": allowed},
    )


def _read(
    operation: type[Operation], parts: Mapping[str, str], query: Mapping[str, str]
) -> Operation:
    given: dict[str, Any] = dict(query)
    for name in parts.keys() & given.keys():
        raise _unknown_parameter(operation, name)
    metadata = {
        name.removeprefix(METADATA): given.pop(name)
        for name in list(given)
        if name.startswith(METADATA)
    }
    if metadata:
        given["metadata"] = metadata
    try:
        return operation.model_validate({**given, **parts})
    except ValidationError as error:
        raise _refused(operation, error) from None


def _refused(operation: type[Operation], error: ValidationError) -> HttpRefusal:
    first = wrong_values(error)[0]
    name = str(first.loc[0])
    if name == "id":
        code, message = operation.unknown
        return HttpRefusal(404, code, message, param="id")
    if first.kind == "extra_forbidden":
        return _unknown_parameter(operation, name)
    return HttpRefusal(400, "invalid_value", f"{name}: {first.words}", param=name)


def _unknown_parameter(operation: type[Operation], name: str) -> HttpRefusal:
    known = ", ".join(_parameters(operation)) or "none"
    message = f"{name[:100]!r} is no parameter of this operation; its parameters: {known}"
    return HttpRefusal(400, "unknown_parameter", message, param=name[:100])


def _parameters(operation: type[Operation]) -> list[str]:
    names = [name for name in operation.model_fields if name not in ("id", "action", "name")]
    return [f"{METADATA}{{name}}" if name == "metadata" else name for name in names]
