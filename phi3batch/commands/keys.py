"""`phi3batch keys new`: a key for the doors, and what the service is told of it."""

import hashlib
import secrets
import sys
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson
from pydantic import ValidationError

from phi3batch.mistakes import Mistake
from phi3batch.printing import print_json
from schemas.access import KEY_PREFIX, ApiKey
from schemas.wrong_values import wrong_values

_BYTES: Final = 32


def new_key() -> str:
    """256 bits of chance, behind what tells scanners of repositories that it is a key."""
    return f"{KEY_PREFIX}{secrets.token_urlsafe(_BYTES)}"


def entry_for(key: str, name: str, tenant: str, days: int | None) -> ApiKey:
    """The key as the setting `API_KEYS` knows it. Raises Mistake."""
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    digest = hashlib.sha256(key.encode()).hexdigest()
    try:
        return ApiKey(name=name, tenant=tenant, sha256=digest, expires=expires)
    except ValidationError as error:
        first = wrong_values(error)[0]
        raise Mistake(f"{first.loc[0]}: {first.words}") from None


def run(given: Namespace) -> int:
    """Print a new key, this once; the exit status is 0."""
    key = new_key()
    entry = entry_for(key, given.name, given.tenant, given.days).model_dump(
        mode="json", exclude_none=True
    )
    if given.json:
        print_json({"key": key, "entry": entry})
        return 0
    print(key)
    print(
        "the key is shown this once; add to the list in the setting API_KEYS:\n"
        f"{orjson.dumps(entry).decode()}",
        file=sys.stderr,
    )
    return 0
