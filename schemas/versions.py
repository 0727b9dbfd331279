"""Versions of stored documents and messages, and what becomes of what a version does not know.

Workers of two releases run side by side over the same documents. What one of them reads and writes
again keeps what it does not know: fields, and words where nothing hangs on them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.tenants import DEFAULT_TENANT

RELEASE: Final = "0.2.0"
"""Of the service; pyproject.toml says the same, and is not uploaded with it."""

SCHEMA_VERSION: Final = 1
NEWEST_VERSION: Final = 2
"""The newest that this version reads: 2 stands where 0.1.0 would not do what is said."""

# What 0.1.0 does as this version does. It knows `template`, but made requests of other rows only.
_DOORS_OF_1: Final = frozenset({"drop", "queue", "nightly"})
_OPTIONS_OF_1: Final = frozenset(
    {"model", "system_prompt", "completion_window", "on_invalid", "priority", "metadata"}
    | {"max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed"}
    | {"stop", "response_format", "dimensions", "parameters"}
)

Word = Annotated[str, Field(max_length=64)]
"""A word that a later version may say, beside those that this one knows."""


class Kept(BaseModel):
    """What is stored or passed on: fields that this version does not know stay in it."""

    model_config = ConfigDict(extra="allow", frozen=True)


def version_of(
    options: Mapping[str, Any] | None, tenant: str, door: str, *, limited: bool = False
) -> int:
    """The version of a job, its documents and messages: 1 where 0.1.0 would do the same.

    `limited` is what may be asked at some hours alone, or up to a cost that it does not name.
    """
    given = {name for name, value in (options or {}).items() if value is not None}
    known = given <= _OPTIONS_OF_1 and door in _DOORS_OF_1 and tenant == DEFAULT_TENANT
    return SCHEMA_VERSION if known and not limited else NEWEST_VERSION


def only_unknown(error: ValidationError) -> bool:
    """Whether all that is wrong with a document are words and options that came later."""
    mistakes = error.errors(include_input=False, include_url=False)
    return all(mistake["type"] in ("literal_error", "extra_forbidden") for mistake in mistakes)
