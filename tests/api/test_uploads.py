"""Uploads over HTTP: parts become one file, once, over the in-memory service."""

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai.types import Upload
from openai.types.uploads import UploadPart

from schemas import openai
from tests.api.client import KEYS, Client, rows
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.service import Bench, bench
from workers.api.openai.uploads import MOST_TIMES


@pytest.fixture
async def service() -> AsyncIterator[Bench]:
    async with bench(api_keys=KEYS, tenants={"default": {}, "blue": {}}) as made:
        yield made


@pytest.fixture
def client(service: Bench) -> Client:
    return Client(service)


def test_nothing_is_missing_that_typed_clients_know() -> None:
    assert set(Upload.model_fields) <= set(openai.Upload.model_fields)
    assert set(UploadPart.model_fields) <= set(openai.UploadPart.model_fields)


async def begun(client: Client, size: int, **fields: Any) -> Any:
    body = {"bytes": size, "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "batch"}
    status, told = await client.ask("POST", "/v1/uploads", body | fields)
    assert status == 200, told
    return told


async def add(client: Client, upload: Any, data: bytes) -> tuple[int, Any]:
    head = b'--B\r\nContent-Disposition: form-data; name="data"; filename="upload"\r\n\r\n'
    headers = {"content-type": "multipart/form-data; boundary=B"}
    path = f"/v1/uploads/{upload['id']}/parts"
    reply = await client.call("POST", path, head + data + b"\r\n--B--\r\n", headers)
    return reply.code, json.loads(reply.data)


async def part(client: Client, upload: Any, data: bytes) -> str:
    status, told = await add(client, upload, data)
    assert (status, told["object"], told["upload_id"]) == (200, "upload.part", upload["id"])
    return str(told["id"])


async def complete(client: Client, upload: Any, *ids: str, **fields: Any) -> tuple[int, Any]:
    body = {"part_ids": list(ids), **fields}
    return await client.ask("POST", f"/v1/uploads/{upload['id']}/complete", body)


async def test_parts_become_a_file_in_the_order_given(service: Bench, client: Client) -> None:
    data = rows(5)
    upload = await begun(client, len(data))
    second = await part(client, upload, data[100:])
    first = await part(client, upload, data[:100])
    await part(client, upload, b"a part whose answer was lost, and which was sent again")
    digest = hashlib.md5(data).hexdigest()
    status, done = await complete(client, upload, first, second, md5=digest.upper())
    assert (status, done["status"]) == (200, "completed")
    assert await client.content(done["file"]["id"]) == data
    again = await complete(client, upload, first, second)
    assert again == (status, done)
    batch = await client.create(done["file"]["id"])
    await service.settle()
    assert (await client.batch(batch["id"]))["status"] == "completed"


async def test_a_file_of_nothing_has_no_parts(client: Client) -> None:
    status, done = await complete(client, await begun(client, 0))
    assert (status, done["file"]["bytes"]) == (200, 0)
    assert await client.content(done["file"]["id"]) == b""


async def test_what_does_not_add_up_makes_no_file(service: Bench, client: Client) -> None:
    upload, other = await begun(client, 4), await begun(client, 4)
    mine, foreign = await part(client, upload, b"abcd"), await part(client, other, b"abcd")
    for ids, fields in (
        ((), {}),
        ((mine, mine), {}),
        ((foreign,), {}),
        (("part_" + "0" * 32,), {}),
        (("../x",), {}),
        ((mine,), {"md5": "0"}),
    ):
        status, told = await complete(client, upload, *ids, **fields)
        assert (status, told["error"]["type"]) == (400, "invalid_request_error"), ids
    assert (await client.ask("GET", "/v1/files"))[1]["data"] == []
    status, told = await complete(client, upload, mine, md5="0" * 32)
    assert (status, told["error"]["param"]) == (400, "md5")
    assert (await client.ask("GET", "/v1/files"))[1]["data"] == []
    assert [info async for info in service.blobs.list("files")] == []
    assert (await complete(client, upload, mine))[0] == 400, "its blocks are gone with it"


async def test_parts_that_cannot_be_the_files_are_not_kept(service: Bench, client: Client) -> None:
    upload = await begun(client, 4)
    status, told = await add(client, upload, b"abcde")
    assert (status, told["error"]["param"]) == (400, "data")
    assert "5 bytes, the upload is to have 4" in told["error"]["message"]
    assert isinstance(service.blobs, MemoryBlobs)
    assert not any(service.blobs.staged_blocks.values()), "nothing is staged"
    sent = [await part(client, upload, b"abcd") for _ in range(MOST_TIMES)]
    status, told = await add(client, upload, b"abcd")
    assert (status, told["error"]["param"]) == (400, "data")
    assert (await complete(client, upload, sent[-1]))[0] == 200, "what was taken is still good"


async def test_an_upload_that_has_ended_takes_no_parts(service: Bench, client: Client) -> None:
    done, cancelled, late = [await begun(client, 1) for _ in range(3)]
    only = await part(client, done, b"x")
    await complete(client, done, only)
    for _ in range(2):
        status, told = await client.ask("POST", f"/v1/uploads/{cancelled['id']}/cancel")
        assert (status, told["status"]) == (200, "cancelled")
    service.elapsed += 3601
    for upload in (done, cancelled, late):
        status, told = await add(client, upload, b"x")
        assert (status, told["error"]["code"]) == (400, "invalid_value")
    assert (await complete(client, late))[0] == 400
    assert (await complete(client, cancelled))[0] == 400
    assert (await client.ask("POST", f"/v1/uploads/{done['id']}/cancel"))[0] == 400


async def test_uploads_are_forgotten_and_what_they_became_is_not(
    service: Bench, client: Client
) -> None:
    upload, left = await begun(client, 1), await begun(client, 1)
    _, done = await complete(client, upload, await part(client, upload, b"x"))
    service.elapsed += 86_401
    await service.service.retention.run()
    assert await client.content(done["file"]["id"]) == b"x"
    for each in (upload, left):
        assert (await complete(client, each))[0] == 404
    assert [info async for info in service.blobs.list("state", "uploads/")] == []


async def test_a_deleted_file_does_not_come_back_by_a_repeated_completion(client: Client) -> None:
    upload = await begun(client, 1)
    only = await part(client, upload, b"x")
    _, done = await complete(client, upload, only)
    await client.ask("DELETE", f"/v1/files/{done['file']['id']}")
    assert (await complete(client, upload, only))[0] == 404
    assert (await client.ask("GET", f"/v1/files/{done['file']['id']}"))[0] == 404


async def test_a_size_beyond_the_limit_is_refused_at_once(client: Client) -> None:
    body = {"bytes": 11 * 1024**3, "filename": "a", "mime_type": "x", "purpose": "batch"}
    status, told = await client.ask("POST", "/v1/uploads", body)
    assert (status, told["error"]["code"]) == (413, "file_too_large")
