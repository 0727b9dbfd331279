"""Real parts: Azurite, the local Service Bus, and hosts that run a small app as child processes."""

import asyncio
import json
import os
import re
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from azure.core.exceptions import ResourceNotFoundError
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from local import hosts
from local.azurite import Azurite
from local.servicebus import Server, serve
from tests.warm_hosts import StartProcess

PROJECT = Path(__file__).parents[2]
APP = Path(__file__).parent / "app"
KEY = "the-function-key"
DEADLINE = 20.0


def queue(name: str, lock: str) -> dict[str, Any]:
    return {"Name": name, "Properties": {"LockDuration": lock, "MaxDeliveryCount": 3}}


def config(lock: str = "PT1M") -> dict[str, Any]:
    namespace = {"Name": "sbemulatorns", "Queues": [queue("jobs", lock)], "Topics": []}
    return {"UserConfig": {"Namespaces": [namespace], "Logging": {"Type": "File"}}}


@dataclass
class Recorder:
    """What the app told, and what it is answered."""

    facts: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    answer: Callable[[dict[str, Any]], Awaitable[str]] | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, request: web.Request) -> web.Response:
        fact = await request.json()
        async with self.changed:
            self.facts.append(fact)
            self.changed.notify_all()
        return web.Response(text=await self.answer(fact) if self.answer else "")

    def of(self, what: str) -> list[dict[str, Any]]:
        return [fact for fact in self.facts if fact["what"] == what]

    async def wait(self, what: str, count: int = 1) -> list[dict[str, Any]]:
        async with asyncio.timeout(DEADLINE), self.changed:
            await self.changed.wait_for(lambda: len(self.of(what)) >= count)
            return self.of(what)


@asynccontextmanager
async def recording() -> AsyncIterator[Recorder]:
    recorder = Recorder()
    application = web.Application()
    application.router.add_post("/", recorder.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    recorder.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield recorder
    await runner.cleanup()


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    async with recording() as recorder:
        yield recorder


@pytest.fixture(scope="session")
def storage() -> Iterator[str]:
    emulator = Azurite()
    asyncio.run(emulator.start())
    yield emulator.connection_string
    asyncio.run(emulator.stop())


@pytest.fixture
async def prompts(storage: str) -> AsyncIterator[ContainerClient]:
    """The container that the app's blob trigger looks at, empty."""
    async with BlobServiceClient.from_connection_string(storage) as client:
        container = client.get_container_client("prompts")
        with suppress(ResourceNotFoundError):
            async for blob in container.list_blobs():
                await container.delete_blob(blob.name)
        yield container


@pytest.fixture
async def bus() -> AsyncIterator[Server]:
    async with serve(config()) as server:
        yield server


async def send(bus: Server | str, *bodies: str | bytes, **fields: Any) -> None:
    connection_string = bus if isinstance(bus, str) else bus.connection_string
    async with (
        ServiceBusClient.from_connection_string(connection_string) as client,
        client.get_queue_sender("jobs") as sender,
    ):
        await sender.send_messages([ServiceBusMessage(body, **fields) for body in bodies])


@dataclass
class RunningHost:
    process: Process
    url: str

    async def end(self) -> int:
        with suppress(ProcessLookupError):
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), DEADLINE)


@pytest.fixture
def executed(start_by_exec: StartProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts of this test start as users' do."""
    monkeypatch.setattr(hosts, "start_process", start_by_exec)


StartHost = Callable[..., Awaitable[RunningHost]]


@asynccontextmanager
async def host_process(
    settings: dict[str, str], app: Path = APP, *arguments: str
) -> AsyncIterator[Process]:
    process = await hosts.start_process(
        ["--app", str(app), *arguments, "--settings-from-stdin"], clean()
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(settings).encode() + b"\n")
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()  # and not wait(): its pipes close while there is a loop


def blocks(path: str, language: str = "sh") -> list[str]:
    """The blocks of a document of the project that are in a language."""
    text = (PROJECT / path).read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def clean() -> dict[str, str]:
    """The environment without the settings that the app reads."""
    own = {"RECORDER", "JOBS_QUEUE", "TIMER_SCHEDULE", "DEPLOYMENTS", "LOCAL_FUNCTION_KEY"}
    return {name: value for name, value in os.environ.items() if name not in own}


@asynccontextmanager
async def starting(storage: str, bus: Server, recorder: Recorder) -> AsyncIterator[StartHost]:
    """Start hosts; those that still run are ended, so that they give up their lease."""
    async with AsyncExitStack() as stack:

        async def start_one(
            *arguments: str, app: Path = APP, wanted_bus: str = "", **settings: str
        ) -> RunningHost:
            given = {
                "AzureWebJobsStorage": storage,
                "ServiceBusConnection": wanted_bus or bus.connection_string,
                "JOBS_QUEUE": "jobs",
                "TIMER_SCHEDULE": "0 0 0 1 1 *",
                "RECORDER": recorder.url,
                "LOCAL_FUNCTION_KEY": KEY,
            } | settings
            process = await stack.enter_async_context(host_process(given, app, *arguments))
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), DEADLINE)
            running = RunningHost(process, line.decode().strip())
            stack.push_async_callback(running.end)
            return running

        yield start_one


@pytest.fixture
async def start(storage: str, bus: Server, recorder: Recorder) -> AsyncIterator[StartHost]:
    async with starting(storage, bus, recorder) as start:
        yield start


@dataclass
class Standing:
    """A host that several tests ask, and what is around it."""

    url: str
    bus: Server
    recorder: Recorder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(azurite: Azurite) -> AsyncIterator[Standing]:
    """Not on `storage`, where it would have the lease that the other hosts compete for."""
    async with (
        serve(config()) as bus,
        recording() as recorder,
        starting(azurite.connection_string, bus, recorder) as start,
    ):
        host = await start(FUNCTIONS_REQUEST_BODY_SIZE_LIMIT="1000")
        yield Standing(host.url, bus, recorder)


@pytest.fixture
def host(standing: Standing) -> Standing:
    """The standing host, when nobody has told or asked the recorder anything."""
    standing.recorder.facts.clear()
    standing.recorder.answer = None
    return standing
