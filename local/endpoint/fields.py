"""Is a field of a request well-formed? Each reader returns its value or raises RequestError."""

from collections.abc import Mapping
from typing import Any

from .answers import count_tokens
from .contracts import RequestError, texts

MOST_INPUTS = 2048
"""Inputs that one embeddings call takes, as OpenAI and Azure OpenAI document it."""

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})

_RANGES: dict[str, tuple[float, float]] = {
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "temperature": (0, 2),
    "top_p": (0, 1),
}


def check_ranges(body: Mapping[str, Any]) -> None:
    """Refuse sampling parameters outside what every contract allows."""
    for name, (low, high) in _RANGES.items():
        value = body.get(name)
        if value is not None and not (_is_number(value) and low <= value <= high):
            raise RequestError("invalid_parameter", f"'{name}' must be {low} to {high}.", name)


def read_messages(messages: object, param: str) -> list[str]:
    """The text of each message, in order."""
    if not isinstance(messages, list) or not messages:
        raise RequestError("invalid_parameter", f"'{param}' must be a non-empty list.", param)
    contents = []
    for message in messages:
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in _ROLES:
            raise RequestError("invalid_parameter", f"'{param}' has an unknown role.", param)
        content = message.get("content")
        if content is None and not message.get("tool_calls"):
            raise RequestError("invalid_parameter", f"'{param}' has no content.", param)
        if not isinstance(content, str | list | None):
            raise RequestError("invalid_parameter", f"'{param}' has ill-typed content.", param)
        contents.append("\n".join(texts(content)))
    return contents


def read_inputs(given: object, param: str) -> list[str | list[int]]:
    """Texts or token ids, one or many of them, as a list."""
    if isinstance(given, str):
        inputs: list[Any] = [given]
    elif isinstance(given, list) and given and all(isinstance(i, int) for i in given):
        inputs = [given]
    elif isinstance(given, list):
        inputs = given
    else:
        inputs = []
    if not inputs or len(inputs) > MOST_INPUTS:
        message = f"'{param}' must be a text or a list of 1 to {MOST_INPUTS}."
        raise RequestError("invalid_parameter", message, param)
    for item in inputs:
        tokens = isinstance(item, list) and item and all(isinstance(i, int) for i in item)
        if not item or not (isinstance(item, str) or tokens):
            raise RequestError("invalid_parameter", f"'{param}' has an empty or bad item.", param)
    return inputs


def read_count(body: Mapping[str, Any], name: str, most: int = 2**31) -> int | None:
    """A whole number from 1 to `most`, or None where it is not said."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most:
        return value
    raise RequestError("invalid_parameter", f"'{name}' must be 1 to {most}.", name)


def read_text(body: Mapping[str, Any], name: str) -> str | None:
    """A string, or None where it is not said."""
    value = body.get(name)
    if value is None or isinstance(value, str):
        return value
    raise RequestError("invalid_parameter", f"'{name}' must be a string.", name)


def read_stop(value: object) -> tuple[str, ...]:
    """The stop sequences, given as one or as a list."""
    if value is None:
        return ()
    marks = [value] if isinstance(value, str) else value
    if not isinstance(marks, list) or not all(isinstance(mark, str) for mark in marks):
        raise RequestError(
            "invalid_parameter", "'stop' must be a string or a list of them.", "stop"
        )
    return tuple(marks)


def wants_json(response_format: object) -> bool:
    """Whether a response_format asks for JSON."""
    kind = response_format.get("type") if isinstance(response_format, dict) else response_format
    return kind in ("json_object", "json_schema")


def count_input(item: str | list[int]) -> int:
    """The tokens of one input: ids as they are, a text by estimate."""
    return count_tokens(item) if isinstance(item, str) else len(item)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
