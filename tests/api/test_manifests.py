"""A batch's manifest over HTTP: the proof that belongs to its results."""

import hashlib
import json

from tests.api.client import KEYS, Client, rows
from tests.doubles.service import bench


async def test_the_manifest_proves_the_results_once_they_stand() -> None:
    async with bench(api_keys=KEYS) as service:
        client = Client(service)
        file = await client.upload(rows(3))
        batch = await client.create(file["id"])
        path = f"/v1/batches/{batch['id']}/manifest"
        status, told = await client.ask("GET", path)
        assert (status, told["error"]["code"]) == (404, "manifest_not_found")
        await service.settle()
        reply = await client.call("GET", path)
        assert (reply.code, reply.content_type) == (200, "application/json")
        manifest = json.loads(reply.data)
        output = await client.content((await client.batch(batch["id"]))["output_file_id"])
        (part,) = manifest["output"]["parts"]
        assert hashlib.sha256(output).hexdigest() == part["sha256"]
        other, told = await Client(service, "blue").ask("GET", path)
        assert (other, told["error"]["code"]) == (404, "batch_not_found")
