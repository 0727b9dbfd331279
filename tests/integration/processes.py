"""The whole system as real processes: Azurite, the broker and N function hosts.

They are children of the test, on free ports and in a folder of their own; the simulated endpoint
runs in the test's process, so that its counts are at hand.
"""

import asyncio
import json
import secrets
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from azure.storage.blob.aio import BlobServiceClient

from local import keys
from local.azurite import Azurite, azurite
from local.endpoint import Endpoint, Settings, simulate
from local.hosts import Hosts, hosts
from local.stack import BUS, PROJECT, STORAGE

CONFIG = PROJECT / "Config.json"
CHAT_MODEL = "Phi-3-mini-4k-instruct"
EMBED_MODEL = "simulated-embed"
KEY_SETTING = "ENDPOINT_KEY"
CONTAINERS = ("prompts", "nightly", "inputs", "files", "results", "state")
POLL_SECONDS = 0.05

Held = TypeVar("Held")


class Broker:
    """The local Service Bus broker on a file, as a child process: it may be killed."""

    def __init__(self, config: Path, data: Path) -> None:
        self._config, self._data = config, data
        self._port = 0
        self._process: Process | None = None
        self.connection_string = ""

    async def start(self) -> None:
        """Start, on the same port as before."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "local.servicebus"),
            *("--config", str(self._config), "--port", str(self._port), "--data", str(self._data)),
            cwd=PROJECT,
            stdout=PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            self.connection_string = (await self._process.stdout.readline()).decode().strip()
        assert self.connection_string, "the broker did not start: its reason is on standard error"
        self._port = int(self.connection_string.partition(";")[0].rpartition(":")[2])

    async def kill(self) -> None:
        """SIGKILL, as a crash would be."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()


@dataclass
class Processes:
    """Everything that runs. Made by `processes`."""

    folder: Path
    azurite: Azurite
    broker: Broker
    endpoint: Endpoint
    hosts: Hosts
    settings: Mapping[str, str]
    key: str
    log: list[str] = field(default_factory=list)

    def billed(self) -> dict[str, int]:
        """How often the endpoint billed each row, by the digest of what it asks."""
        return dict(self.endpoint.stats(rows=True)["billed"])

    @asynccontextmanager
    async def more_workers(self, count: int) -> AsyncIterator[list[str]]:
        """Scale out while the context lasts; gives what the new hosts log."""
        log: list[str] = []
        async with hosts(count, PROJECT, log.append, verbose=True) as more:
            more.give(self.settings)
            await until(lambda: listening(log) >= count, f"{count} more workers")
            yield log
        self.log += log


@asynccontextmanager
async def processes(
    folder: Path,
    *,
    workers: int = 1,
    simulator: Settings | None = None,
    deployments: Callable[[str], Sequence[Mapping[str, Any]]] | None = None,
    settings: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> AsyncIterator[Processes]:
    """Start everything; stop it all at the end.

    `deployments` gives DEPLOYMENTS, without keys, for the simulator's url; `settings` are further
    app settings; `config` stands for Config.json.
    """
    key = secrets.token_urlsafe()
    chosen = replace(simulator or Settings(profile="openai"), key=key)
    broker = Broker(_config_file(folder, config), folder / "servicebus.sqlite")
    log: list[str] = []
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        running = await enter(hosts(workers, PROJECT, log.append, verbose=True))
        storage = await enter(azurite(folder / "azurite"))
        await broker.start()
        stack.push_async_callback(broker.kill)
        endpoint = await enter(simulate(chosen))
        listed = (deployments or usual_deployments)(endpoint.url)
        given = {
            STORAGE: storage.connection_string,
            BUS: broker.connection_string,
            "DEPLOYMENTS": json.dumps([_with_key(each) for each in listed]),
            KEY_SETTING: key,
            keys.SETTING: "",
            **(settings or {}),
        }
        await _create_containers(storage)
        running.give(given)
        # Stopped before what they depend on, so that they can hand back their work.
        stack.push_async_callback(running.stop)
        await until(lambda: listening(log) >= workers, f"{workers} workers", 180)
        yield Processes(folder, storage, broker, endpoint, running, given, key, log)


def listening(log: list[str]) -> int:
    """How many hosts have begun to take shards, by what they log: one that serves may not yet."""
    return sum("Listening for 'Functions.shards'" in line for line in log)


async def _create_containers(storage: Azurite) -> None:
    async with BlobServiceClient.from_connection_string(storage.connection_string) as client:
        for name in CONTAINERS:
            await client.create_container(name)


def usual_deployments(url: str) -> list[dict[str, Any]]:
    """A chat model and an embedding model, without quotas."""
    chat = {"name": "chat", "model": CHAT_MODEL, "url": f"{url}/endpoints/{CHAT_MODEL}"}
    embed = {"name": "embed", "model": EMBED_MODEL, "url": f"{url}/endpoints/{EMBED_MODEL}"}
    kind = {"kind": "model-inference"}
    return [
        chat | kind | {"tasks": ["chat", "completions"]},
        embed | kind | {"tasks": ["embeddings", "image-embeddings"]},
    ]


def _config_file(folder: Path, config: Mapping[str, Any] | None) -> Path:
    if config is None:
        return CONFIG
    path = folder / "Config.json"
    path.write_text(json.dumps(config))
    return path


def _with_key(deployment: Mapping[str, Any]) -> dict[str, Any]:
    return {"auth": "key", "key_setting": KEY_SETTING, **deployment}


async def until(
    condition: Callable[[], Any],
    what: str,
    seconds: float = 60,
) -> Any:
    """Wait until a condition, async or not, holds; gives what it gave. Fails when it is late."""
    deadline = time.monotonic() + seconds
    while True:
        held = condition()
        if isinstance(held, Awaitable):
            held = await held
        if held:
            return held
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def in_one_task(
    context: AbstractAsyncContextManager[Held],
) -> AsyncIterator[Held]:
    """Enter and leave a context in one task, as task groups demand; a fixture has two."""
    entered: asyncio.Future[Held] = asyncio.get_running_loop().create_future()
    leave = asyncio.Event()

    async def hold() -> None:
        async with context as held:
            entered.set_result(held)
            await leave.wait()

    task = asyncio.create_task(hold())
    either: list[asyncio.Future[Any]] = [task, entered]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        yield entered.result()
    finally:
        leave.set()
        await task
