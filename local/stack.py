"""All that stands in for Azure: storage, Service Bus, an endpoint, and the function hosts.

The broker and the simulator run in this process; Azurite and the hosts are its children, and end
with it however it ends.
"""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob.aio import BlobServiceClient

from local import keys, settings, simulated
from local.azurite import FolderInUseError, azurite
from local.endpoint.profiles import ProfileName
from local.endpoint.server import simulate
from local.endpoint.settings import Settings
from local.hosts import Hosts, failure_in, hosts
from local.servicebus import serve
from local.servicebus.server.store import StoreInUseError
from workers.ports.errors import SettingsError
from workers.settings import Settings as AppSettings
from workers.settings import read_settings

PROJECT = Path(__file__).parent.parent
STORAGE = "AzureWebJobsStorage"
BUS = "ServiceBusConnection"

# As infra/service/app.bicep sets it: above what the doors take, so that they refuse in words of
# their own.
BODY_BYTES = 128 * 1024 * 1024

Prepare = Callable[[BlobServiceClient, AppSettings], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What is started. Blobs and messages are kept in a folder and a file, or in memory (None).

    Without a `key`, the doors under /api are open to all. The `api_key` opens those under /v1,
    where the setting API_KEYS says nothing else. `settings` are further ones of the hosts.
    """

    workers: int = 1
    app: Path = PROJECT
    blobs: Path | None = None
    messages: Path | None = None
    storage_port: int = 0
    bus_port: int = 0
    http_port: int = 0
    profile: ProfileName = "serverless"
    simulator: Mapping[str, Any] = field(default_factory=dict)
    verbose: bool = False
    key: str = ""
    api_key: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stack:
    """Where everything is. `endpoint` is None where DEPLOYMENTS names real ones."""

    storage: str
    bus: str
    endpoint: str | None
    hosts: Hosts


@asynccontextmanager
async def stack(
    options: StackOptions, tell: Callable[[str], None], prepare: Prepare | None = None
) -> AsyncIterator[Stack]:
    """Start everything, at once where nothing has to wait; stop it all at the end.

    `tell` gets what the hosts log; `prepare` may change what is stored before the hosts see it.
    Errors: `SettingsError`; in a group also `HostsFailedError`, `StoreInUseError` and
    `FolderInUseError`.
    """
    given = {**settings.read(options.app), **os.environ, **options.settings}
    _check(given, options)
    async with (
        hosts(
            options.workers,
            options.app,
            tell,
            http_port=options.http_port,
            verbose=options.verbose,
        ) as running,
        _bus(options) as bus,  # before storage: it notices that the data are in use
        azurite(options.blobs, options.storage_port) as storage,
        endpoint_for(options, given) as (endpoint, deployments),
    ):
        await _prepare(storage.connection_string, read_settings(given | deployments), prepare)
        own = {STORAGE: storage.connection_string, BUS: bus, keys.SETTING: options.key}
        own[settings.BODY_LIMIT] = str(BODY_BYTES)
        if options.api_key:
            own[keys.API_KEYS] = keys.api_keys(options.api_key, given.get(keys.API_KEYS, ""))
        running.give({**options.settings, **own, **deployments})
        try:
            yield Stack(storage.connection_string, bus, endpoint, running)
        finally:
            # Started first, because loading takes them longest; stopped first as well, while what
            # they hand back their work to is still there.
            await running.stop()


def _check(given: Mapping[str, str], options: StackOptions) -> None:
    """A mistake is told before anything is started. Errors: `SettingsError`."""
    if not given.get("DEPLOYMENTS"):
        limits = Settings(profile=options.profile, **options.simulator).limits
        simulator = simulated.settings_for(options.profile, limits, "http://localhost", "key")
        given = {**given, **simulator}
    read_settings(given)


@asynccontextmanager
async def _bus(options: StackOptions) -> AsyncIterator[str]:
    config, data = options.app / "Config.json", options.messages
    async with serve(config, port=options.bus_port, data=data) as server:
        yield server.connection_string


@asynccontextmanager
async def endpoint_for(
    options: StackOptions, given: Mapping[str, str]
) -> AsyncIterator[tuple[str | None, dict[str, str]]]:
    """The simulator and the settings that lead to it; none where DEPLOYMENTS is set."""
    if given.get("DEPLOYMENTS"):
        yield None, {}
        return
    key = simulated.new_key()
    chosen = Settings(
        profile=options.profile, key=key, models=simulated.MODELS, **options.simulator
    )
    async with simulate(chosen) as endpoint:
        yield (
            endpoint.url,
            simulated.settings_for(options.profile, chosen.limits, endpoint.url, key),
        )


async def _prepare(storage: str, chosen: AppSettings, prepare: Prepare | None) -> None:
    """Create the containers, as infra/service/storage.bicep does on Azure."""
    own = {chosen.results_container, chosen.state_container}
    async with BlobServiceClient.from_connection_string(storage) as client:
        for name in sorted({*chosen.all_input_containers} | own):
            with suppress(ResourceExistsError):
                await client.create_container(name)
        if prepare is not None:
            await prepare(client, chosen)


def failed(group: BaseExceptionGroup[BaseException]) -> int:
    """Tell why what was started cannot go on: the exit status. Others' errors are raised again."""
    failure = failure_in(group)
    if failure is None:
        raise group
    hint = ": is another one running? wait for it, or name another folder with --data"
    in_use = isinstance(failure, StoreInUseError | FolderInUseError)
    print(f"error: {failure}{hint if in_use else ''}", file=sys.stderr)
    return 2 if isinstance(failure, SettingsError) else 1
