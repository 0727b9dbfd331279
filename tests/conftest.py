"""What tests share: one Azurite and one Service Bus broker for each process that runs tests."""

import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from itertools import chain
from operator import itemgetter
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, settings

from local.azurite import Azurite
from local.azurite import azurite as running_azurite
from tests.leaks import log_watch, no_leaks
from tests.warm_hosts import StartProcess, WarmHosts

__all__ = ["azurite", "bus_connection", "log_watch", "no_leaks"]

TESTS = Path(__file__).parent
ROOT = TESTS.parent
WAITING = {"browser", "cli", "contract", "integration", "local", "openai", "servicebus"}

# What is loaded and collected stays to the end: no collector need look through it over and over.
gc.disable()

# Examples are judged by what comes out, not by how busy the machine is.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


# Before pytest-xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share their module's loop, and what runs on it, in one process.

    Modules that wait for processes, that simulate, and others come in turn: in the order of their
    names all processes would wait at once, and later none.
    """
    kinds: dict[str, dict[Path, list[pytest.Item]]] = {}
    for item in items:
        room = item.path.relative_to(TESTS).parts[0]
        kind = "waits" if room in WAITING else room if room == "simulation" else ""
        kinds.setdefault(kind, {}).setdefault(item.path, []).append(item)
    spread = [
        (place / len(modules), tests)
        for modules in kinds.values()
        for place, tests in enumerate(modules.values())
    ]
    items[:] = chain.from_iterable(tests for _, tests in sorted(spread, key=itemgetter(0)))
    for item in items:
        marker = item.get_closest_marker("asyncio")
        if marker is not None and marker.kwargs.get("loop_scope") == "module":
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(ROOT).as_posix()))


def pytest_collection_finish() -> None:
    """Have the garbage collector look at what tests make, and at nothing that was there before.

    It does so as often as a worker's.
    """
    # Not at the top: pytest-xdist's own process comes by there too, and waits for what it imports.
    from workers.service.memory import GC_THRESHOLD

    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def start_by_exec() -> Iterator[StartProcess]:
    """How users' hosts are started, in place of which the hosts that tests start are forked."""
    # Not at the top, as above.
    from local import hosts

    by_exec = hosts.start_process
    with WarmHosts() as warm, pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosts, "start_process", warm.start)
        yield by_exec


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


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A file with a key and a certificate for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return file
