"""What is wrong with a value, in words for who wrote it: pydantic's are for who wrote the model."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

# By the types of https://docs.pydantic.dev/latest/errors/validation_errors/; others say it well.
_WORDS: Final[Mapping[str, str]] = {
    "bool_parsing": "has to be true or false",
    "bool_type": "has to be true or false",
    "dict_type": "has to be an object",
    "extra_forbidden": "is not known here",
    "finite_number": "has to be a finite number",
    "float_parsing": "has to be a number",
    "float_type": "has to be a number",
    "greater_than": "has to be greater than {gt}",
    "greater_than_equal": "has to be at least {ge}",
    "int_from_float": "has to be a whole number",
    "int_parsing": "has to be a whole number",
    "int_type": "has to be a whole number",
    "less_than": "has to be less than {lt}",
    "less_than_equal": "has to be at most {le}",
    "list_type": "has to be a list",
    "literal_error": "has to be {expected}",
    "missing": "is required",
    "model_type": "has to be an object",
    "string_pattern_mismatch": "does not have the form that it needs",
    "string_too_long": "has to have at most {max_length} characters",
    "string_too_short": "has to have at least {min_length} characters",
    "string_type": "has to be a text",
    "too_long": "has to have at most {max_length} entries",
    "too_short": "has to have at least {min_length} entries",
    "tuple_type": "has to be a list",
}

AMOUNT_FORM: Final = 'write an amount as text with a point, such as "0.52"'
_NAME: Final = "must be 1 to 63 letters, digits, '.', '_', '-', the first a letter or digit"
_TENANT: Final = (
    "must be 1 to 63 small letters and digits, with single hyphens between them, such as team-blue"
)
_CONTAINER: Final = (
    "must be the name of a container: 3 to 63 small letters and digits, with single hyphens "
    "between them"
)

FORMS: Final[Mapping[str, str]] = {
    "[key]": _TENANT,
    "after": "write the `last_id` of the answer before, as it is",
    "api_version": "must be a version as in the service's documentation, such as 2024-10-21",
    "authority": "must be an address such as https://login.microsoftonline.com",
    "callers": _TENANT,
    "currency": "write three capital letters, such as USD",
    "directory": "must be the id of an Entra tenant, 36 hexadecimal digits and hyphens",
    "files_container": _CONTAINER,
    "id": "must be an id as the service told it",
    "input": AMOUNT_FORM,
    "input_containers": _CONTAINER,
    "job": "must be the id of a job as the service told it",
    "key_setting": "must be the name of a setting (letters, digits, _), not the key itself",
    "md5": "must be 32 hexadecimal digits",
    "month": "write a year from 2000 to 2999 and a month from 01 to 12, as 2026-11",
    "name": _NAME,
    "nightly_container": _CONTAINER,
    "output": AMOUNT_FORM,
    "per_hour": AMOUNT_FORM,
    "results_container": _CONTAINER,
    "scope": "must be a scope of Entra ID, such as https://cognitiveservices.azure.com/.default",
    "sha256": "must be 64 hexadecimal digits, a to f in small letters",
    "state_container": _CONTAINER,
    "tenant": _TENANT,
}
"""What a text has to look like whose field has a pattern, for those who write no patterns."""


class WrongValue(NamedTuple):
    """Where a value stands, pydantic's type of the error, and what is wrong, unquoted."""

    loc: tuple[int | str, ...]
    kind: str
    words: str


def wrong_values(error: ValidationError) -> list[WrongValue]:
    """All that is wrong, in pydantic's order; the words are the predicate of a sentence."""
    return [
        WrongValue(each["loc"], each["type"], _words(each))
        for each in error.errors(include_input=False, include_url=False)
    ]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question for who wrote a name that is not known; nothing where none is like it."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f": did you mean {close[0]!r}?" if close else ""


def _words(error: Mapping[str, Any]) -> str:
    kind, limits = error["type"], error.get("ctx", {})
    if kind in ("string_too_short", "too_short") and limits.get("min_length") == 1:
        return "must not be empty"
    told = _form(error["loc"]) if kind == "string_pattern_mismatch" else None
    told = told or _WORDS.get(kind)
    if told is None:
        return str(error["msg"]).removeprefix("Value error, ")
    return told.format_map(limits)


def _form(loc: Sequence[Any]) -> str | None:
    """What the innermost field that has a pattern looks like; entries of its list or object do."""
    return next((FORMS[part] for part in reversed(loc) if part in FORMS), None)
