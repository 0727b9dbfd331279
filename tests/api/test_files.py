"""Files over HTTP: what is kept, listed, given out and deleted, over the in-memory service."""

import json
from collections.abc import AsyncIterator

import pytest

from tests.api.client import KEYS, Client, rows
from tests.doubles.service import Bench, bench
from workers.api.http import HttpCall
from workers.api.openai import files
from workers.api.openai.door import FORM_BYTES, MOST_BYTES
from workers.ports import BlobRef


@pytest.fixture
async def service() -> AsyncIterator[Bench]:
    async with bench(api_keys=KEYS, tenants={"default": {}, "blue": {}}) as made:
        yield made


@pytest.fixture
def client(service: Bench) -> Client:
    return Client(service)


async def stored(service: Bench, container: str, prefix: str = "") -> list[str]:
    return [info.ref.name async for info in service.blobs.list(container, prefix)]


async def test_a_file_is_given_out_as_it_came(client: Client) -> None:
    file = await client.upload(b"\x00\r\n--x\n", "é %22.bin", "user_data")
    assert (file["filename"], file["bytes"], file["status"]) == ('é ".bin', 7, "processed")
    assert await client.content(file["id"]) == b"\x00\r\n--x\n"
    assert (await client.ask("GET", f"/v1/files/{file['id']}"))[1] == file


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"purpose": "party"}, "invalid_value", "purpose"),
        ({"expires_after[seconds]": "3600"}, "invalid_value", "expires_after"),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"},
            "invalid_value",
            "expires_after",
        ),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "٣٦٠٠"},
            "invalid_value",
            "expires_after",
        ),
    ],
)
async def test_a_form_with_wrong_fields_keeps_nothing(
    service: Bench, client: Client, fields: dict[str, str], code: str, param: str
) -> None:
    status, told = await client.try_upload(b"x", **fields)
    assert (status, told["error"]["code"], told["error"]["param"]) == (400, code, param)
    assert await stored(service, "files") == await stored(service, "state") == []


async def test_sizes_are_refused_before_the_body_is_read(client: Client) -> None:
    headers = {"content-length": str(MOST_BYTES + FORM_BYTES + 1)}
    reply = await client.call("POST", "/v1/files", b"no form at all", headers)
    assert (reply.code, reply.headers["x-should-retry"]) == (413, "false")
    assert "uploads" in json.loads(reply.data)["error"]["message"]
    held = {"authorization": "Bearer app"}
    lost = await client._service.openai.answer(
        HttpCall("POST", "/v1/files", headers=held)  # chunked: the host has lost it
    )
    assert (lost.code, lost.headers["x-should-retry"]) == (411, "false")


@pytest.mark.parametrize(
    "path",
    [
        *(f"/batches/x/{act}" for act in ("cancel", "pause", "resume", "webhooks")),
        "/uploads/x/cancel",
    ],
)
async def test_what_needs_no_body_needs_no_length(client: Client, path: str) -> None:
    """`curl -X POST` gives none."""
    sent = HttpCall("POST", f"/v1{path}", headers={"authorization": "Bearer app"})
    assert (await client._service.openai.answer(sent)).code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/files",
        "/uploads",
        "/uploads/{id}/parts",
        "/uploads/{id}/complete",
        "/batches",
        "/estimate",
    ],
)
async def test_what_needs_a_body_says_so_where_it_was_lost(client: Client, path: str) -> None:
    asked = {"purpose": "batch", "bytes": 1, "filename": "a", "mime_type": "text/plain"}
    _, upload = await client.ask("POST", "/v1/uploads", asked)
    at = f"/v1{path}".format(id=upload["id"])
    sent = HttpCall("POST", at, headers={"authorization": "Bearer app"})
    assert (await client._service.openai.answer(sent)).code == 411


async def test_files_are_listed_by_pages_in_either_order(client: Client) -> None:
    made = [
        (await client.upload(b"x", purpose="batch" if n % 2 else "vision"))["id"] for n in range(5)
    ]
    _, page = await client.ask("GET", "/v1/files")
    assert [each["id"] for each in page["data"]] == sorted(made)
    listed, query = [], {"limit": "2", "order": "asc"}
    while True:
        _, page = await client.ask("GET", "/v1/files", None, None, **query)
        listed += [each["id"] for each in page["data"]]
        query["after"] = page["last_id"]
        if not page["has_more"]:
            break
    assert listed == sorted(made, reverse=True)
    _, page = await client.ask("GET", "/v1/files", purpose="batch", limit="1")
    assert (len(page["data"]), page["has_more"]) == (1, True)
    _, rest = await client.ask("GET", "/v1/files", purpose="batch", after=page["last_id"])
    assert (len(rest["data"]), rest["has_more"]) == (1, False)
    status, told = await client.ask("GET", "/v1/files", after="file-nothing")
    assert (status, told["error"]["param"]) == (400, "after")


async def test_a_large_content_is_a_link(
    service: Bench, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_IN_BODY", 10)
    file = await client.upload(b"x" * 11)
    reply = await client.call("GET", f"/v1/files/{file['id']}/content")
    assert reply.code == 302
    assert reply.headers["Location"].startswith("https://memory.invalid/files/default/")
    assert reply.headers["Cache-Control"] == "no-store"
    async with bench(api_keys=KEYS, downloads="body", blobs=service.blobs) as other:
        refused = await Client(other).call("GET", f"/v1/files/{file['id']}/content")
        assert refused.code == 413
        assert "files/default/" in json.loads(refused.data)["error"]["message"]


async def test_a_deleted_file_is_named_no_more_and_read_to_the_end(
    service: Bench, client: Client
) -> None:
    file = await client.upload(rows(2))
    batch = await client.create(file["id"])
    status, told = await client.ask("DELETE", f"/v1/files/{file['id']}")
    assert (status, told) == (200, {"id": file["id"], "object": "file", "deleted": True})
    for method in ("GET", "DELETE"):
        assert (await client.ask(method, f"/v1/files/{file['id']}"))[0] == 404
    await service.service.retention.run()
    assert len(await stored(service, "files")) == 1
    await service.settle()
    assert (await client.batch(batch["id"]))["status"] == "completed"
    await service.service.retention.run()
    assert await stored(service, "files") == []


@pytest.mark.parametrize("names_it", ["marker", "job.json"])
async def test_a_job_that_cannot_be_read_keeps_its_input_and_nothing_else(
    service: Bench, client: Client, names_it: str, caplog: pytest.LogCaptureFixture
) -> None:
    read, other = await client.upload(rows(2)), await client.upload(rows(1))
    job = (await client.create(read["id"]))["id"].removeprefix("batch_")
    marker = service.store.marker(job)
    told = await service.blobs.read(marker)
    newer = json.dumps({**json.loads(told.data), "schema_version": 99}).encode()
    changed = newer if names_it == "marker" else b"odd"
    etag = await service.blobs.replace(marker, changed, told.etag)
    for file in (other, read):
        await client.ask("DELETE", f"/v1/files/{file['id']}")
    await service.service.retention.run()
    content = read["id"].removeprefix("file-")
    assert await stored(service, "files") == [f"default/{content}.jsonl"]
    assert await stored(service, "state", "files/") == []
    assert caplog.text.count("[INPUT_KEPT]") == 1
    await service.blobs.replace(marker, told.data, etag)
    await service.settle()
    await service.service.retention.run()
    assert await stored(service, "files") == []


async def test_a_job_that_nobody_can_read_keeps_no_file(service: Bench, client: Client) -> None:
    file = await client.upload(rows(1))
    await service.blobs.create(service.store.marker("20261126T000000Z-odd"), b"odd")
    await client.ask("DELETE", f"/v1/files/{file['id']}")
    await service.service.retention.run()
    assert await stored(service, "files") == []


async def test_a_file_expires_at_its_time(service: Bench, client: Client) -> None:
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "7200"}
    file = await client.upload(b"x", **fields)
    assert file["expires_at"] == file["created_at"] + 7200
    service.elapsed += 7000
    await service.service.retention.run()
    assert (await client.ask("GET", f"/v1/files/{file['id']}"))[0] == 200
    service.elapsed += 201
    assert (await client.ask("GET", f"/v1/files/{file['id']}"))[0] == 404
    await service.service.retention.run()
    assert await stored(service, "files") == await stored(service, "state") == []


async def test_a_content_that_was_never_named_goes(service: Bench, client: Client) -> None:
    file = await client.upload(b"x")
    [record] = await stored(service, "state", "files/")
    await service.blobs.delete(BlobRef("state", record))  # the process died before it
    service.elapsed += 3601
    await service.service.retention.run()
    assert await stored(service, "files") == await stored(service, "state") == []
    kept = await client.upload(b"y")
    service.elapsed += 3601
    await service.service.retention.run()
    assert await client.content(kept["id"]) == b"y"
    assert file["id"] != kept["id"]


async def test_results_go_with_all_that_they_were_made_of(service: Bench, client: Client) -> None:
    after = {"anchor": "created_at", "seconds": 3600}
    done = await client.run(
        rows(2) + b"{\n", output_expires_after=after, phi3={"on_invalid": "skip"}
    )
    assert done["status"] == "completed"
    told = (await client.ask("GET", f"/v1/files/{done['output_file_id']}"))[1]
    assert (told["purpose"], told["expires_at"]) == ("batch_output", done["completed_at"] + 3600)
    service.elapsed += 3590
    await service.service.retention.run()
    assert await client.content(done["output_file_id"])
    service.elapsed += 20
    for name in ("output_file_id", "error_file_id"):
        assert (await client.ask("GET", f"/v1/files/{done[name]}"))[0] == 404
    await service.service.retention.run()
    left = [name.rpartition("/")[2] for name in await stored(service, "results")]
    assert left == ["manifest.json", "report.html"]
    job = done["id"].removeprefix("batch_")
    for folder in ("output", "errors", "journal"):
        assert await stored(service, "state", f"jobs/{job}/{folder}/") == []
    assert (await client.batch(done["id"]))["status"] == "completed"


async def test_results_are_deleted_at_once_where_somebody_wants_it(
    service: Bench, client: Client
) -> None:
    done = await client.run(rows(2))
    path = f"/v1/files/{done['output_file_id']}"
    assert (await client.ask("DELETE", path))[1]["deleted"] is True
    assert (await client.ask("GET", path))[0] == 404
    await service.service.retention.run()
    job = done["id"].removeprefix("batch_")
    assert await stored(service, "state", f"jobs/{job}/output/") == []


async def test_remembered_requests_are_forgotten(service: Bench, client: Client) -> None:
    file = await client.upload(rows(1))
    await client.create(file["id"])
    assert len(await stored(service, "state", "creations/")) == 1
    service.elapsed += 86_401
    await service.service.retention.run()
    assert await stored(service, "state", "creations/") == []
    assert await stored(service, "state", "due/") == []
