"""What tests share: one Azurite and one Service Bus broker for each process that runs tests."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from local.azurite import Azurite
from local.azurite import azurite as running_azurite
from tests.leaks import log_watch, no_leaks

__all__ = ["azurite", "bus_connection", "log_watch", "no_leaks"]

ROOT = Path(__file__).parent.parent

# Examples are judged by what comes out, not by how busy the machine is.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share their module's loop, and what runs on it, in one process."""
    for item in items:
        marker = item.get_closest_marker("asyncio")
        if marker is not None and marker.kwargs.get("loop_scope") == "module":
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(ROOT).as_posix()))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def azurite() -> AsyncIterator[Azurite]:
    """Blob storage in memory: tests use containers of their own."""
    async with running_azurite() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def bus_connection() -> Iterator[str]:
    """The connection string of a broker with the entities of Config.json."""
    command = [sys.executable, "-m", "local.servicebus", "--config", "Config.json", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as broker:
        assert broker.stdout is not None
        connection = broker.stdout.readline().strip()
        assert connection, "the broker did not start: its reason is on standard error"
        yield connection
        broker.terminate()
