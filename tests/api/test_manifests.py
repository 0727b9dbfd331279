"""A batch's manifest over HTTP: the proof that belongs to its results."""

import hashlib
import json

import pytest

from tests.api.client import KEYS, Client, rows
from tests.doubles.service import bench
from workers.ports import BlobRef


@pytest.mark.parametrize("taken", [(), ("manifest.json", "output.jsonl")])
async def test_the_manifest_proves_the_results_once_they_stand(taken: tuple[str, ...]) -> None:
    """Also where somebody else has written files of their names."""
    async with bench(api_keys=KEYS) as service:
        client = Client(service)
        file = await client.upload(rows(3))
        batch = await client.create(file["id"])
        path = f"/v1/batches/{batch['id']}/manifest"
        status, told = await client.ask("GET", path)
        assert (status, told["error"]["code"]) == (404, "manifest_not_found")
        await service.settle(lambda delivery: b'"finish"' in delivery.message.body)
        folder = service.events[0]["data"]["results"].removeprefix("results/")
        for name in taken:
            await service.blobs.create(BlobRef("results", f"{folder}/{name}"), b'{"job": "x"}')
        assert (await client.ask("GET", path))[0] == 404
        await service.settle()
        links = await service.ask("POST", f"/api/jobs/{folder.rpartition('/')[2]}/links")
        names = {each["name"] for each in links.body["data"]}
        assert names >= ({"manifest.2.json", "output.2.jsonl"} if taken else {"manifest.json"})
        reply = await client.call("GET", path)
        assert (reply.code, reply.content_type) == (200, "application/json")
        manifest = json.loads(reply.data)
        output = await client.content((await client.batch(batch["id"]))["output_file_id"])
        (part,) = manifest["output"]["parts"]
        assert hashlib.sha256(output).hexdigest() == part["sha256"]
        reply = await client.call("GET", path.replace("manifest", "report"))
        assert (reply.code, reply.content_type) == (200, "text/html; charset=utf-8")
        assert batch["id"].removeprefix("batch_").encode() in reply.data
        assert reply.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
        assert reply.headers["Content-Disposition"] == "attachment"
        other, told = await Client(service, "blue").ask("GET", path)
        assert (other, told["error"]["code"]) == (404, "batch_not_found")


async def test_a_report_is_nobody_elses() -> None:
    async with bench(api_keys=KEYS) as service:
        client = Client(service)
        batch = await client.create((await client.upload(rows(3)))["id"])
        path = f"/v1/batches/{batch['id']}/report"
        before = await client.ask("GET", path)
        await service.settle(lambda delivery: b'"finish"' in delivery.message.body)
        folder = service.events[0]["data"]["results"].removeprefix("results/")
        theirs = BlobRef("results", f"{folder}/report.html")
        notes = f"<script>alert(1)</script> notes on {batch['id']}"
        await service.blobs.create(theirs, notes.encode())
        await service.settle()
        assert (await client.batch(batch["id"]))["status"] == "completed"
        for status, told in (before, await client.ask("GET", path)):
            assert (status, told["error"]["code"]) == (404, "report_not_found")
        other, told = await Client(service, "blue").ask("GET", path)
        assert (other, told["error"]["code"]) == (404, "batch_not_found")
