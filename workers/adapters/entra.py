"""Tokens of Microsoft Entra ID: whether the directory has signed them.

https://learn.microsoft.com/entra/identity-platform/access-tokens#validate-the-signature
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import jwt

from schemas.access import Entra
from workers.ports.errors import Unavailable

FRESH_SECONDS: Final = 86_400.0
"""After which keys are read again; the directory announces new ones days before it uses them."""
LEAST_SECONDS: Final = 300.0
"""Between two readings that tokens of unknown keys ask for, for anybody can make such a token."""
AGAIN_SECONDS: Final = 5.0
"""Between two readings while no key is known, for anybody can make what looks like a token."""
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
        self._tried_at = -math.inf
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
        if self._wanting(name):
            async with self._reading:
                # Whoever has waited here has what was read, or has failed, for another.
                if self._wanting(name):
                    await self._read()
        if not self._keys:
            raise Unavailable("the keys of Entra ID could not be read")
        return self._keys.get(name)

    def _wanting(self, name: str) -> bool:
        """Whether the keys are to be read for a token that names this one."""
        age = time.monotonic() - self._tried_at
        least = LEAST_SECONDS if self._keys else AGAIN_SECONDS
        return age > FRESH_SECONDS or (name not in self._keys and age > least)

    async def _read(self) -> None:
        try:
            async with self._http.get(self._url, allow_redirects=False) as answer:
                answer.raise_for_status()
                self._keys = _usable(json.loads(await _body(answer)))
        except (aiohttp.ClientError, TimeoutError, ValueError, LookupError, TypeError) as error:
            kept = "those of before are used" if self._keys else "no token is taken"
            log.warning(
                "[ENTRA_KEYS_OLD] the keys of Entra ID could not be read (%s): %s",
                type(error).__name__,
                kept,
            )
        self._tried_at = time.monotonic()


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """All of an answer, which comes in pieces. Raises ValueError where it is too large."""
    data = bytearray()
    async for piece in answer.content.iter_any():
        data += piece
        if len(data) > _MOST_BYTES:
            raise ValueError("the key set is too large")
    return bytes(data)


def _usable(document: Mapping[str, Any]) -> Mapping[str, jwt.PyJWK]:
    """The RSA keys of a key set, by their names."""
    return {
        str(each["kid"]): jwt.PyJWK(each, algorithm="RS256")
        for each in document["keys"]
        if each.get("kty") == "RSA" and each.get("use", "sig") == "sig" and "kid" in each
    }
