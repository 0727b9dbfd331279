"""What is stored and sent, as bytes and back: what a later version wrote is told apart here."""

from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from schemas.versions import NEWEST_VERSION, SCHEMA_VERSION, only_unknown
from workers.errors import NewerVersion, Unreadable

Document = TypeVar("Document", bound=BaseModel)


def dump(document: BaseModel) -> bytes:
    """A document as it is stored."""
    return orjson.dumps(document.model_dump(mode="json"))


def load(model: type[Document], data: bytes) -> Document:
    """A document as it was stored. Raises NewerVersion, and Unreadable for anything else."""
    try:
        raw = orjson.loads(data)
        version = check_version(model.__name__, raw)
        return model.model_validate(raw)
    except ValidationError as error:
        # Not chained: what is quoted may be a prompt of the options.
        if only_unknown(error):
            raise NewerVersion(model.__name__, version) from None
        raise _unreadable(model) from None
    except orjson.JSONDecodeError:
        raise _unreadable(model) from None


def check_version(what: str, raw: Any) -> object:
    """The schema version of a parsed document or message. Raises NewerVersion."""
    version: object = raw.get("schema_version", SCHEMA_VERSION) if isinstance(raw, dict) else 0
    if isinstance(version, int) and version > NEWEST_VERSION:
        raise NewerVersion(what, version)
    return version


def _unreadable(model: type[BaseModel]) -> Unreadable:
    return Unreadable(f"a {model.__name__} is not what this service writes")
