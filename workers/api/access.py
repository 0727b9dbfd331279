"""Who is calling? By the key or the token that a call carries; nothing else of it is trusted."""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from schemas.access import ApiKey, Entra
from workers.api.http import HttpRefusal

LEEWAY_SECONDS: Final = 60.0
"""By which the clock of who signs a token may be ahead."""
WRONG_KEY: Final = "invalid_api_key"
_BEARER: Final = "bearer "
_TOKEN: Final = re.compile(
    r"[A-Za-z0-9_-]{10,4096}\.[A-Za-z0-9_-]{10,12000}\.[A-Za-z0-9_-]{10,2048}"
)


class Caller(NamedTuple):
    """Who may do what belongs to one tenant. `name` is the key's, and no secret."""

    name: str
    tenant: str


def caller_of(headers: Mapping[str, str], keys: Sequence[ApiKey], now: float) -> Caller | None:
    """The caller whose key a request carries; None where it is none of these.

    Every entry is compared, in constant time, so that nothing is learned from how long it takes.
    """
    digests = [
        hashlib.sha256(each.encode("utf-8", "surrogatepass")).hexdigest()
        for each in _given(headers)
    ]
    found: ApiKey | None = None
    for key in keys:
        for digest in digests:
            same = hmac.compare_digest(digest, key.sha256)
            if same and (key.expires is None or now < key.expires.timestamp()):
                found = key
    return None if found is None else Caller(found.name, found.tenant)


def token_of(headers: Mapping[str, str]) -> str | None:
    """What looks like a signed token, for which a key is not to be taken."""
    return next((each for each in _given(headers) if _TOKEN.fullmatch(each)), None)


def caller_by(claims: Mapping[str, Any], entra: Entra, now: float) -> Caller | None:
    """The caller whom a token names, whose signature holds; None where it is not for us."""
    expires, begins = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(expires, int | float) or not isinstance(begins, int | float):
        return None
    if not begins - LEEWAY_SECONDS <= now < expires:
        return None
    if claims.get("iss") not in entra.issuers or claims.get("aud") != entra.audience:
        return None
    for name in ("oid", "appid", "azp"):
        caller = claims.get(name)
        if isinstance(caller, str) and caller in entra.callers:
            return Caller(caller, entra.callers[caller])
    return None


def refusal(headers: Mapping[str, str], *, closed: bool) -> HttpRefusal:
    """Why nobody is let in. `closed`: there is no key, nor anybody whose tokens are taken."""
    if closed:
        return HttpRefusal(
            401,
            "no_api_keys",
            "these doors are closed, for the setting API_KEYS holds no key: see docs/openai.md",
        )
    if not _given(headers):
        return HttpRefusal(
            401,
            "missing_api_key",
            "no API key was sent: send 'Authorization: Bearer KEY', or 'api-key: KEY'",
        )
    message = "the API key or token is not known, or has expired"
    return HttpRefusal(401, WRONG_KEY, message)


def _given(headers: Mapping[str, str]) -> list[str]:
    """What may be a key. Azure's clients send a placeholder in one header, the key in the other."""
    bearer = headers.get("authorization", "")
    given = [headers.get("api-key", "").strip()]
    if bearer[: len(_BEARER)].lower() == _BEARER:
        given.append(bearer[len(_BEARER) :].strip())
    return [each for each in given if each]
