"""Who is calling? By the key that a call carries; nothing else of a call is trusted."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from schemas.access import ApiKey
from workers.api.http import HttpRefusal

_BEARER: Final = "bearer "


class Caller(NamedTuple):
    """Who may do what belongs to one tenant. `name` is the key's, and no secret."""

    name: str
    tenant: str


def caller_of(headers: Mapping[str, str], keys: Sequence[ApiKey], now: float) -> Caller:
    """The caller of a request. Raises HttpRefusal with 401.

    Every entry is compared, in constant time, so that nothing is learned from how long it takes.
    """
    if not keys:
        raise HttpRefusal(
            401,
            "no_api_keys",
            "these doors are closed, for the setting API_KEYS holds no key: see docs/openai.md",
        )
    given = _given(headers)
    if not given:
        raise HttpRefusal(
            401,
            "missing_api_key",
            "no API key was sent: send 'Authorization: Bearer KEY', or 'api-key: KEY'",
        )
    digests = [hashlib.sha256(each.encode("utf-8", "surrogatepass")).hexdigest() for each in given]
    found: ApiKey | None = None
    for key in keys:
        for digest in digests:
            same = hmac.compare_digest(digest, key.sha256)
            if same and (key.expires is None or now < key.expires.timestamp()):
                found = key
    if found is None:
        raise HttpRefusal(401, "invalid_api_key", "the API key is not known, or has expired")
    return Caller(found.name, found.tenant)


def _given(headers: Mapping[str, str]) -> list[str]:
    """What may be a key. Azure's clients send a placeholder in one header, the key in the other."""
    bearer = headers.get("authorization", "")
    given = [headers.get("api-key", "").strip()]
    if bearer[: len(_BEARER)].lower() == _BEARER:
        given.append(bearer[len(_BEARER) :].strip())
    return [each for each in given if each]
