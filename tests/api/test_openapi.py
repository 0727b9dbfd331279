"""The OpenAPI document says what the doors do: every answer is held to it."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas.tenants import Tenant
from tests.api.client import KEYS, Client, rows
from tests.api.test_uploads import begun, complete, part
from tests.doubles.service import MODEL, Bench, bench
from tests.doubles.webhooks import HOOK
from workers.api import routing
from workers.api.http import AnyReply
from workers.api.matching import Route
from workers.api.openai import operations
from workers.api.openapi import EXCHANGES, document

DOCUMENT = json.loads(json.dumps(document()))


def described(method: str, path: str) -> Mapping[str, Any] | None:
    """What the document says of a call: the path that says most."""
    parts = path.split("/")
    for template, methods in sorted(
        DOCUMENT["paths"].items(), key=lambda each: "{action}" in each[0]
    ):
        wanted = template.split("/")
        if len(wanted) == len(parts) and all(
            one == other or one.startswith("{") for one, other in zip(wanted, parts, strict=True)
        ):
            found: Mapping[str, Any] | None = methods.get(method.lower())
            if found is not None:
                return found
    return None


class Held(Client):
    """A client that holds every answer to the document."""

    def __init__(self, service: Bench) -> None:
        super().__init__(service)
        self.seen: set[str] = set()

    async def call(
        self,
        method: str,
        path: str,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> AnyReply:
        reply = await super().call(method, path, data, headers, **query)
        told = described(method, path)
        assert told is not None, f"{method} {path} is not described"
        answers = told["responses"]
        content = answers.get(str(reply.code), answers["default"])["content"]
        if reply.code == 200:
            self.seen.add(told["operationId"])
        if schema := content.get("application/json", {}).get("schema"):
            whole = {**schema, "components": DOCUMENT["components"]}
            Draft202012Validator(whole).validate(json.loads(reply.data))
        return reply


@pytest.fixture
async def service() -> AsyncIterator[Bench]:
    tenants = {"default": Tenant(), "blue": Tenant()}
    async with bench(api_keys=KEYS, tenants=tenants, webhooks={"default": HOOK}) as made:
        yield made


def test_every_operation_is_described() -> None:
    tables: tuple[Route, ...] = (*operations.ROUTES, *routing.ROUTES)
    assert {route.operation for route in tables} == set(EXCHANGES)
    assert sum(map(len, DOCUMENT["paths"].values())) == len(tables)
    names = [
        each["operationId"] for methods in DOCUMENT["paths"].values() for each in methods.values()
    ]
    assert len(set(names)) == len(names)


def test_its_schemas_are_ones_and_its_references_lead_somewhere() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    found = json.dumps(DOCUMENT).split('"$ref": "#/components/schemas/')[1:]
    assert {each.partition('"')[0] for each in found} <= set(DOCUMENT["components"]["schemas"])
    limit = {"minimum": 0, "maximum": 100}
    [query] = [
        each["schema"]
        for each in DOCUMENT["paths"]["/v1/batches"]["get"]["parameters"]
        if each["name"] == "limit"
    ]
    assert limit.items() <= query.items()


async def test_the_webhooks_are_those_that_are_sent(service: Bench) -> None:
    await Client(service).run(rows(1))
    (post,) = service.receiver.posts
    assert set(DOCUMENT["webhooks"]) == {
        f"batch.{word}" for word in ("completed", "failed", "expired", "cancelled")
    }
    told = DOCUMENT["webhooks"][post.event["type"]]["post"]
    schema = told["requestBody"]["content"]["application/json"]["schema"]
    whole = {**schema, "components": DOCUMENT["components"]}
    Draft202012Validator(whole).validate(post.event)
    assert {each["name"] for each in told["parameters"]} == set(post.headers)


async def test_every_answer_keeps_to_it(service: Bench) -> None:
    client = Held(service)
    upload = await begun(client, 1)
    await complete(client, upload, await part(client, upload, b"x"))
    left = await begun(client, 1)
    await client.ask("POST", f"/v1/uploads/{left['id']}/cancel")
    done = await client.run(rows(2) + b"{\n", phi3={"on_invalid": "skip"})
    failed = await client.run(rows(1) + b"{\n", metadata={"a": "b"})
    assert (done["status"], failed["status"]) == ("completed", "failed")
    await client.ask("POST", f"/v1/batches/{done['id']}/cancel")
    await client.ask("POST", f"/v1/batches/{done['id']}/webhooks")
    running = await client.create(done["input_file_id"])
    await client.ask("POST", f"/v1/batches/{running['id']}/cancel")
    for path in ("files", "batches", "models", "openapi.json", f"files/{done['output_file_id']}"):
        await client.ask("GET", f"/v1/{path}")
    for what in ("events", "manifest"):
        await client.ask("GET", f"/v1/batches/{done['id']}/{what}")
    report = await client.call("GET", f"/v1/batches/{done['id']}/report")
    assert report.content_type.startswith("text/html")
    (described_as,) = DOCUMENT["paths"]["/v1/batches/{id}/report"]["get"]["responses"]["200"][
        "content"
    ]
    assert described_as == "text/html"
    await client.content(done["output_file_id"])
    await client.ask("GET", f"/v1/models/{MODEL}")
    await client.ask("DELETE", f"/v1/files/{done['input_file_id']}")
    await client.ask("GET", f"/v1/files/{done['input_file_id']}")
    group = {"task": "chat", "requests": 1, "prompt_tokens": 1, "answer_tokens": 1}
    await client.ask("POST", "/v1/estimate", {"requests": [group, {**group, "model": "nobody's"}]})
    named = {route.operation.__name__ for route in operations.ROUTES}
    assert client.seen == named
