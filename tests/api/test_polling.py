"""What a look at batches costs: calls of storage, by the in-memory service."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from schemas.jobs import Reason
from schemas.listing import Rejection
from schemas.openai import Batch
from schemas.tenants import Tenant
from tests.api.client import KEYS, Client, rows
from tests.doubles.blobs import MemoryBlobs
from tests.doubles.faults import FaultyBlobs, Phase
from tests.doubles.service import EPOCH, Bench, bench
from workers.api.openai.ended import EndedBatches
from workers.jobs.index import JobIndex

TENANTS = {"default": Tenant(), "blue": Tenant()}


@pytest.fixture
def calls() -> Counter[str]:
    """Calls of storage since it was cleared last."""
    return Counter()


@pytest.fixture
async def service(calls: Counter[str]) -> AsyncIterator[Bench]:
    memory = MemoryBlobs(lambda: EPOCH + asyncio.get_running_loop().time())

    def count(kind: str, where: str, phase: Phase) -> None:
        calls[kind] += phase == "before"

    counted = FaultyBlobs(memory, count)
    async with bench(blobs=counted, transfers=memory, api_keys=KEYS, tenants=TENANTS) as made:
        yield made


@pytest.fixture
def client(service: Bench) -> Client:
    return Client(service)


async def test_an_ended_batch_is_read_from_storage_once(
    service: Bench, client: Client, calls: Counter[str]
) -> None:
    done = await client.run(rows(1))
    assert done["status"] == "completed"
    calls.clear()
    assert await client.batch(done["id"]) == done
    assert calls.total() == 0
    # Another tenant finds as little of it as before.
    status, _ = await Client(service, "blue").ask("GET", f"/v1/batches/{done['id']}")
    assert status == 404


async def test_a_batch_that_goes_on_is_read_each_time(
    service: Bench, client: Client, calls: Counter[str]
) -> None:
    batch = await client.create((await client.upload(rows(1)))["id"])
    await client.batch(batch["id"])
    calls.clear()
    await client.batch(batch["id"])
    assert calls == {"read": 1}
    await service.settle()
    assert (await client.batch(batch["id"]))["status"] == "completed"


async def test_a_page_lists_what_it_shows_and_reads_no_more(
    service: Bench, client: Client, calls: Counter[str]
) -> None:
    file = await client.upload(rows(1))
    made = []
    for _ in range(5):
        service.elapsed += 1.0
        made.append((await client.create(file["id"]))["id"])
        await client.batch(made[-1])
    calls.clear()
    status, told = await client.ask("GET", "/v1/batches", limit="3")
    assert [each["id"] for each in told["data"]] == made[:1:-1]
    # The state of each, and of the one more that tells whether others follow.
    assert calls == {"list": 1, "read": 4}
    await service.settle()
    await client.ask("GET", "/v1/batches")
    calls.clear()
    status, told = await client.ask("GET", "/v1/batches")
    assert ([each["id"] for each in told["data"]], status) == (made[::-1], 200)
    assert calls == {"list": 1}


async def test_a_rejection_that_is_called_as_a_job_is_no_batch(
    service: Bench, client: Client
) -> None:
    done = await client.run(rows(1))
    job = done["id"].removeprefix("batch_")
    reason = Reason(code="file_not_found", message="it was gone")
    rejection = Rejection(id=job, type="job.rejected", reason=reason, created=EPOCH - 60)
    await JobIndex(service.store).reject(rejection)
    for _ in range(2):
        _, told = await client.ask("GET", "/v1/batches")
        assert [each["id"] for each in told["data"]] == [done["id"]]


async def test_what_is_kept_is_bounded(service: Bench, client: Client) -> None:
    done = [await client.run(rows(1)) for _ in range(3)]
    jobs = [await service.store.job(each["id"].removeprefix("batch_")) for each in done]
    batches = [Batch.model_validate(each) for each in done]
    size = len(batches[0].model_dump_json())
    kept = EndedBatches(most_bytes=2 * size + 50)
    for job, batch in zip(jobs[:2], batches[:2], strict=True):
        assert job is not None
        kept.keep(job, batch)
    assert jobs[0] is not None
    assert jobs[2] is not None
    assert kept.find("default", jobs[0].id) == (jobs[0].created, batches[0])
    kept.keep(jobs[2], batches[2])
    kept.keep(jobs[2], batches[2])
    found = [kept.find("default", job.id) is not None for job in jobs if job]
    assert found == [True, False, True]
