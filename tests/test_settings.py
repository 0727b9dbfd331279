"""The settings of a process: what is taken, and what is told of a mistake."""

import json
from collections.abc import Mapping

import pytest

from schemas.webhooks import secret_of
from workers.ports.errors import SettingsError
from workers.settings import read_settings

DEPLOYMENT = {"name": "east", "kind": "openai", "url": "https://h/v1", "model": "m"}


def environment(deployments: object, **settings: str) -> Mapping[str, str]:
    return {"DEPLOYMENTS": json.dumps(deployments), **settings}


def test_what_is_set_is_taken_and_the_rest_has_its_default() -> None:
    given = environment(
        [DEPLOYMENT | {"key_setting": "KEY"}],
        KEY="k",
        INPUT_CONTAINERS="one, two",
        TENANTS='{"blue": {"weight": 2}}',
        ENVIRONMENT_PROXIES="true",
    )
    settings = read_settings(given)
    assert settings.input_containers == ("one", "two")
    assert {name: each.weight for name, each in settings.tenants.items()} == {
        "default": 1.0,
        "blue": 2.0,
    }
    assert settings.environment_proxies
    assert settings.default_models == dict.fromkeys(("chat", "completions", "embeddings"), "m")
    plain = read_settings(environment([DEPLOYMENT | {"auth": "none"}]))
    assert not plain.environment_proxies


UNRESOLVED = "@Microsoft.KeyVault(SecretUri=https://vault/secrets/key/)"


@pytest.mark.parametrize("value", [{}, {"KEY": ""}, {"KEY": "  "}, {"KEY": UNRESOLVED}])
def test_a_key_that_is_not_there_is_told_with_its_entry(value: dict[str, str]) -> None:
    entries = [DEPLOYMENT | {"auth": "none"}, DEPLOYMENT | {"name": "west", "key_setting": "KEY"}]
    with pytest.raises(SettingsError) as caught:
        read_settings(environment(entries, **value))
    assert str(caught.value).startswith("DEPLOYMENTS[1] ('west'), field 'key_setting': the setting")
    assert "KEY" not in str(caught.value), "a key may have been pasted in its place"


@pytest.mark.parametrize(
    "setting", ["API_KEYS", "WEBHOOKS", "TENANTS", "ENTRA", "DEPLOYMENTS", "DOWNLOADS"]
)
def test_a_reference_that_azure_could_not_resolve_is_told_as_such(setting: str) -> None:
    given = {**environment([DEPLOYMENT | {"auth": "none"}]), setting: UNRESOLVED}
    with pytest.raises(SettingsError) as caught:
        read_settings(given)
    assert str(caught.value).startswith(f"setting {setting} holds a reference to Key Vault that")


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("ENVIRONMENT_PROXIES", "perhaps", "setting ENVIRONMENT_PROXIES: "),
        ("SHARD_SECONDS", "0", "setting SHARD_SECONDS: "),
        ("COMPLETION_WINDOW", "3x", "setting COMPLETION_WINDOW: not a completion window"),
        ("RESULTS_CONTAINER", "Not_One", "setting RESULTS_CONTAINER: "),
        ("RESULTS_CONTAINER", "prompts", "container 'prompts' is both for input and"),
        ("TENANTS", '{"blue": {"wieght": 1}}', "TENANTS, 'blue', 'wieght': "),
        ("TENANTS", '{"Blue!": {}}', "TENANTS, 'Blue!': "),
        ("TENANTS", "[]", "TENANTS: "),
        ("TENANTS", "{", "TENANTS is not JSON"),
        ("TENANTS", '{"blue": {}, "blue": {}}', "TENANTS: 'blue' stands 2 times in one object"),
        ("API_KEYS", '[{"name": "a", "name": "b"}]', "API_KEYS: 'name' stands 2 times"),
        ("ROUTES", '{"m": ["wset"]}', "no deployment is named 'wset'"),
        ("DEPLOYMENTS", "[", "DEPLOYMENTS is not JSON"),
    ],
)
def test_a_mistake_names_the_setting(setting: str, value: str, said: str) -> None:
    given = environment([DEPLOYMENT | {"auth": "none"}])
    with pytest.raises(SettingsError) as caught:
        read_settings({**given, setting: value})
    assert said in str(caught.value)


SECRET = secret_of(b"s" * 32)


def hooks(**fields: object) -> str:
    usual = {"url": "https://r.example/hook", "secret_settings": ["NEW", "OLD"]}
    return json.dumps({"default": usual | fields})


def test_a_webhook_has_its_secrets_from_other_settings() -> None:
    plain = [DEPLOYMENT | {"auth": "none"}]
    given = environment(plain, WEBHOOKS=hooks(), NEW=SECRET, OLD=secret_of(b"o" * 24))
    settings = read_settings(given)
    hook = settings.webhooks["default"]
    assert hook.keys == (b"s" * 32, b"o" * 24)
    assert (hook.url, hook.secure, hook.private) == ("https://r.example/hook", True, False)
    assert SECRET not in repr(settings)
    assert "ssss" not in repr(settings)
    assert read_settings(environment(plain)).webhooks == {}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (hooks(url="http://r.example/hook"), "it has to be https"),
        (hooks(url="ftp://r.example/hook", private=True), "https://HOST/PATH"),
        (hooks(url="https:///hook"), "https://HOST/PATH"),
        (hooks(url="https://r.example:99999/"), "it is no address"),
        (hooks(url="https://[::1/"), "it is no address"),
        (hooks(url="https://r.example..de/"), "it is no address"),
        (hooks(url=f"https://{'r' * 64}.example/"), "it is no address"),
        (hooks(secret_settings=["NEW", "VAULT"]), "Azure could not resolve"),
        (hooks(url="https://me:pass@r.example/"), "neither a user nor a fragment"),
        (hooks(url="https://r.example/#a"), "neither a user nor a fragment"),
        (hooks(url="https://r.example/" + "a" * 2048), "at most 2048"),
        (hooks(secret_settings=["NEW", "NONE"]), "'secret_settings'[1]: the setting that it names"),
        (hooks(secret_settings=[]), "'secret_settings'"),
        (hooks(secret_settings=["NEW"] * 3), "'secret_settings'"),
        (hooks(secret="whsec_pasted-here"), "'secret'"),
        (hooks(private="yes"), "'private'"),
        (json.dumps({"red": json.loads(hooks())["default"]}), "tenant 'red' is not known"),
        ("[]", "WEBHOOKS"),
        ("{", "WEBHOOKS is not JSON"),
        ('{"blue": {}, "blue": {}}', "WEBHOOKS: 'blue' stands 2 times in one object"),
    ],
)
def test_a_mistake_in_a_webhook_is_named_and_nothing_secret_quoted(value: str, said: str) -> None:
    unresolved = {"VAULT": "@Microsoft.KeyVault(SecretUri=https://v.example/secrets/s/)"}
    given = environment(
        [DEPLOYMENT | {"auth": "none"}], WEBHOOKS=value, NEW=SECRET, OLD=SECRET, **unresolved
    )
    with pytest.raises(SettingsError) as caught:
        read_settings(given)
    told = str(caught.value)
    assert "WEBHOOKS" in told
    assert said in told
    for secret in (SECRET, "pasted", "r.example", "pass", "NONE"):
        assert secret not in told


@pytest.mark.parametrize("price", [None, {"per_hour": "1.50", "currency": "USD"}])
def test_a_cap_by_month_needs_a_deployment_with_a_price(price: dict[str, str] | None) -> None:
    capped = json.dumps({"blue": {"max_cost_per_month": 100}})
    free = {**DEPLOYMENT, "auth": "none", "price": price}
    priced = {"input": "0.13", "output": "0.52", "currency": "USD"}
    with pytest.raises(SettingsError, match=r"TENANTS, 'blue': max_cost_per_month .* its price"):
        read_settings(environment([free], TENANTS=capped))
    both = [free, {**free, "name": "priced", "price": priced}]
    assert read_settings(environment(both, TENANTS=capped)).tenants["blue"].max_cost_per_month
    as_text = capped.replace("100", '"99.99"')
    read = read_settings(environment(both, TENANTS=as_text))
    assert read.tenants["blue"].max_cost_per_month == 99.99


@pytest.mark.parametrize("url", ["HTTPS://r.example/hook", "  https://r.example/hook"])
def test_an_address_is_read_as_it_is_meant(url: str) -> None:
    plain = [DEPLOYMENT | {"auth": "none"}]
    given = environment(plain, WEBHOOKS=hooks(url=url), NEW=SECRET, OLD=SECRET)
    hook = read_settings(given).webhooks["default"]
    assert (hook.url, hook.secure) == ("https://r.example/hook", True)


def test_http_is_for_private_networks() -> None:
    value = hooks(url="http://127.0.0.1:8000/hook", private=True)
    given = environment([DEPLOYMENT | {"auth": "none"}], WEBHOOKS=value, NEW=SECRET, OLD=SECRET)
    assert not read_settings(given).webhooks["default"].secure
