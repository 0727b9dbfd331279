"""Telling a receiver once more, over HTTP."""

from collections.abc import AsyncIterator, Sequence

import pytest

from schemas.tenants import Tenant
from tests.api.client import KEYS, Client, rows
from tests.doubles.bus import MemoryBus
from tests.doubles.service import Bench, bench
from tests.doubles.webhooks import HOOK
from workers.jobs.outbox import WEBHOOKS
from workers.ports import OutMessage
from workers.ports.errors import Unavailable


@pytest.fixture
async def service() -> AsyncIterator[Bench]:
    tenants = {"default": Tenant(), "blue": Tenant()}
    async with bench(api_keys=KEYS, tenants=tenants, webhooks={"default": HOOK}) as made:
        yield made


async def test_the_same_event_is_told_again(service: Bench) -> None:
    client = Client(service)
    done = await client.run(rows(1))
    (first,) = service.receiver.posts
    code, batch = await client.ask("POST", f"/v1/batches/{done['id']}/webhooks")
    assert (code, batch["id"], batch["status"]) == (200, done["id"], "completed")
    await service.settle()
    _, again = service.receiver.posts
    assert again.body == first.body
    assert again.headers["webhook-id"] == first.headers["webhook-id"] == first.event["id"]


async def test_a_batch_that_runs_has_no_end_to_tell(service: Bench) -> None:
    client = Client(service)
    running = await client.create((await client.upload(rows(1)))["id"])
    code, body = await client.ask("POST", f"/v1/batches/{running['id']}/webhooks")
    assert (code, body["error"]["code"]) == (409, "not_possible")
    assert service.receiver.posts == []


async def test_a_tenant_without_a_receiver_is_told_so(service: Bench) -> None:
    client = Client(service, "blue")
    done = await client.run(rows(1))
    code, body = await client.ask("POST", f"/v1/batches/{done['id']}/webhooks")
    assert (code, body["error"]["code"]) == (409, "no_webhook")
    assert "WEBHOOKS" in body["error"]["message"]
    assert isinstance(service.bus, MemoryBus)
    assert service.bus.waiting(WEBHOOKS) == []
    assert service.receiver.posts == []


async def test_a_deleted_input_goes_though_a_webhook_is_still_owed(
    service: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, send = Client(service), service.bus.send

    async def deaf(entity: str, messages: Sequence[OutMessage]) -> None:
        if entity == WEBHOOKS:
            raise Unavailable("no queue")
        await send(entity, messages)

    monkeypatch.setattr(service.bus, "send", deaf)
    file = await client.upload(rows(1))
    batch = await client.create(file["id"])
    await service.settle()
    job = batch["id"].removeprefix("batch_")
    ends = [event for event in service.events if event["type"] == "job.completed"]
    await client.ask("DELETE", f"/v1/files/{file['id']}")
    await service.sweeper.run()
    await service.service.retention.run()
    assert [info.ref.name async for info in service.blobs.list("files")] == []
    assert await service.store.is_open(job)
    monkeypatch.undo()
    await service.sweeper.run()
    await service.settle()
    assert not await service.store.is_open(job)
    assert [post.event["data"]["id"] for post in service.receiver.posts] == [batch["id"]]
    assert [event for event in service.events if event["type"] == "job.completed"] == ends
