"""Who is let in at the doors under /v1."""

import hashlib
import json

import pytest

from schemas.access import ApiKey, parse_api_keys, parse_entra
from tests.doubles.service import EPOCH, bench
from workers.api.access import caller_by, caller_of, refusal, token_of
from workers.api.http import HttpCall


def key(name: str, secret: str, **fields: str) -> dict[str, str]:
    return {"name": name, "sha256": hashlib.sha256(secret.encode()).hexdigest(), **fields}


KEYS = parse_api_keys(
    json.dumps(
        [
            key("app", "old"),
            key("app-2", "new", expires="2027-01-15T08:00:01Z"),
            key("blue", "blue", tenant="blue"),
            key("gone", "gone", expires="2020-01-01T00:00:00+02:00"),
        ]
    )
)


@pytest.mark.parametrize(
    ("headers", "name", "tenant"),
    [
        ({"authorization": "Bearer old"}, "app", "default"),
        ({"authorization": "bearer  new "}, "app-2", "default"),
        ({"api-key": "blue"}, "blue", "blue"),
        # Azure's client of 2024 sends a placeholder beside its token, and the other way round.
        ({"api-key": "<missing API key>", "authorization": "Bearer new"}, "app-2", "default"),
    ],
)
def test_a_key_is_known_by_its_hash(headers: dict[str, str], name: str, tenant: str) -> None:
    assert caller_of(headers, KEYS, EPOCH) == (name, tenant)


@pytest.mark.parametrize(
    ("headers", "keys", "now", "code"),
    [
        ({"authorization": "Bearer old"}, (), EPOCH, "no_api_keys"),
        ({}, KEYS, EPOCH, "missing_api_key"),
        ({"authorization": "Basic old"}, KEYS, EPOCH, "missing_api_key"),
        ({"authorization": "Bearer other"}, KEYS, EPOCH, "invalid_api_key"),
        ({"authorization": "Bearer gone"}, KEYS, EPOCH, "invalid_api_key"),
        ({"authorization": "Bearer new"}, KEYS, EPOCH + 2.0, "invalid_api_key"),
        ({"authorization": "Bearer \udce9"}, KEYS, EPOCH, "invalid_api_key"),
        ({"x-functions-key": "old"}, KEYS, EPOCH, "missing_api_key"),
    ],
)
def test_nobody_else_is_let_in(
    headers: dict[str, str], keys: tuple[ApiKey, ...], now: float, code: str
) -> None:
    assert caller_of(headers, keys, now) is None
    refused = refusal(headers, closed=not keys)
    assert (refused.status, refused.code) == (401, code)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "API_KEYS is not JSON"),
        ("{}", "API_KEYS: "),
        ('[{"name": "a"}]', "API_KEYS[0], field 'sha256': "),
        ('[{"name": "a", "sha256": "the-key-itself"}]', "API_KEYS[0], field 'sha256': "),
        (json.dumps([key("a", "x", tenant="B!")]), "API_KEYS[0], field 'tenant': "),
        (json.dumps([key("a", "x", expires="2027-01-01T00:00:00")]), "field 'expires': "),
        (json.dumps([key("a", "x"), key("a", "y")]), "API_KEYS[1]: another key is named 'a'"),
    ],
)
def test_a_mistake_in_the_setting_is_told_without_the_key(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_api_keys(text)
    assert said in str(caught.value)
    assert "the-key-itself" not in str(caught.value)


DIRECTORY = "11111111-2222-3333-4444-555555555555"
ENTRA = parse_entra(
    json.dumps({"directory": DIRECTORY, "audience": "api://us", "callers": {"robot": "blue"}})
)
CLAIMS = {
    "iss": f"https://login.microsoftonline.com/{DIRECTORY}/v2.0",
    "aud": "api://us",
    "exp": EPOCH + 60,
    "nbf": EPOCH - 60,
    "oid": "robot",
}


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"oid": "nobody", "azp": "robot"},
        {"oid": "nobody", "appid": "robot", "iss": f"https://sts.windows.net/{DIRECTORY}/"},
        {"nbf": EPOCH + 59},
    ],
)
def test_a_token_names_its_caller(claims: dict[str, object]) -> None:
    assert ENTRA is not None
    assert caller_by(CLAIMS | claims, ENTRA, EPOCH) == ("robot", "blue")


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": EPOCH},
        {"exp": None},
        {"exp": "never"},
        {"nbf": EPOCH + 61},
        {"aud": "api://others"},
        {"aud": ["api://us"]},
        {"iss": "https://login.microsoftonline.com/common/v2.0"},
        {"oid": "somebody"},
        {"oid": ["robot"]},
    ],
)
def test_a_token_for_others_names_nobody(claims: dict[str, object]) -> None:
    assert ENTRA is not None
    assert caller_by(CLAIMS | claims, ENTRA, EPOCH) is None


def test_what_looks_like_a_token_is_one() -> None:
    token = ".".join(("eyJhbGciOi", "eyJhbGciOiJ", "signature-_1"))
    assert token_of({"authorization": f"Bearer {token}"}) == token
    for other in ("pbk_abc", "a.b.c", f"{token}.x", f"{token} ", ""):
        assert token_of({"api-key": other}) in (None, token)
    assert token_of({"api-key": "pbk_abc"}) is None


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"directory": "x", "audience": "a", "callers": {}}', '{"audience": "a"}']
)
def test_a_mistake_in_entra_is_told(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_entra(text)
    assert str(caught.value).startswith("ENTRA")


async def test_doors_without_keys_are_closed_whatever_is_asked() -> None:
    async with bench() as service:
        for path in ("/v1/models", "/v1/nowhere", "/openai/v1/files"):
            reply = await service.openai.answer(HttpCall("GET", path))
            assert reply.code == 401
            assert "API_KEYS" in json.loads(reply.data)["error"]["message"]
