"""What `workers.ports.Transfers` promises, held against Azurite and against the double."""

import uuid
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from local.azurite import Azurite
from tests.doubles import MemoryBlobs
from workers.adapters.blobs import AzureBlobs, connect_blobs
from workers.ports import BlobRef

Storage = AzureBlobs | MemoryBlobs


@pytest.fixture(params=["memory", pytest.param("azurite", marks=pytest.mark.slow)])
def emulator(request: pytest.FixtureRequest) -> Azurite | None:
    """The emulator, which is started only where it is wanted."""
    if request.param == "memory":
        return None
    started: Azurite = request.getfixturevalue("azurite")
    return started


@pytest.fixture
async def storage(emulator: Azurite | None) -> AsyncIterator[Storage]:
    if emulator is None:
        yield MemoryBlobs(lambda: 1000.0)
        return
    async with connect_blobs(emulator.connection_string) as blobs:
        yield blobs


@pytest.fixture
async def ref(storage: Storage) -> BlobRef:
    container = f"c{uuid.uuid4().hex}"
    await storage.ensure_containers([container])
    return BlobRef(container, "tenant/é.jsonl")


async def test_staged_blocks_are_told_until_they_are_committed(
    storage: Storage, ref: BlobRef
) -> None:
    assert await storage.staged(ref) == {}
    one, two, three = ("1" * 32, "2" * 32, "3" * 32)
    for block, data in ((one, b"left"), (two, b"second"), (three, b"first ")):
        await storage.stage(ref, block, data)
    await storage.stage(ref, one, b"left out")
    assert await storage.staged(ref) == {one: 8, two: 6, three: 6}
    await storage.commit(ref, [three, two])
    assert (await storage.read(ref)).data == b"first second"
    assert await storage.staged(ref) == {}


@pytest.mark.slow
async def test_a_link_reads_one_blob_and_nothing_else(azurite: Azurite) -> None:
    async with connect_blobs(azurite.connection_string) as blobs, aiohttp.ClientSession() as http:
        container = f"c{uuid.uuid4().hex}"
        await blobs.ensure_containers([container])
        ref, other = BlobRef(container, "a b.jsonl"), BlobRef(container, "other")
        for each in (ref, other):
            await blobs.create(each, b"content")
        link = await blobs.link(ref, 900.0, 'é".jsonl')
        async with http.get(link) as answer:
            assert (answer.status, await answer.read()) == (200, b"content")
            assert "filename*=UTF-8''%C3%A9%22.jsonl" in answer.headers["Content-Disposition"]
        parts = urlsplit(link)
        query = parse_qs(parts.query)
        assert (query["sp"], query["sr"]) == (["r"], ["b"])
        async with http.delete(link) as answer:
            assert answer.status == 403
        elsewhere = parts._replace(path=f"/devstoreaccount1/{container}/other").geturl()
        async with http.get(elsewhere) as answer:
            assert answer.status == 403
        late = await blobs.link(ref, -1.0, "a.jsonl")
        async with http.get(late) as answer:
            assert answer.status == 403
