"""What the storage adapter makes of lost answers, refusals, silence and restarts."""

import asyncio
import gzip
import logging
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryFile

import pytest
from aiohttp import web
from azure.storage.blob import (
    AccountSasPermissions,
    ContentSettings,
    ResourceTypes,
    generate_account_sas,
)
from azure.storage.blob.aio import BlobServiceClient, ExponentialRetry

from local.azurite import ACCOUNT, KEY, Azurite
from local.azurite import azurite as running_azurite
from tests.contract.lossy import Lossy, Mishap, Refuse, lossy
from workers.adapters import blobs as adapter
from workers.adapters import storage_client, storage_errors
from workers.adapters.blobs import AzureBlobs, connect_blobs
from workers.ports import BlobRef, errors

BUSY = Refuse(503, "ServerBusy")


@pytest.fixture
async def proxy(azurite: Azurite) -> AsyncIterator[Lossy]:
    async with lossy(azurite) as mishaps:
        yield mishaps


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK repeats as often as ever, but at once."""
    at_once = {"initial_backoff": 0, "increment_base": 0, "random_jitter_range": 0}
    monkeypatch.setattr(
        storage_client,
        "ExponentialRetry",
        lambda **options: ExponentialRetry(**{**options, **at_once}),
    )


@pytest.fixture
async def blobs(proxy: Lossy) -> AsyncIterator[AzureBlobs]:
    async with connect_blobs(proxy.connection_string) as client:
        yield client


@pytest.fixture
async def container(blobs: AzureBlobs) -> str:
    name = f"c{uuid.uuid4().hex}"
    await blobs.ensure_containers([name])
    return name


def copies(request: web.Request) -> bool:
    return "x-ms-copy-source" in request.headers


async def test_a_lost_answer_turns_one_s_own_success_into_a_conflict(
    blobs: AzureBlobs, proxy: Lossy, container: str
) -> None:
    ref = BlobRef(container, "state.json")
    proxy.plan.append("lose")
    with pytest.raises(errors.BlobExists):
        await blobs.create(ref, b"mine")
    stored = await blobs.read(ref)
    assert stored.data == b"mine"

    proxy.plan.append("lose")
    with pytest.raises(errors.BlobChanged):
        await blobs.replace(ref, b"mine, too", stored.etag)
    assert (await blobs.read(ref)).data == b"mine, too"


async def test_a_part_is_sent_again_from_its_beginning(
    blobs: AzureBlobs, proxy: Lossy, container: str
) -> None:
    data = bytes(range(256)) * 4096
    proxy.plan.extend([Refuse(503, "ServerBusy"), "lose"])
    proxy.concerns = lambda request: request.query.get("comp") == "block"
    await blobs.stage(BlobRef(container, "x"), "1" * 32, data)
    assert proxy.concerned >= 3
    await blobs.commit(BlobRef(container, "x"), ["1" * 32])
    assert (await blobs.read(BlobRef(container, "x"))).data == data


async def test_a_lost_answer_can_double_an_append(
    blobs: AzureBlobs, proxy: Lossy, container: str
) -> None:
    ref = BlobRef(container, "journal")
    await blobs.create_append(ref)

    proxy.plan.append("lose")
    await blobs.append(ref, b"line\n")

    assert (await blobs.read(ref)).data == b"line\nline\n"


# aiohttp makes up for the first answer that is lost; the second one is the SDK's to repeat.
@pytest.mark.parametrize("mishaps", [["lose", "lose"], ["cut"], [BUSY]])
async def test_a_read_that_was_repeated_still_tells_the_service_s_time(
    blobs: AzureBlobs, proxy: Lossy, container: str, mishaps: list[Mishap]
) -> None:
    ref = BlobRef(container, "state.json")
    await blobs.create(ref, b"mine")
    usual = await blobs.read(ref)
    proxy.plan.extend(mishaps)
    repeated = await blobs.read(ref)
    assert (repeated.data, repeated.etag) == (usual.data, usual.etag)
    assert 0 <= repeated.server_time - usual.server_time < 60


async def test_leases_survive_lost_answers(blobs: AzureBlobs, proxy: Lossy, container: str) -> None:
    ref, lease = BlobRef(container, "lease"), str(uuid.uuid4())
    await blobs.create(ref, b"")

    proxy.plan.append("lose")
    await blobs.acquire_lease(ref, lease, 15)
    proxy.plan.append("lose")
    await blobs.renew_lease(ref, lease)
    proxy.plan.append("lose")
    await blobs.release_lease(ref, lease)

    await blobs.acquire_lease(ref, str(uuid.uuid4()), 15)


@pytest.mark.parametrize(
    ("mishaps", "error"),
    [
        ([BUSY, "pass"], None),
        ([Refuse(500, "InternalError"), "lose"], None),
        ([BUSY, BUSY, BUSY], errors.Unavailable),
        ([Refuse(429, "TooManyRequests")], errors.Unavailable),
        ([Refuse(409, "ContainerBeingDeleted")], errors.Unavailable),
        ([Refuse(409, "BlockCountExceedsLimit")], errors.BlobFull),
        ([Refuse(412, "LeaseIdMismatchWithBlobOperation")], errors.LeaseLost),
        ([Refuse(412, "")], errors.BlobChanged),
        ([Refuse(403, "AuthorizationPermissionMismatch")], errors.StorageError),
        ([Refuse(400, "InvalidHeaderValue")], errors.StorageError),
    ],
)
async def test_refusals_have_one_meaning(
    blobs: AzureBlobs,
    proxy: Lossy,
    container: str,
    mishaps: list[Mishap],
    error: type[errors.WorkerError] | None,
) -> None:
    ref = BlobRef(container, "journal")
    await blobs.create_append(ref)
    proxy.plan.extend(mishaps)

    if error is None:
        await blobs.append(ref, b"x")
    else:
        with pytest.raises(error) as raised:
            await blobs.append(ref, b"x")
        assert type(raised.value) is error
        assert "journal" in str(raised.value)


async def test_who_may_not_is_told_which_role_to_give(
    blobs: AzureBlobs, proxy: Lossy, container: str
) -> None:
    proxy.plan.append(Refuse(403, "AuthorizationPermissionMismatch"))

    with pytest.raises(errors.StorageError, match="Storage Blob Data Owner"):
        await blobs.read(BlobRef(container, "x"))


async def test_a_lease_call_gives_up_while_there_is_time_for_another(
    blobs: AzureBlobs, proxy: Lossy, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, lease = BlobRef(container, "lease"), str(uuid.uuid4())
    await blobs.create(ref, b"")
    await blobs.acquire_lease(ref, lease, 15)
    assert adapter.LEASE_SECONDS * 2 < 28
    monkeypatch.setattr(adapter, "LEASE_SECONDS", 0.2)

    proxy.plan.append("silent")
    with pytest.raises(errors.Unavailable, match="lease"):
        await blobs.renew_lease(ref, lease)

    monkeypatch.setattr(adapter, "LEASE_SECONDS", 10.0)
    await blobs.renew_lease(ref, lease)


@pytest.mark.parametrize(
    ("refusal", "asked"),
    [
        (Refuse(501, "NotImplemented"), 1),
        (Refuse(403, "CannotVerifyCopySource"), 2),
        (Refuse(401, "NoAuthenticationInformation"), 2),
    ],
)
async def test_what_cannot_be_copied_by_url_is_streamed(
    blobs: AzureBlobs, proxy: Lossy, container: str, refusal: Refuse, asked: int
) -> None:
    source, target = BlobRef(container, "ä part"), BlobRef(container, "all")
    data = bytes(range(256)) * 20_000
    await blobs.create(source, data)
    proxy.concerns, before = copies, proxy.concerned
    proxy.plan.extend([refusal, refusal])

    await blobs.stage_from(target, "1", source)
    await blobs.stage_from(target, "2", source)
    await blobs.commit(target, ["1", "2"])

    assert (await blobs.read(target)).data == data + data
    assert proxy.concerned - before == asked  # a service that cannot is asked once


async def test_a_copy_of_what_is_missing_is_missing(blobs: AzureBlobs, container: str) -> None:
    with pytest.raises(errors.BlobMissing, match="gone"):
        await blobs.stage_from(BlobRef(container, "all"), "1", BlobRef(container, "gone"))


async def test_a_shared_access_signature_is_enough(proxy: Lossy, container: str) -> None:
    signature = generate_account_sas(
        ACCOUNT,
        KEY,
        ResourceTypes(container=True, object=True),
        AccountSasPermissions(read=True, write=True, list=True, create=True, delete=True),
        expiry="2099-01-01T00:00:00Z",
    )
    connection = f"{proxy.connection_string.split(';')[3]};SharedAccessSignature={signature};"
    source, target = BlobRef(container, "ä part"), BlobRef(container, "all")
    # Azurite answers 500 to copies that are signed so.
    proxy.concerns = copies
    proxy.plan.append(Refuse(501, "NotImplemented"))
    async with connect_blobs(connection) as blobs:
        await blobs.create(source, b"part")
        await blobs.stage_from(target, "1", source)
        await blobs.commit(target, ["1"])
        assert (await blobs.read(target)).data == b"part"


async def test_compressed_blobs_are_counted_as_they_are_stored(
    azurite: Azurite, container: str
) -> None:
    packed = gzip.compress(b"line\n" * 1000)
    async with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        await service.get_blob_client(container, "x.jsonl").upload_blob(
            packed, content_settings=ContentSettings(content_encoding="gzip")
        )
    async with connect_blobs(azurite.connection_string) as blobs:
        ref = BlobRef(container, "x.jsonl")
        assert (await blobs.head(ref)).size == len(packed)
        assert (await blobs.read(ref)).data == packed
        assert await blobs.read_range(ref, 3, 8) == packed[3:11]


async def test_large_blobs_come_and_go_in_parts(
    azurite: Azurite, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_client, "_SINGLE_PUT", 1 << 20)
    monkeypatch.setattr(storage_client, "_SINGLE_GET", 1 << 20)
    data = bytes(range(256)) * 36 * 1024  # 9 MiB
    ref = BlobRef(container, "large")
    async with connect_blobs(azurite.connection_string) as blobs:
        with TemporaryFile() as file:
            file.write(data)
            etag = await blobs.create(ref, file)
            with pytest.raises(errors.BlobExists):
                await blobs.create(ref, file)

        assert (await blobs.read(ref)).data == data
        assert await blobs.read_range(ref, 1000, 5 << 20, etag=etag) == data[1000:][: 5 << 20]


async def test_listings_go_on_over_pages(blobs: AzureBlobs, container: str) -> None:
    names = [f"jobs/{n}/x" for n in range(7)]
    for name in names:
        await blobs.create(BlobRef(container, name), b"")

    assert [info.ref.name async for info in blobs.list(container, page=3)] == names


async def test_an_answer_that_breaks_off_is_no_answer(
    blobs: AzureBlobs, proxy: Lossy, container: str
) -> None:
    await blobs.create(BlobRef(container, "x"), b"x" * 1000)
    proxy.plan.extend(["cut"] * 20)

    with pytest.raises(errors.Unavailable):
        [info async for info in blobs.list(container)]


async def test_an_outage_is_one_line_where_it_begins_and_one_where_it_ends(
    blobs: AzureBlobs,
    proxy: Lossy,
    container: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ref = BlobRef(container, "state.json")
    await blobs.create(ref, b"{}")
    monkeypatch.setattr(errors.Outage, "QUIET", 0.0)
    log = logging.getLogger(storage_errors.__name__)
    monkeypatch.setattr(storage_errors, "OUTAGE", errors.Outage(log, "Blob Storage"))
    caplog.set_level(logging.WARNING, "workers.adapters")
    for _ in range(3):
        proxy.plan.extend([BUSY] * 3)
        with pytest.raises(errors.Unavailable):
            await blobs.read(ref)
    with pytest.raises(errors.BlobMissing):
        await blobs.read(BlobRef(container, "gone"))
    await blobs.read(ref)
    begin, end = (
        record.getMessage() for record in caplog.records if record.name.startswith("workers.")
    )
    assert begin.startswith("[OUT_OF_ORDER] Blob Storage is out of order: ")
    assert "ServerBusy" in begin
    assert end.startswith("[IN_ORDER] Blob Storage is in order again")


async def test_a_restart_is_an_outage_not_a_loss(tmp_path: Path) -> None:
    async with (
        running_azurite(tmp_path / "storage") as emulator,
        connect_blobs(emulator.connection_string) as blobs,
    ):
        await blobs.ensure_containers(["kept"])
        await blobs.create(BlobRef("kept", "x"), b"data")
        await emulator.stop()
        with pytest.raises(errors.Unavailable):
            await blobs.renew_lease(BlobRef("kept", "x"), str(uuid.uuid4()))
        await emulator.start()
        assert (await blobs.read(BlobRef("kept", "x"))).data == b"data"
        await emulator.kill()


async def test_connecting_calls_nobody() -> None:
    nobody = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/a;"
    async with connect_blobs(nobody) as blobs:
        assert isinstance(blobs, AzureBlobs)
    async with connect_blobs("UseDevelopmentStorage=true") as blobs:
        assert isinstance(blobs, AzureBlobs)


@pytest.mark.parametrize("connection", [None, "", "AccountKey=c2VjcmV0", "c2VjcmV0"])
async def test_a_bad_connection_string_is_not_repeated(connection: str | None) -> None:
    with pytest.raises(errors.SettingsError) as raised:
        async with connect_blobs(connection):
            pass
    assert "c2VjcmV0" not in str(raised.value)
    assert raised.value.__cause__ is None


async def test_a_cancelled_call_is_cancelled(
    blobs: AzureBlobs, proxy: Lossy, container: str
) -> None:
    proxy.plan.append("silent")
    call = asyncio.create_task(blobs.read(BlobRef(container, "x")))
    async with asyncio.timeout(5):
        await proxy.met.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
