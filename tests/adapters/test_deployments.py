"""The settings DEPLOYMENTS and ROUTES: what is taken, and how what is wrong is named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from schemas.deployments import Deployment, parse_deployments, parse_routes

GOOD: dict[str, Any] = {
    "name": "phi3-east",
    "kind": "model-inference",
    "url": "https://phi3-east.eastus2.models.ai.azure.com/",
    "model": "Phi-3-mini-4k-instruct",
    "auth": "key",
    "key_setting": "PHI3_EAST_KEY",
    "tasks": ["chat"],
    "requests_per_minute": 1000,
    "tokens_per_minute": 200000,
    "requests_per_day": 10000,
    "reserve": 0.1,
    "yield_to_interactive": True,
    "max_tokens_per_request": 4096,
    "context_length": 4096,
    "max_inputs_per_request": 32,
    "max_concurrency": 64,
    "weight": 2,
    "api_version": "2024-05-01-preview",
    "headers": {"azureml-model-deployment": "blue"},
    "allow_http": False,
    "timeout": 90,
    "hours": "22:00-06:00",
    "time_zone": "Europe/Berlin",
}

UNLIMITED = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "requests_per_day"))


def mistake(*entries: Any) -> str:
    with pytest.raises(ValueError) as caught:
        parse_deployments(json.dumps(list(entries)))
    return str(caught.value)


def test_every_field_is_taken() -> None:
    (parsed,) = parse_deployments(json.dumps([GOOD]))
    taken = parsed.model_dump(mode="json")
    assert taken == GOOD | {"url": GOOD["url"].rstrip("/"), "scope": None, "price": None}
    assert GOOD.keys() | {"scope", "price"} == Deployment.model_fields.keys()


@pytest.mark.parametrize("host", ["10.0.0.4:8000", "phi.internal"])
def test_a_key_goes_unencrypted_only_where_somebody_allows_it(host: str) -> None:
    plain = GOOD | {"url": f"http://{host}"}
    assert "DEPLOYMENTS[0] ('phi3-east')" in mistake(plain)
    assert "use https, or allow_http" in mistake(plain)
    assert parse_deployments(json.dumps([plain | {"allow_http": True}]))
    assert parse_deployments(json.dumps([GOOD | {"url": "http://localhost:8000"}]))


def test_what_is_absent_is_unlimited_and_all_that_the_kind_can_do() -> None:
    least = {"name": "a", "kind": "openai", "url": "http://x/v1", "model": "m", "auth": "none"}
    (parsed,) = parse_deployments(json.dumps([least]))
    assert parsed.requests_per_minute is parsed.tokens_per_minute is parsed.max_concurrency is None
    assert parsed.serves == ("chat", "completions", "embeddings")
    assert parsed.timeout == 120


def test_a_reserve_is_no_part_of_what_batches_may_use() -> None:
    quota = {"requests_per_minute": 1000, "tokens_per_minute": 200_000, "requests_per_day": 99}
    (parsed,) = parse_deployments(json.dumps([GOOD | quota | {"reserve": 0.2}]))
    assert parsed.batch_requests_per_minute == 800
    assert parsed.batch_tokens_per_minute == 160_000
    assert parsed.batch_requests_per_day == 79
    (whole,) = parse_deployments(json.dumps([GOOD | quota | {"reserve": 0}]))
    assert whole.batch_requests_per_minute == 1000
    free = Deployment.model_validate(
        GOOD | UNLIMITED | {"yield_to_interactive": False, "reserve": 0}
    )
    assert free.batch_requests_per_minute is free.batch_tokens_per_minute is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "azure"}, "field 'kind'"),
        ({"name": "has space"}, "field 'name': must be 1 to 63 letters, digits"),
        ({"scope": "cognitiveservices"}, "field 'scope': must be a scope of Entra ID"),
        ({"scope": "https://ai.azure.com/.default"}, "scope is not used with auth 'key'"),
        ({"url": "http://two..dots/v1"}, "field 'url': must be an http or https URL"),
        ({"url": f"http://{'a' * 70}.com/v1"}, "field 'url': must be an http or https URL"),
        ({"max_inputs_per_request": 0}, "field 'max_inputs_per_request'"),
        ({"weight": 0}, "field 'weight'"),
        ({"timeout": 181}, "field 'timeout'"),
        ({"requests_per_minute": -1}, "field 'requests_per_minute'"),
        ({"reserve": 1.0, "requests_per_minute": 60}, "field 'reserve'"),
        ({"reserve": 0.2, **UNLIMITED}, "need a quota"),
        ({"reserve": 0, **UNLIMITED}, "need a quota"),
        ({"max_concurrency": 1.5}, "field 'max_concurrency'"),
        ({"tasks": ["chats"]}, "field 'tasks.0'"),
        ({"url": "ftp://x"}, "field 'url': must be an http or https URL"),
        ({"url": "https://x:port/"}, "field 'url': must be an http or https URL"),
        ({"url": "https://x/?api-version=1"}, "belongs into api_version"),
        ({"url": "https://x/chat/completions"}, "give the base only"),
        ({"kind": "azure-openai", "url": "https://x/openai/deployments/y"}, "the base only"),
        ({"requests_per_minut": 1}, "did you mean 'requests_per_minute'?"),
        ({"Url": "x"}, "did you mean 'url'?"),
        ({"key_setting": None}, "needs key_setting"),
        ({"auth": "none"}, "key_setting is not used with auth 'none'"),
        ({"auth": "entra", "key_setting": None, "url": "http://far/"}, "needs https"),
        ({"kind": "aml-score", "tasks": ["embeddings"]}, "cannot do embeddings"),
        ({"headers": {"Authorization": "x"}}, "must not carry the key"),
        ({"headers": {"a b": "x"}}, "no HTTP header's"),
        ({"headers": {"a": "x\ny"}}, "HTTP does not carry"),
    ],
)
def test_a_mistake_is_named_with_entry_and_field(change: dict[str, Any], said: str) -> None:
    message = mistake(GOOD, GOOD | {"name": "second"} | change)
    assert message.startswith("DEPLOYMENTS[1] (")
    assert said in message


def test_all_mistakes_are_told_at_once() -> None:
    message = mistake({"name": "a"}, "b", GOOD, GOOD)
    lines = message.splitlines()
    required = [line for line in lines if line.endswith("is required")]
    assert [line.split("'")[-2] for line in required] == ["kind", "url", "model"]
    assert sum(line.startswith("DEPLOYMENTS[1]") for line in lines) == 1
    assert "DEPLOYMENTS: 2 entries are named 'phi3-east': names must differ" in lines


@pytest.mark.parametrize("text", ["", "{}", "[]", "nonsense", '[{"name": 1', '"x"'])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^DEPLOYMENTS "):
        parse_deployments(text)


def test_a_field_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'name' stands 2 times"):
        parse_deployments('[{"name": "a", "name": "b"}]')


@pytest.mark.parametrize(
    "change",
    [
        {"key_setting": "sk-secret-value"},
        {"url": "https://user:sk-secret-value@host/"},
        {"headers": {"x": "sk-secret-value\n"}},
        {"headers": {"authorization": "sk-secret-value"}},
        {"url": "sk-secret-value"},
    ],
)
def test_no_message_repeats_what_may_be_a_secret(change: dict[str, Any]) -> None:
    assert "sk-secret-value" not in mistake(GOOD | change)


def test_a_deployment_shown_hides_its_headers() -> None:
    each = Deployment(**(GOOD | {"headers": {"ocp-apim-subscription-key": "sk-secret-value"}}))
    assert "sk-secret-value" not in f"{each!r} {each}"


def test_routes_name_known_deployments() -> None:
    deployments = parse_deployments(json.dumps([GOOD, GOOD | {"name": "phi3-west"}]))
    routes = parse_routes('{"phi3": ["phi3-west", "phi3-east"]}', deployments)
    assert routes == {"phi3": ("phi3-west", "phi3-east")}
    assert parse_routes("", deployments) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"m": ["phi3-eats"]}', "did you mean 'phi3-east'?"),
        ('{"m": []}', "model 'm': must be a list"),
        ('{"m": "phi3-east"}', "model 'm': must be a list"),
        ('{"m": ["phi3-east", "phi3-east"]}', "names a deployment twice"),
        ('{"m": ["phi3-east"], "m": ["phi3-east"]}', "'m' stands 2 times"),
        ("[]", "must be a JSON object"),
        ("{", "ROUTES is not JSON"),
    ],
)
def test_a_wrong_route_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_routes(text, parse_deployments(json.dumps([GOOD])))
    assert said in str(caught.value)


def test_the_documented_example_is_taken_and_every_field_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "endpoints.md").read_text("utf-8")
    example = text.split("```json\n")[1].split("```")[0]
    kinds = {each.kind for each in parse_deployments(example)}
    assert kinds == {"model-inference", "aml-score", "openai", "azure-openai"}
    table = text.split("| field |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", table)) >= set(Deployment.model_fields)
