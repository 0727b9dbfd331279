"""What a process says in its log: its own words, and of the SDKs what somebody has to know."""

import asyncio
import gc
import logging
from collections.abc import Iterator

import pytest

from local.azurite import Azurite
from workers import service
from workers.adapters.blobs import connect_blobs
from workers.ports import BlobRef

DEPLOYMENT = (
    '[{"name": "phi", "kind": "openai", "url": "http://localhost", "model": "m", "auth": "none"}]'
)
BUS = (
    "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=n;SharedAccessKey=k;UseDevelopmentEmulator=true;"
)


@pytest.fixture
def sdks() -> Iterator[logging.Logger]:
    """The SDKs' logger as a Functions host leaves it: everything at INFO reaches the app's log."""
    logger = logging.getLogger("azure")
    level, thresholds = logger.level, gc.get_threshold()
    logger.setLevel(logging.NOTSET)
    yield logger
    logger.setLevel(level)
    gc.set_threshold(*thresholds)


async def started(azurite: Azurite) -> None:
    environment = {
        service.BLOBS: azurite.connection_string,
        service.BUS: BUS,
        "DEPLOYMENTS": DEPLOYMENT,
    }
    running = await service.start(environment)
    running._attending.cancel()
    await asyncio.gather(running._attending, return_exceptions=True)
    await running._open.aclose()


async def test_requests_of_the_sdks_do_not_reach_the_log(
    azurite: Azurite, sdks: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    await started(azurite)
    with caplog.at_level(logging.INFO):
        async with connect_blobs(azurite.connection_string) as blobs:
            await blobs.ensure_containers(["somebodys-blobs"])
            await blobs.create(BlobRef("somebodys-blobs", "a-name-of-theirs"), b"")
        logging.getLogger("azure.core").warning("a warning goes through")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("azure.")]
    assert said == ["a warning goes through"]


async def test_a_level_that_somebody_has_set_stays(azurite: Azurite, sdks: logging.Logger) -> None:
    sdks.setLevel(logging.DEBUG)
    await started(azurite)
    assert sdks.level == logging.DEBUG
