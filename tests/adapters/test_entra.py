"""Tokens of Entra ID, verified against a directory of the test's own."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from schemas.access import ApiKey, Entra
from schemas.tenants import Tenant
from tests.doubles.service import bench
from workers.adapters import entra as adapter
from workers.adapters.entra import EntraTokens, connect_tokens
from workers.api.http import HttpCall
from workers.ports.errors import Unavailable

DIRECTORY = "11111111-2222-3333-4444-555555555555"


@dataclass
class Directory:
    """Signs tokens, and publishes the keys for it."""

    url: str = ""
    keys: dict[str, rsa.RSAPrivateKey] = field(default_factory=dict)
    asked: int = 0
    away: bool = False
    pieces: int = 1
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    """Its answers wait for this."""

    def __post_init__(self) -> None:
        self.held.set()

    def add(self, name: str) -> None:
        self.keys[name] = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def sign(self, key: str = "one", **claims: Any) -> str:
        now = int(time.time())
        usual = {"iss": f"{self.url}/{DIRECTORY}/v2.0", "aud": "api://us", "oid": "robot"}
        told = {**usual, "exp": now + 60, "nbf": now - 60, **claims}
        return jwt.encode(told, self.keys[key], algorithm="RS256", headers={"kid": key})

    async def published(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.reached.set()
        await self.held.wait()
        if self.away:
            return web.Response(status=503)
        keys: list[dict[str, Any]] = [
            {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": name, "use": "sig"}
            for name, key in self.keys.items()
        ]
        document = {"keys": [*keys, {"kty": "EC", "kid": "other"}]}
        return await self._in_pieces(request, json.dumps(document).encode())

    async def _in_pieces(self, request: web.Request, data: bytes) -> web.StreamResponse:
        """Each piece goes once the one before it is on its way, as of a long document."""
        response = web.StreamResponse()
        await response.prepare(request)
        size = -(-len(data) // self.pieces)
        for start in range(0, len(data), size):
            await response.write(data[start : start + size])
            await asyncio.sleep(0.01 if self.pieces > 1 else 0)
        await response.write_eof()
        return response


@pytest.fixture
async def directory() -> AsyncIterator[Directory]:
    made = Directory()
    made.add("one")
    application = web.Application()
    application.router.add_get(f"/{DIRECTORY}/discovery/v2.0/keys", made.published)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def trust(directory: Directory) -> Entra:
    return Entra(
        directory=DIRECTORY,
        audience="api://us",
        callers={"robot": "blue"},
        authority=directory.url,
    )


@asynccontextmanager
async def tokens_of(directory: Directory) -> AsyncIterator[EntraTokens]:
    async with connect_tokens(trust(directory)) as tokens:
        assert tokens is not None
        yield tokens


async def test_a_token_opens_the_doors_of_its_callers_tenant(directory: Directory) -> None:
    async with (
        tokens_of(directory) as tokens,
        bench(
            tenants={"default": Tenant(), "blue": Tenant()},
            entra=trust(directory),
            tokens=tokens,
        ) as service,
    ):
        service.elapsed = time.time() - service.clock()
        for claims, code in (({}, 200), ({"oid": "nobody"}, 401), ({"exp": 1}, 401)):
            headers = {"authorization": f"Bearer {directory.sign(**claims)}"}
            reply = await service.openai.answer(HttpCall("GET", "/v1/files", {}, headers))
            assert reply.code == code, claims


async def test_only_the_directorys_own_signatures_hold(directory: Directory) -> None:
    stranger = Directory(directory.url)
    stranger.add("one")
    public = directory.keys["one"].public_key()
    head = {"kid": "one"}
    async with tokens_of(directory) as tokens:
        good = directory.sign()
        assert (await tokens.claims(good) or {})["oid"] == "robot"
        header, body, signature = good.split(".")
        for forged in (
            stranger.sign(),
            jwt.encode({"oid": "robot"}, "", algorithm="none", headers=head),
            jwt.encode(
                {"oid": "robot"},
                str(public.public_numbers().n),
                algorithm="HS256",
                headers=head,
            ),
            jwt.encode({"oid": "robot"}, directory.keys["one"], algorithm="RS256"),
            jwt.encode({"oid": "robot"}, directory.keys["one"], algorithm="RS512", headers=head),
            f"{header}.{body}.{signature[:-8]}AAAAAAAA",
            f"{header}.{body}x.{signature}",
            "no.token.atall",
        ):
            assert await tokens.claims(forged) is None, forged


async def test_keys_are_read_once_and_again_for_a_new_one(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tokens_of(directory) as tokens:
        for _ in range(3):
            assert await tokens.claims(directory.sign())
        directory.add("two")
        assert await tokens.claims(directory.sign("two")) is None, "asked a moment ago"
        assert directory.asked == 1
        monkeypatch.setattr(adapter, "LEAST_SECONDS", 0.0)
        assert await tokens.claims(directory.sign("two"))
        assert directory.asked == 2


async def test_a_key_set_that_comes_in_pieces_is_read_whole(directory: Directory) -> None:
    directory.pieces = 4
    async with tokens_of(directory) as tokens:
        assert await tokens.claims(directory.sign())
        assert directory.asked == 1


async def test_a_key_set_without_an_end_is_not_read(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "_MOST_BYTES", 100)
    async with tokens_of(directory) as tokens:
        with pytest.raises(Unavailable):
            await tokens.claims(directory.sign())


async def test_who_asks_of_a_directory_that_is_away_asks_for_all(directory: Directory) -> None:
    """Whoever can write a token's head would else have each caller wait behind his readings."""
    directory.away = True
    async with tokens_of(directory) as tokens:
        asked = [tokens.claims(directory.sign()) for _ in range(5)]
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in told] == [Unavailable] * 5
        assert directory.asked == 1


async def test_a_known_key_does_not_wait_for_an_unknown_one(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "LEAST_SECONDS", 0.0)
    async with tokens_of(directory) as tokens:
        assert await tokens.claims(directory.sign())
        directory.held = asyncio.Event()
        directory.reached = asyncio.Event()
        other = Directory(directory.url)
        other.add("unknown")
        async with asyncio.TaskGroup() as group:
            stranger = group.create_task(tokens.claims(other.sign("unknown")))
            await directory.reached.wait()
            assert await tokens.claims(directory.sign()), "and the reading is under way"
            assert not stranger.done()
            directory.held.set()
        assert stranger.result() is None


async def test_a_directory_that_is_away_is_no_refusal(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.away = True
    monkeypatch.setattr(adapter, "AGAIN_SECONDS", 0.0)
    async with tokens_of(directory) as tokens:
        with pytest.raises(Unavailable):
            await tokens.claims(directory.sign())
        directory.away = False
        assert await tokens.claims(directory.sign())
        directory.away = True
        monkeypatch.setattr(adapter, "FRESH_SECONDS", 0.0)
        assert await tokens.claims(directory.sign()), "those of before are used"


async def test_a_key_is_tried_before_a_token_is(directory: Directory) -> None:
    key = directory.sign()
    known = ApiKey(name="odd", sha256=hashlib.sha256(key.encode()).hexdigest())
    async with bench(api_keys=(known,)) as service:
        headers = {"authorization": f"Bearer {key}"}
        reply = await service.openai.answer(HttpCall("GET", "/v1/files", {}, headers))
        assert (reply.code, directory.asked) == (200, 0)
