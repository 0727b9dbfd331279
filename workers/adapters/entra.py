"""Tokens of Microsoft Entra ID: whether the directory has signed them.

https://learn.microsoft.com/entra/identity-platform/access-tokens#validate-the-signature
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import jwt

from schemas.access import Entra
from workers.errors import Unavailable

FRESH_SECONDS: Final = 86_400.0
"""After which keys are read again; the directory announces new ones days before it uses them."""
LEAST_SECONDS: Final = 300.0
"""Between two readings that tokens of unknown keys ask for, for anybody can make such a token."""
DEADLINE_SECONDS: Final = 10.0
_MOST_BYTES: Final = 1024 * 1024
# Nothing else: a token that says HS256 or none would be signed by whoever knows the public key.
_ALGORITHMS: Final = ["RS256"]

log = logging.getLogger(__name__)


@asynccontextmanager
async def connect_tokens(entra: Entra | None) -> AsyncIterator["EntraTokens | None"]:
    """What verifies a directory's tokens; None where no directory is trusted. No call is made."""
    if entra is None:
        yield None
        return
    timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield EntraTokens(http, entra.keys_url)


class EntraTokens:
    """See `workers.ports.SignedTokens`. The directory's keys are kept for a day."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    async def claims(self, token: str) -> Mapping[str, Any] | None:
        """What a token says, where one of the directory's keys has signed it."""
        try:
            named = jwt.get_unverified_header(token).get("kid")
        except jwt.InvalidTokenError:
            return None
        key = await self._key(named) if isinstance(named, str) else None
        if key is None:
            return None
        try:
            # For whom it is, and until when, is judged by the service's own clock and settings.
            options: Any = {"verify_aud": False, "verify_exp": False, "verify_nbf": False}
            found: Mapping[str, Any] = jwt.decode(
                token, key, algorithms=_ALGORITHMS, options=options | {"verify_iat": False}
            )
        except jwt.InvalidTokenError:
            return None
        return found

    async def _key(self, name: str) -> jwt.PyJWK | None:
        async with self._reading:
            age = None if self._read_at is None else time.monotonic() - self._read_at
            unknown = name not in self._keys
            if age is None or age > FRESH_SECONDS or (unknown and age > LEAST_SECONDS):
                await self._read()
        return self._keys.get(name)

    async def _read(self) -> None:
        try:
            async with self._http.get(self._url, allow_redirects=False) as answer:
                data = await answer.content.read(_MOST_BYTES)
                answer.raise_for_status()
            self._keys = _usable(json.loads(data))
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError) as error:
            if not self._keys:
                raise Unavailable("the keys of Entra ID could not be read") from error
            log.warning(
                "[ENTRA_KEYS_OLD] the keys of Entra ID could not be read: those of before are used"
            )
        self._read_at = time.monotonic()


def _usable(document: Mapping[str, Any]) -> Mapping[str, jwt.PyJWK]:
    """The RSA keys of a key set, by their names."""
    return {
        str(each["kid"]): jwt.PyJWK(each, algorithm="RS256")
        for each in document["keys"]
        if each.get("kty") == "RSA" and each.get("use", "sig") == "sig" and "kid" in each
    }
