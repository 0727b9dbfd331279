"""Keys and tokens: where they go, when they are read again, and where they never appear."""

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from schemas.deployments import EndpointKind
from tests.adapters.clients import KEY, KINDS, asking, deployment, json_answer, recorded, recorder
from workers.adapters.endpoints import connect
from workers.ports.errors import SettingsError
from workers.service.keys import Keys

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
GOOD = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}]}

CARRIED = {
    "model-inference": {"authorization": f"Bearer {KEY}", "api-key": KEY},
    "openai": {"authorization": f"Bearer {KEY}"},
    "azure-openai": {"api-key": KEY},
    "aml-score": {"authorization": f"Bearer {KEY}"},
}


def credentials_in(headers: dict[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in ("authorization", "api-key") if name in headers}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_goes_where_the_contract_wants_it(kind: EndpointKind) -> None:
    async with recorded(kind, json_answer(GOOD)) as (endpoint, seen):
        await endpoint.ask("chat", CHAT)
    assert credentials_in(seen[0].headers) == CARRIED[kind]
    assert seen[0].headers["user-agent"] == "phi3-batch-worker"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_endpoint_is_told_which_of_many_workers_asks(
    kind: EndpointKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_HTTP_USER_AGENT", "host/3")
    async with recorded(kind, json_answer(GOOD)) as (endpoint, seen):
        await endpoint.ask("chat", CHAT)
    assert seen[0].headers["user-agent"] == "phi3-batch-worker host/3"


@pytest.mark.parametrize("kind", KINDS)
async def test_no_key_is_sent_where_none_is_wanted(kind: EndpointKind) -> None:
    keyless = {"auth": "none", "key_setting": None}
    async with recorded(kind, json_answer(GOOD), **keyless) as (endpoint, seen):
        await endpoint.ask("chat", CHAT)
    assert credentials_in(seen[0].headers) == {}


async def key_must_be(key: str, request: web.BaseRequest) -> web.StreamResponse:
    if request.headers.get("Authorization") == f"Bearer {key}":
        return await json_answer(GOOD)(request)
    return await json_answer({"error": {"code": "401", "message": "no"}}, 401)(request)


def keys(*values: str) -> Iterator[str]:
    yield from values
    raise AssertionError("the setting was read more often than agreed")


async def test_a_changed_key_is_read_once_after_a_401_and_the_call_repeated() -> None:
    reads = keys("old", "new")
    async with recorder(lambda request: key_must_be("new", request)) as server:
        each = deployment("openai", server.url)
        async with connect([each], lambda _: next(reads)) as endpoints:
            outcomes = [await endpoints[each.name].ask("chat", CHAT) for _ in range(3)]
    assert [outcome.kind for outcome in outcomes] == ["ok", "ok", "ok"]
    assert len(server.seen) == 4


async def test_an_unchanged_key_is_not_tried_twice() -> None:
    reads = keys("old", "old")
    async with recorder(lambda request: key_must_be("new", request)) as server:
        each = deployment("openai", server.url)
        async with connect([each], lambda _: next(reads)) as endpoints:
            outcome = await endpoints[each.name].ask("chat", CHAT)
    assert (outcome.kind, outcome.billed) == ("auth", False)
    assert len(server.seen) == 1


async def test_deployments_that_share_a_setting_start_with_the_same_key() -> None:
    reads = keys("first")
    async with recorder(lambda request: key_must_be("first", request)) as server:
        both = [deployment("openai", server.url, name=name) for name in ("east", "west")]
        async with connect(both, lambda _: next(reads)) as endpoints:
            outcomes = [await endpoints[each.name].ask("chat", CHAT) for each in both]
    assert [outcome.kind for outcome in outcomes] == ["ok", "ok"]


def settings_file(folder: Path, text: str) -> None:
    (folder / "local.settings.json").write_text(text, "utf-8")


def test_the_settings_file_is_asked_only_for_a_newer_key(tmp_path: Path) -> None:
    settings_file(tmp_path, '{"Values": {"A": "newer", "B": 7}}')
    given = Keys({"A": "given", "B": "given"}, tmp_path)
    assert [given(name) for name in "AABBC"] == ["given", "newer", "given", "given", None]


@pytest.mark.parametrize("text", ['{"Values": {"A": "ne', "[]", '{"Values": []}', "{}", "\xff"])
def test_a_settings_file_that_is_being_written_leaves_the_key(text: str, tmp_path: Path) -> None:
    settings_file(tmp_path, text)
    given = Keys({"A": "given"}, tmp_path)
    assert [given("A"), given("A")] == ["given", "given"]


async def test_many_calls_refused_at_once_all_get_the_new_key() -> None:
    value = ["old"]
    async with recorder(lambda request: key_must_be("new", request)) as server:
        each = deployment("openai", server.url)
        async with connect([each], lambda _: value[0]) as endpoints:
            value[0] = "new"
            calls = [endpoints[each.name].ask("chat", CHAT) for _ in range(32)]
            outcomes = await asyncio.gather(*calls)
    assert {outcome.kind for outcome in outcomes} == {"ok"}


async def test_a_key_that_vanished_leaves_the_old_one_in_place() -> None:
    values: list[str | None] = ["old"]
    async with recorder(lambda request: key_must_be("new", request)) as server:
        each = deployment("openai", server.url)
        async with connect([each], lambda _: values[0]) as endpoints:
            values[0] = None
            assert (await endpoints[each.name].ask("chat", CHAT)).kind == "auth"


@pytest.mark.parametrize("value", [None, "", "  ", "two\nlines", "schlüssel"])
async def test_a_missing_or_unusable_key_stops_the_start(value: str | None) -> None:
    each = deployment("openai", "http://127.0.0.1:9", name="east", key_setting="EAST_KEY")
    with pytest.raises(SettingsError, match="deployment 'east'") as caught:
        async with connect([each], lambda _: value):
            pass
    assert "EAST_KEY" not in str(caught.value), "a key may have been pasted in its place"


class Identity:
    """A credential that hands out numbered tokens, or fails."""

    def __init__(self, failing: bool = False) -> None:
        self.scopes: list[tuple[str, ...]] = []
        self.failing = failing

    async def get_token(self, *scopes: str, **_: object) -> AccessToken:
        self.scopes.append(scopes)
        if self.failing:
            raise ClientAuthenticationError(message="secret tenant details")
        return AccessToken(f"token-{len(self.scopes)}", int(time.time()) + 3600)

    async def close(self) -> None:
        pass

    async def __aenter__(self) -> "Identity":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "scope"),
    [
        ("model-inference", "https://ml.azure.com/.default"),
        ("aml-score", "https://ml.azure.com/.default"),
        ("azure-openai", "https://cognitiveservices.azure.com/.default"),
        ("openai", "https://cognitiveservices.azure.com/.default"),
    ],
)
async def test_entra_tokens_are_asked_for_once_in_the_services_scope(
    kind: EndpointKind, scope: str
) -> None:
    identity = Identity()
    async with recorder(json_answer(GOOD)) as server:
        each = deployment(kind, server.url, auth="entra", key_setting=None)
        async with connect([each], credential=identity) as endpoints:
            for _ in range(3):
                await endpoints[kind].ask("chat", CHAT)
    assert identity.scopes == [(scope,)]
    carried = {"authorization": "Bearer token-1"}
    assert [credentials_in(seen.headers) for seen in server.seen] == [carried] * 3


async def test_a_scope_that_is_named_replaces_the_kinds_own() -> None:
    identity, scope = Identity(), "https://cognitiveservices.azure.us/.default"
    async with recorder(json_answer(GOOD)) as server:
        fields = {"auth": "entra", "key_setting": None, "scope": scope}
        each = deployment("model-inference", server.url, **fields)
        async with connect([each], credential=identity) as endpoints:
            assert (await endpoints[each.name].ask("chat", CHAT)).kind == "ok"
    assert identity.scopes == [(scope,)]


async def test_no_token_stops_the_deployment_and_tells_no_details() -> None:
    each = deployment("azure-openai", "http://127.0.0.1:9", auth="entra", key_setting=None)
    async with connect([each], credential=Identity(failing=True)) as endpoints:
        outcome = await endpoints[each.name].ask("chat", CHAT)
    assert (outcome.kind, outcome.code, outcome.billed) == ("auth", "token_unavailable", False)
    assert "secret" not in str(outcome)


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    async with recorder(json_answer(GOOD)) as elsewhere:
        moved = json_answer({}, 307, {"Location": f"{elsewhere.url}/v1/chat/completions"})
        async with recorder(moved) as server, asking("openai", server.url) as endpoint:
            outcome = await endpoint.ask("chat", CHAT)
    assert outcome.kind == "gone"
    assert elsewhere.seen == []


async def test_the_environments_proxy_is_used_only_if_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with recorder(json_answer({}, 502)) as proxy, recorder(json_answer(GOOD)) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        each = deployment("openai", server.url)
        async with connect([each], lambda _: KEY) as endpoints:
            assert (await endpoints[each.name].ask("chat", CHAT)).kind == "ok"
        async with connect([each], lambda _: KEY, env_proxies=True) as endpoints:
            assert (await endpoints[each.name].ask("chat", CHAT)).status == 502


MARKS = ("prompt-mark-7f3a", KEY, "completion-mark-91c2")
ECHOES = [
    {"error": {"code": MARKS[0] + " !", "message": f"Bad input {MARKS[0]} {KEY}", "param": "a b"}},
    {"error": {"code": "x", "message": MARKS[0], "param": f"'{MARKS[0]}'"}},
    {"error": f"{MARKS[0]} is not valid", "error_type": "validation"},
    {"detail": [{"loc": ["body", "messages", 0, MARKS[0]], "msg": MARKS[0], "input": MARKS[0]}]},
    {"detail": f"Unknown: {MARKS[0]}"},
    {"message": MARKS[0], "object": "error", "type": MARKS[0] + "\n"},
    {"error": {"innererror": {"content_filter_result": {MARKS[0]: {"filtered": True}}}}},
    [MARKS[0]],
    MARKS[0],
]


@pytest.mark.parametrize("status", [200, 400, 401, 404, 413, 422, 424, 429, 500])
@pytest.mark.parametrize("echo", ECHOES)
async def test_no_failure_repeats_the_prompt_or_the_key(
    echo: object, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    headers = {"x-request-id": f"{MARKS[0]} {KEY}", "x-ms-error-code": f"{MARKS[0]}!"}
    answer = json_answer(echo, status, headers)
    async with recorded("model-inference", answer) as (endpoint, _):
        body = {"messages": [{"role": "user", "content": MARKS[0]}]}
        outcome = await endpoint.ask("chat", body)
    assert outcome.kind != "ok"
    assert outcome.message
    told = f"{outcome} {caplog.text}"
    assert not [mark for mark in MARKS if mark in told]


async def test_a_stopped_deployment_is_the_breakers_to_tell(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "workers")
    value = ["old"]
    async with recorder(lambda request: key_must_be("new", request)) as server:
        each = deployment("openai", server.url, name="east")
        async with connect([each], lambda _: value[0]) as endpoints:
            kinds = []
            for key in ("old", "old", "new"):
                value[0] = key
                kinds.append((await endpoints["east"].ask("chat", CHAT)).kind)
    assert kinds == ["auth", "auth", "ok"]
    assert [record.getMessage() for record in caplog.records] == []
