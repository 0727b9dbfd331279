"""Which task, body and custom_id a row in any dialect means, and whether the body is one."""

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import orjson
from msgspec import Raw, Struct
from msgspec.json import Decoder
from pydantic import ValidationError

from schemas.deployments import Task
from schemas.requests import (
    BODY_OF_TASK,
    IDS,
    LONGEST_ID,
    TASK_OF_URL,
    BatchRow,
    PromptRow,
    ScoringRow,
)
from schemas.wrong_values import wrong_values

Dialect = Literal["batch", "error", "messages", "prompt", "input", "scoring", "other"]

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_PLAIN = frozenset({"messages", "model", "max_tokens", "temperature"})
_NUMBERS = (int, float)
# What an assistant's turn may say in the place of a text.
_SAID_OTHERWISE = ("tool_calls", "function_call", "refusal", "audio")
# How pydantic names the forms of a union in the place of a mistake; people know only fields.
_FORM = re.compile(r"(constrained-)?str|list\[.*\]")


class WrongRow(Exception):
    """Why a row cannot be asked."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class _Written(Struct):
    """The ids of a row as its line has them: a parsed 7.0 or 1e3 is not what was written."""

    custom_id: Raw = Raw()
    id: Raw = Raw()
    prompt_id: Raw = Raw()


_written = Decoder(_Written).decode


def dialect_of(row: dict[str, Any]) -> Dialect:
    """Which dialect a parsed line is in, by its fields alone."""
    if isinstance(row.get("error"), dict) and ("request" in row or "raw" in row):
        return "error"
    if "url" in row or "body" in row:
        return "batch"
    if "input_data" in row:
        return "scoring"
    # ultrachat_200k and its like carry the prompt and a finished conversation: the prompt is asked.
    if "prompt" in row:
        return "prompt"
    if "messages" in row:
        return "messages"
    if "input" in row:
        return "input"
    return "other"


def is_request(row: dict[str, Any]) -> bool:
    """Whether a row is a request by itself, if a wrong one.

    A data set may have a column of the name of a request's field, with something else in it.
    """
    match dialect_of(row):
        case "batch":
            url = row.get("url")
            return isinstance(url, str) and (
                url in TASK_OF_URL or isinstance(row.get("body"), dict)
            )
        case "scoring":
            return isinstance(row["input_data"], dict)
        case "messages":
            turns = row["messages"]
            return isinstance(turns, list) and any(
                isinstance(t, dict) and "role" in t for t in turns
            )
        case "prompt":
            return isinstance(row["prompt"], str)
        case "input":
            return isinstance(row["input"], str | list)
        case dialect:
            return dialect == "error"


def task_and_body(row: dict[str, Any], dialect: Dialect) -> tuple[Task, dict[str, Any]]:
    """What a row asks for, its body in OpenAI's shape. Raises WrongRow."""
    return _batch(row) if dialect == "batch" else _bare(row, dialect)


def names_itself(row: Mapping[str, Any]) -> bool:
    """Whether a row gives any id."""
    return any(row.get(name) is not None for name in IDS)


def custom_id_of(row: Mapping[str, Any], line: bytes | None = None) -> str | None:
    """The id that a row gives itself; None where it gives none.

    That of a number is as `line` has it, or as JSON is written. Raises WrongRow for one that
    nobody could take.
    """
    for name in IDS:
        value = row.get(name)
        if value is None:
            continue
        if isinstance(value, int | float) and not isinstance(value, bool):
            written = orjson.dumps(value) if line is None else bytes(getattr(_written(line), name))
            value = written.decode()
        if not isinstance(value, str):
            raise WrongRow("invalid_row", f"{name} has to be a string or a number")
        if not 1 <= len(value) <= LONGEST_ID:
            raise WrongRow("invalid_row", f"{name} has to have 1 to {LONGEST_ID} characters")
        return value
    return None


def good_id_of(row: Mapping[str, Any], line: bytes | None = None) -> str | None:
    """The id that a row gives itself; None where it gives none, or none that is valid."""
    try:
        return custom_id_of(row, line)
    except WrongRow:
        return None


def told_apart(custom_id: str, line: int) -> str:
    """A custom_id for a row whose own stood in an earlier line."""
    mark = f"#{line}"
    return custom_id[: LONGEST_ID - len(mark)] + mark


def check_body(task: Task, body: Mapping[str, Any]) -> None:
    """Hold a body to its task's model; each part of it has to say something. Raises WrongRow."""
    _check(BODY_OF_TASK[task], body, "body")
    if task == "chat":
        for at, turn in enumerate(body["messages"]):
            if not (turn["role"] == "assistant" and any(map(turn.get, _SAID_OTHERWISE))):
                _refuse_blank(turn.get("content"), f"messages.{at}.content")
    elif task == "completions":
        _refuse_blank(body["prompt"], "prompt")
    elif task == "embeddings":
        _refuse_blank(body["input"], "input")


def _batch(row: dict[str, Any]) -> tuple[Task, dict[str, Any]]:
    url, body = row.get("url"), row.get("body")
    if type(url) is not str or type(body) is not dict:
        _check(BatchRow, row, "row")
        raise WrongRow("invalid_row", "url has to be a string, body an object")
    if row.get("method", "POST") != "POST":
        raise WrongRow("invalid_row", "method has to be POST")
    task = TASK_OF_URL.get(url)
    if task is None:
        known = ", ".join(TASK_OF_URL)
        raise WrongRow("unknown_url", f"unknown url, known are {known}")
    return task, body


def _bare(row: dict[str, Any], dialect: Dialect) -> tuple[Task, dict[str, Any]]:
    bare = {k: v for k, v in row.items() if k not in IDS}
    match dialect:
        case "scoring":
            _check(ScoringRow, row, "row")
            given = row["input_data"]
            parameters = dict(given.get("parameters") or {})
            if "max_new_tokens" in parameters:
                parameters.setdefault("max_tokens", parameters.pop("max_new_tokens"))
            named = {"model": row["model"]} if "model" in row else {}
            return "chat", {"messages": given["input_string"], **parameters, **named}
        case "prompt":
            _refuse_blank(row["prompt"], "prompt")
            _check(PromptRow, row, "row")
            bare.pop("messages", None)
            messages = [{"role": "user", "content": bare.pop("prompt")}]
            return "chat", {"messages": messages, **bare}
        case "messages":
            return "chat", bare
        case "input":
            images = isinstance(row["input"], list) and any(
                isinstance(item, dict) for item in row["input"]
            )
            return ("image-embeddings" if images else "embeddings"), bare
        case _:
            raise WrongRow("unknown_row", "not a request in any known dialect")


def plain_chat(body: Mapping[str, Any]) -> bool:
    """Whether a chat is of plain turns, as most are: pydantic takes 3 us to see it, this 0.5.

    What it accepts is a `ChatBody`; the rest is for the model to judge.
    """
    messages = body.get("messages")
    if not _PLAIN.issuperset(body) or type(messages) is not list or not messages:
        return False
    for turn in messages:
        if type(turn) is not dict or len(turn) != 2 or type(turn.get("content")) is not str:
            return False
        if not turn["content"] or turn["content"].isspace():
            return False
        role = turn.get("role")
        if type(role) is not str or role not in _ROLES:
            return False
    model, most = body.get("model", "?"), body.get("max_tokens", 1)
    if type(model) is not str or not model or type(most) is not int or most < 1:
        return False
    if "temperature" not in body:
        return True
    temperature = body["temperature"]
    return type(temperature) in _NUMBERS and 0 <= temperature < math.inf


def _refuse_blank(value: Any, where: str) -> None:
    if _is_blank(value):
        raise WrongRow("invalid_row", f"{where}: blank as a whole: it has to say something")


def _is_blank(value: Any) -> bool:
    """Whether a text, or all of a list of texts or text parts, holds nothing but blanks."""
    if isinstance(value, list):
        return all(map(_is_blank, value))
    if isinstance(value, dict):
        return value.get("type") == "text" and _is_blank(value.get("text"))
    return value is None or (isinstance(value, str) and not value.strip())


def _check(model: type[Any], value: Mapping[str, Any], what: str) -> None:
    if model.__pydantic_validator__.isinstance_python(value):
        return
    try:
        model.model_validate(value)
    except ValidationError as error:
        # Of the forms that a value may have, the one that it comes nearest to says what is wrong.
        found = wrong_values(error)
        first = min(found, key=lambda each: (each.kind.endswith("_type"), -len(each.loc)))
        names = [str(part) for part in first.loc if not _FORM.fullmatch(str(part))]
        where = ".".join(names) or what
        raise WrongRow("invalid_row", f"{where}: {first.words}") from None
