"""With another tenant's key nothing can be seen, changed or told apart from what is not there."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.tenants import Tenant
from tests.api.client import KEYS, Client, rows
from tests.api.test_uploads import begun, part
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.bus import MemoryBus
from tests.doubles.service import Bench, bench
from tests.doubles.webhooks import HOOK, OTHER
from workers.api.openai.operations import ROUTES
from workers.jobs.outbox import JOBS, SHARDS, WEBHOOKS

# Forms of ids, each of nothing.
NOTHING = {
    "file": "file-8235000000000-0123456789abcdef",
    "input": "file-20261125T220000Z-0123456789abcdef",
    "output": "file-20261125T220000Z-0123456789abcdef-output",
    "errors": "file-20261125T220000Z-0123456789abcdef-errors",
    "upload": "upload_8235000000000-0123456789abcdef",
    "batch": "batch_20261125T220000Z-0123456789abcdef",
    "running": "batch_20261125T220000Z-0123456789abcdef",
    "part": "part_" + "0" * 32,
}
FORM = {"content-type": "multipart/form-data; boundary=B"}
DATA = b'--B\r\nContent-Disposition: form-data; name="data"; filename="a"\r\n\r\nx\r\n--B--\r\n'


@pytest.fixture
async def service() -> AsyncIterator[Bench]:
    hooks = {"default": HOOK, "blue": OTHER}
    tenants = {"default": Tenant(), "blue": Tenant()}
    async with bench(api_keys=KEYS, tenants=tenants, webhooks=hooks) as made:
        yield made


async def belongings(service: Bench, owner: Client) -> dict[str, str]:
    """One of everything that a tenant can have, each by the form of its id."""
    file = await owner.upload(rows(2) + b"{\n")
    done = await owner.create(file["id"], phi3={"on_invalid": "skip"})
    dropped = await service.run(b'{"prompt": "a"}\n', "dropped.jsonl")
    await service.settle()
    done = await owner.batch(done["id"])
    upload = await begun(owner, 1)
    running = await owner.create(file["id"])
    return {
        "file": file["id"],
        "input": f"file-{dropped.event['data']['job']}",
        "output": done["output_file_id"],
        "errors": done["error_file_id"],
        "upload": upload["id"],
        "batch": done["id"],
        "running": running["id"],
        "part": await part(owner, upload, b"x"),
    }


def calls(ids: dict[str, str]) -> list[Any]:
    """Every route with every id in its path, and each place in a query or a body for one."""
    found: list[Any] = []
    for route in ROUTES:
        pattern = route.path.pattern
        if "<id>" not in pattern:
            continue
        for one in ids.values():
            path = pattern.replace("(?P<id>[^/]+)", one)
            for action in ("cancel", "pause", "resume"):
                full = re.sub(r"\(\?P<action>[^)]*\)", action, path)
                body = DATA if "parts" in full else json.dumps({"part_ids": [ids["part"]]}).encode()
                found.append((route.method, full, body, FORM, {}))
    for one in ids.values():
        found += [("GET", f"/{what}", b"", {}, {"after": one}) for what in ("files", "batches")]
        wanted = {"input_file_id": one, "endpoint": "/v1/chat/completions"}
        whole = json.dumps(wanted | {"completion_window": "24h"}).encode()
        found += [
            ("POST", "/batches", whole, {}, {}),
            ("POST", "/batches", whole, {"x-stainless-retry-count": "1"}, {}),
            ("POST", "/batches", whole, {"idempotency-key": "owners"}, {}),
        ]
    return found


async def seen(client: Client, call: Any) -> tuple[int, bytes, dict[str, str]]:
    method, path, body, headers, query = call
    reply = await client.call(method, f"/v1{path}", body, headers, **query)
    kept = {name: value for name, value in reply.headers.items() if name != "x-request-id"}
    return reply.code, reply.data, kept


async def test_what_is_anothers_is_answered_as_what_is_not_there(service: Bench) -> None:
    owner, other = Client(service), Client(service, "blue")
    ids = await belongings(service, owner)
    body = {"input_file_id": ids["file"], "endpoint": "/v1/chat/completions"}
    key = {"idempotency-key": "owners"}
    await owner.ask("POST", "/v1/batches", body | {"completion_window": "24h"}, key)
    assert isinstance(service.blobs, MemoryBlobs)
    before = {ref: blob.etag for ref, blob in service.blobs.blobs.items()}
    staged = dict(service.blobs.staged_blocks)
    assert isinstance(service.bus, MemoryBus)
    waiting = {queue: len(service.bus.waiting(queue)) for queue in (JOBS, SHARDS, WEBHOOKS)}
    mine, nothing = calls(ids), calls(NOTHING)
    assert len(mine) > 200
    for call, same in zip(mine, nothing, strict=True):
        assert await seen(other, call) == await seen(other, same), call
        assert (await seen(other, call))[0] in (400, 404), call
    for path in ("/v1/files", "/v1/batches"):
        assert (await other.ask("GET", path))[1]["data"] == []
    assert {ref: blob.etag for ref, blob in service.blobs.blobs.items()} == before
    assert service.blobs.staged_blocks == staged
    assert {queue: len(service.bus.waiting(queue)) for queue in waiting} == waiting


async def test_the_owner_sees_all_of_it(service: Bench) -> None:
    """Else the other test would hold of a service that shows nothing to anybody."""
    owner = Client(service)
    ids = await belongings(service, owner)
    for name in ("file", "input", "output", "errors"):
        assert (await owner.ask("GET", f"/v1/files/{ids[name]}"))[0] == 200, name
        assert await owner.content(ids[name])
    for name in ("batch", "running"):
        assert (await owner.ask("GET", f"/v1/batches/{ids[name]}"))[0] == 200
    assert len((await owner.ask("GET", "/v1/batches"))[1]["data"]) == 3


async def test_two_tenants_have_their_own_of_the_same(service: Bench) -> None:
    made = {}
    for key in ("app", "blue"):
        client = Client(service, key)
        file = await client.upload(rows(1))
        made[key] = [file["id"], (await client.create(file["id"]))["id"]]
    await service.settle()
    told = {(post.url, post.event["data"]["id"]) for post in service.receiver.posts}
    assert told == {(HOOK.url, made["app"][1]), (OTHER.url, made["blue"][1])}
    for key, ids in made.items():
        client = Client(service, key)
        for what, one in zip(("files", "batches"), ids, strict=True):
            _, page = await client.ask("GET", f"/v1/{what}")
            assert [each["id"] for each in page["data"]] == [one]
