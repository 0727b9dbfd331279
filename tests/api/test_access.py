"""Who is let in at the doors under /v1."""

import hashlib
import json

import pytest

from schemas.access import ApiKey, parse_api_keys
from tests.doubles.service import EPOCH, bench
from workers.api.access import caller_of
from workers.api.http import HttpCall, HttpRefusal


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
    with pytest.raises(HttpRefusal) as refused:
        caller_of(headers, keys, now)
    assert (refused.value.status, refused.value.code) == (401, code)


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


async def test_doors_without_keys_are_closed_whatever_is_asked() -> None:
    async with bench() as service:
        for path in ("/v1/models", "/v1/nowhere", "/openai/v1/files"):
            reply = await service.openai.answer(HttpCall("GET", path))
            assert reply.code == 401
            assert "API_KEYS" in json.loads(reply.data)["error"]["message"]
