"""Answers to `json_schema`, valid or wrong on demand; and requests that no context holds."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.endpoint import Rule, Settings, When, schemas
from local.endpoint.profiles import PROFILES, ProfileName

from .asking import asking

TICKET: dict[str, Any] = {
    "type": "object",
    "properties": {
        "label": {"enum": ["bug", "question", "praise"]},
        "urgency": {"type": "integer", "minimum": 1, "maximum": 5},
        "score": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "summary": {"type": "string", "maxLength": 40, "minLength": 3},
        "due": {"type": ["string", "null"], "format": "date"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
        "parent": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
    },
    "required": ["label", "urgency", "score", "summary", "due", "tags", "parent"],
    "additionalProperties": False,
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "id": {"type": "string", "format": "uuid"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["id", "next"],
            "additionalProperties": False,
        }
    },
}


def chat(schema: Any, text: str = "hello", **more: Any) -> dict[str, Any]:
    wanted = {"type": "json_schema", "json_schema": {"name": "t", "strict": True, "schema": schema}}
    messages = [{"role": "user", "content": text}]
    return {"messages": messages, "response_format": wanted, **more}


PRIMITIVES = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer", "minimum": -3, "exclusiveMaximum": 9},
        {"type": "number", "multipleOf": 0.25},
        {"type": "boolean"},
        {"type": "null"},
        {"const": {"a": 1}},
        {"type": "string", "format": "email", "minLength": 2},
    ]
)
SCHEMAS = st.recursive(
    PRIMITIVES,
    lambda inner: (
        st.builds(lambda item: {"type": "array", "items": item, "minItems": 1}, inner)
        | st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3))
        | st.builds(
            lambda properties: {
                "type": "object",
                "properties": properties,
                "required": sorted(properties),
                "additionalProperties": False,
            },
            st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3),
        )
    ),
    max_leaves=8,
)


@given(SCHEMAS, st.binary(min_size=4, max_size=8))
def test_every_value_is_valid_and_every_wrong_one_is_not(
    schema: dict[str, Any], seed: bytes
) -> None:
    text = schemas.valid(schema, seed, lambda _: "word")
    assert text == schemas.valid(schema, seed, lambda _: "word")
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(json.loads(text))
    assert not validator.is_valid(json.loads(schemas.wrong(schema, text)))


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions"])
async def test_an_answer_keeps_to_its_schema_and_differs_by_row(path: str) -> None:
    async with asking(Settings(requests_per_minute=0)) as asker:
        replies = [await asker.post(path, chat(TICKET, f"row {n}")) for n in range(20)]
    contents = [reply.body["choices"][0]["message"]["content"] for reply in replies]
    for content in contents:
        jsonschema.validate(json.loads(content), TICKET)
    assert len(set(contents)) > 10
    assert any("[simulated]" in content for content in contents)


async def test_a_stated_part_of_the_answers_is_wrong() -> None:
    rule = Rule(fault="wrong_schema", when=When(rate=0.3))
    async with asking(Settings(profile="openai", faults=(rule,))) as asker:
        replies = [
            await asker.post("/v1/chat/completions", chat(TICKET, f"row {n}")) for n in range(100)
        ]
        assert asker.endpoint.stats()["faults"] == {"wrong_schema": pytest.approx(30, abs=15)}
    contents = [json.loads(reply.body["choices"][0]["message"]["content"]) for reply in replies]
    wrong = [c for c in contents if not jsonschema.Draft202012Validator(TICKET).is_valid(c)]
    assert 15 <= len(wrong) <= 45


async def test_max_tokens_cuts_json_short_as_it_cuts_any_text() -> None:
    async with asking(Settings()) as asker:
        reply = await asker.post("/v1/chat/completions", chat(TICKET, max_tokens=3))
    assert reply.body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {"type": "no-such-type"},
        {"$ref": "#/$defs/none"},
        {"$ref": "https://example.com/schema"},
        {"type": "string", "pattern": "^[A-Z]{9}$"},
        {"enum": []},
        {"type": "integer", "minimum": 3, "maximum": 2},
    ],
)
async def test_a_schema_that_nothing_keeps_to_is_refused(schema: Any) -> None:
    async with asking(Settings()) as asker:
        reply = await asker.post("/v1/chat/completions", chat(schema))
        assert reply.status == 400
        assert "Invalid schema for response_format" in reply.body["error"]["message"]
        assert asker.endpoint.stats()["rejected"] == {"bad_request": 1}


@pytest.mark.parametrize("profile", PROFILES)
async def test_what_the_context_cannot_hold_is_refused_and_costs_nothing(
    profile: ProfileName,
) -> None:
    async with asking(Settings(profile=profile, tokens_per_minute=0)) as asker:
        body = {"model": "Phi-3-mini-4k-instruct", "max_tokens": 1000}
        for length, status in ((3 * 3090, 200), (3 * 3093, 400), (3 * 67_000, 400)):
            messages = [{"role": "user", "content": "x" * length}]
            given_body = {**body, "messages": messages}
            reply = await asker.post("/v1/chat/completions", given_body)
            expected = 424 if status == 400 and profile == "managed-online" else status
            assert reply.status == expected
        assert "4096 tokens" in reply.body["error"]["message"]
        assert asker.endpoint.stats()["rejected"] == {"context": 2}
        assert asker.endpoint.stats()["admitted"] == 1
        longer = {**given_body, "model": "Phi-3-mini-128k-instruct", "max_tokens": 9}
        if profile != "github-models":
            assert (await asker.post("/v1/chat/completions", longer)).status == 200
    async with asking(Settings(profile=profile, context=0, tokens_per_minute=0)) as asker:
        reply = await asker.post("/v1/chat/completions", given_body)
        assert reply.status == (413 if profile == "github-models" else 200)
