"""The whole system as real processes, and what a user of it does: drop, ask, listen, download.

Azurite, the broker and N function hosts are children of the test, on free ports and in a folder of
their own; the simulated endpoint runs in the test's process, so that its counts are at hand.
"""

import asyncio
import json
import secrets
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import orjson
from azure.core.exceptions import ResourceNotFoundError
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusSender
from azure.servicebus.exceptions import ServiceBusError
from azure.storage.blob.aio import BlobServiceClient

from local import results
from local.azurite import Azurite, azurite
from local.dropping import metadata_for
from local.endpoint import Endpoint, Settings, simulate
from local.endpoint.answers import LABEL
from local.following import LAST_EVENTS
from local.hosts import Hosts, hosts
from local.stack import BUS, PROJECT, STORAGE
from local.verifying import verify
from schemas.jobs import JobStatus
from schemas.messages import StatusEvent
from schemas.results import Manifest

CONFIG = PROJECT / "Config.json"
CHAT_MODEL = "Phi-3-mini-4k-instruct"
EMBED_MODEL = "simulated-embed"
KEY_SETTING = "ENDPOINT_KEY"
# Words of each prompt that `chats` makes.
PROMPT = "what about number"
CONTAINERS = ("prompts", "nightly", "inputs", "results", "state")
POLL_SECONDS = 0.05

Held = TypeVar("Held")
Row = Mapping[str, Any]


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
        async with asyncio.timeout(30):
            self.connection_string = (await self._process.stdout.readline()).decode().strip()
        assert self.connection_string, "the broker did not start: its reason is on standard error"
        self._port = int(self.connection_string.partition(";")[0].rpartition(":")[2])

    async def kill(self) -> None:
        """SIGKILL, as a crash would be."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@dataclass(frozen=True, slots=True)
class Told:
    """A status event as it came from a subscription."""

    event: StatusEvent
    properties: dict[str, str]
    message_id: str | None
    correlation_id: str | None

    @property
    def status(self) -> JobStatus:
        """The job as the event tells of it."""
        return self.event.data

    @property
    def last(self) -> bool:
        """Whether nothing comes after it."""
        return self.event.type in LAST_EVENTS


@dataclass(frozen=True, slots=True)
class Results:
    """What a job left, verified against its manifest."""

    output: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    errors_raw: bytes
    manifest: Manifest

    def check(self, rows: int) -> None:
        """Each of the input's rows has exactly one line, and the lines stand in input order."""
        good, bad = (
            [int(line["id"].rpartition("-")[2]) for line in lines]
            for lines in (self.output, self.errors)
        )
        assert good == sorted(set(good)), "output.jsonl doubles or reorders rows"
        assert bad == sorted(set(bad)), "errors.jsonl doubles or reorders rows"
        assert sorted(good + bad) == list(range(1, rows + 1))
        assert self.manifest.counts.total == rows

    def answers(self) -> dict[str, Any]:
        """The answer of each row that succeeded, by custom_id."""
        return {line["custom_id"]: answer_of(line["response"]["body"]) for line in self.output}

    def codes(self) -> dict[int, str]:
        """The error code of each row that did not, by line number."""
        return {line["line"]: line["error"]["code"] for line in self.errors}


def answer_of(body: Mapping[str, Any]) -> Any:
    """The text of a completion, or the vectors of an embeddings answer."""
    if "choices" in body:
        choice = body["choices"][0]
        return choice["message"]["content"] if "message" in choice else choice["text"]
    return [item["embedding"] for item in body["data"]]


@dataclass
class Stage:
    """Everything that runs. Made by `stage`."""

    folder: Path
    azurite: Azurite
    broker: Broker
    storage: BlobServiceClient
    bus: ServiceBusClient
    http: aiohttp.ClientSession
    endpoint: Endpoint
    hosts: Hosts
    settings: Mapping[str, str]
    told: list[Told] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    listening: "asyncio.Task[None] | None" = None
    _sender: ServiceBusSender | None = None

    # -- doors

    async def drop(
        self,
        name: str,
        data: bytes,
        options: Mapping[str, Any] | None = None,
        container: str = "prompts",
    ) -> str:
        """Upload a file with its options; gives the ETag of the write, unquoted."""
        blob = self.storage.get_blob_client(container, name)
        metadata = metadata_for(options or {})
        written = await blob.upload_blob(data, overwrite=True, metadata=metadata)
        return str(written["etag"]).strip('"')

    async def send(self, body: Any, **fields: Any) -> None:
        """Put a message on the queue `jobs`."""
        if self._sender is None:
            self._sender = self.bus.get_queue_sender("jobs")
        await self._sender.send_messages(ServiceBusMessage(orjson.dumps(body), **fields))

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """A request to a host: the status and, where there is one, the JSON body."""
        async with self.http.request(method, await self.hosts.up() + path, **options) as response:
            body = await response.read()
            return response.status, orjson.loads(body) if body else None

    # -- waiting

    async def job(self, source: str, *types: str, seconds: float = 25) -> Told:
        """The first event of these types (any last one by default) about an input."""
        wanted = frozenset(types) or LAST_EVENTS

        def found() -> Told | None:
            about = (told for told in self.told if told.status.input == source)
            return next((told for told in about if told.event.type in wanted), None)

        told: Told = await self.until(found, f"{' or '.join(wanted)} of {source}", seconds)
        return told

    async def quiet(self, seconds: float = 2.0) -> None:
        """Wait until nothing was asked of the endpoint for so long, and nothing is in flight."""
        received, since = -1, time.monotonic()

        def still() -> bool:
            nonlocal received, since
            stats = self.endpoint.stats()
            if stats["received"] != received or stats["in_flight"]:
                received, since = stats["received"], time.monotonic()
            return time.monotonic() - since >= seconds

        await self.until(still, "the endpoint is left alone")

    async def run(
        self, name: str, data: bytes, options: Mapping[str, Any], *, seconds: float = 25
    ) -> tuple[JobStatus, Results]:
        """Drop a file of a new name and wait for its results."""
        await self.drop(name, data, options)
        ended = await self.job(f"prompts/{name}", seconds=seconds)
        return ended.status, await self.results(ended.status)

    async def until(
        self,
        condition: Callable[[], Any],
        what: str,
        seconds: float = 30,
    ) -> Any:
        """As `until`; when it is late, it also tells what the hosts said and the last events."""
        try:
            return await until(condition, what, seconds)
        except AssertionError as error:
            if self.listening is not None and self.listening.done():
                self.listening.result()
            for line in self.log[-80:]:
                error.add_note(line)
            for told in self.told[-10:]:
                error.add_note(f"{told.event.time} {told.event.type} {told.status.input}")
            raise

    # -- what came of it

    async def results(self, status: JobStatus) -> Results:
        """Download a job's results and verify them, digests and counts, against the manifest."""
        assert status.results is not None
        folder = self.folder / "results" / str(status.job)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        await results.download(self.storage, status.results, folder)
        manifest = Manifest.model_validate_json((folder / results.MANIFEST).read_bytes())
        assert verify(manifest, folder) == []
        assert manifest.job == status.job
        assert manifest.counts == status.counts
        raw = [_bytes_of(folder / name) for name in (results.OUTPUT, results.ERRORS)]
        output, errors = ([orjson.loads(line) for line in each.splitlines()] for each in raw)
        return Results(output, errors, raw[1], manifest)

    async def journaled(self, job: str) -> dict[str, list[dict[str, Any]]]:
        """The whole lines of each of a job's journals, by the journal's name."""
        container = self.storage.get_container_client("state")
        found = {}
        async for blob in container.list_blobs(f"jobs/{job}/journal/"):
            try:
                data = await (await container.download_blob(blob.name)).readall()
            except ResourceNotFoundError:
                continue
            lines = data.split(b"\n")[:-1]
            found[blob.name] = [orjson.loads(line) for line in lines if line.strip()]
        return found

    def billed(self) -> dict[str, int]:
        """How often the endpoint billed each row, by the digest of what it asks."""
        return dict(self.endpoint.stats(rows=True)["billed"])

    # -- running

    @asynccontextmanager
    async def more_workers(self, count: int) -> AsyncIterator[list[str]]:
        """Scale out while the context lasts; gives what the new hosts log."""
        log: list[str] = []
        async with hosts(count, PROJECT, log.append, verbose=True) as more:
            more.give(self.settings)
            await until(lambda: len(more.addresses) == count, f"{count} more workers")
            yield log
        self.log += log

    async def listen(self) -> None:
        """Keep every event that arrives, over restarts of the broker, until cancelled."""
        while True:
            try:
                async with self.bus.get_subscription_receiver("job-status", "all") as receiver:
                    while True:
                        for message in await receiver.receive_messages(50, max_wait_time=0.5):
                            self.told.append(told_by(message))
                            await receiver.complete_message(message)
            except ServiceBusError:
                await asyncio.sleep(POLL_SECONDS)

    def check_discretion(self, key: str) -> None:
        """No log line and no event holds a key, a prompt or an answer."""
        events = (told.event.model_dump_json() for told in self.told)
        for text in (*self.log, *events):
            for secret in (key, PROMPT, LABEL):
                assert secret not in text, f"{secret!r} was told to everybody"


def told_by(message: Any) -> Told:
    """The status event in a received message."""
    raw = json.loads(b"".join(message.body))
    properties = message.application_properties or {}
    return Told(
        StatusEvent.model_validate(raw),
        {_text(name): _text(value) for name, value in properties.items()},
        message.message_id,
        message.correlation_id,
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _bytes_of(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


async def until(
    condition: Callable[[], Any],
    what: str,
    seconds: float = 30,
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
async def stage(
    folder: Path,
    *,
    workers: int = 1,
    simulator: Settings | None = None,
    deployments: Callable[[str], Sequence[Mapping[str, Any]]] | None = None,
    settings: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
) -> AsyncIterator[Stage]:
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
            **(settings or {}),
        }
        made = Stage(
            folder=folder,
            azurite=storage,
            broker=broker,
            storage=await enter(
                BlobServiceClient.from_connection_string(storage.connection_string)
            ),
            bus=await enter(ServiceBusClient.from_connection_string(broker.connection_string)),
            http=await enter(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))),
            endpoint=endpoint,
            hosts=running,
            settings=given,
            log=log,
        )
        for name in CONTAINERS:
            await made.storage.create_container(name)
        made.listening = asyncio.create_task(made.listen())
        stack.push_async_callback(_cancelled, made.listening)
        running.give(given)
        # Stopped before what they depend on, so that they can hand back their work.
        stack.push_async_callback(running.stop)
        await until(lambda: len(running.addresses) == workers, f"{workers} workers")
        yield made
    made.check_discretion(key)


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


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


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


def jsonl(rows: Iterable[Row]) -> bytes:
    """A file of rows."""
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def chat(custom_id: str, content: str, **parameters: Any) -> dict[str, Any]:
    """A row that asks one thing."""
    messages = [{"role": "user", "content": content}]
    return {"custom_id": custom_id, "messages": messages, **parameters}


def chats(count: int, about: str, **parameters: Any) -> list[dict[str, Any]]:
    """Rows that each ask another thing."""
    return [
        chat(f"row-{number}", f"{about}: {PROMPT} {number}?", **parameters)
        for number in range(1, count + 1)
    ]
