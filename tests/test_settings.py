"""The settings of a process: what is taken, and what is told of a mistake."""

import json
from collections.abc import Mapping

import pytest

from workers.errors import SettingsError
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
    ("setting", "value", "said"),
    [
        ("ENVIRONMENT_PROXIES", "perhaps", "setting ENVIRONMENT_PROXIES: "),
        ("SHARD_SECONDS", "0", "setting SHARD_SECONDS: "),
        ("RESULTS_CONTAINER", "Not_One", "setting RESULTS_CONTAINER: "),
        ("RESULTS_CONTAINER", "prompts", "container 'prompts' is both for input and"),
        ("TENANTS", '{"blue": {"wieght": 1}}', "TENANTS, 'blue', 'wieght': "),
        ("TENANTS", '{"Blue!": {}}', "TENANTS, 'Blue!': "),
        ("TENANTS", "[]", "TENANTS: "),
        ("TENANTS", "{", "TENANTS is not JSON"),
        ("ROUTES", '{"m": ["wset"]}', "no deployment is named 'wset'"),
        ("DEPLOYMENTS", "[", "DEPLOYMENTS is not JSON"),
    ],
)
def test_a_mistake_names_the_setting(setting: str, value: str, said: str) -> None:
    given = environment([DEPLOYMENT | {"auth": "none"}])
    with pytest.raises(SettingsError) as caught:
        read_settings({**given, setting: value})
    assert said in str(caught.value)
