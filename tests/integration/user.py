"""What a user does with the whole system: drop a file, ask, listen, download."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusSender
from azure.servicebus.exceptions import ServiceBusError
from azure.storage.blob.aio import BlobServiceClient

from local.dropping import metadata_for
from local.endpoint.answers import LABEL
from local.following import LAST_EVENTS
from schemas.messages import StatusEvent
from schemas.status import JobStatus
from tests.integration.processes import POLL_SECONDS, Processes, until
from tests.integration.results import Results, download

# Words of each prompt that `chats` makes.
PROMPT = "what about number"

Row = Mapping[str, Any]


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


@dataclass
class User:
    """Somebody with clients for everything that runs. Made by `user_of`."""

    processes: Processes
    storage: BlobServiceClient
    bus: ServiceBusClient
    http: aiohttp.ClientSession
    told: list[Told] = field(default_factory=list)
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
        url = await self.processes.hosts.up() + path
        async with self.http.request(method, url, **options) as response:
            body = await response.read()
            return response.status, orjson.loads(body) if body else None

    # -- waiting

    async def job(self, source: str, *types: str, seconds: float = 60) -> Told:
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
            stats = self.processes.endpoint.stats()
            if stats["received"] != received or stats["in_flight"]:
                received, since = stats["received"], time.monotonic()
            return time.monotonic() - since >= seconds

        await self.until(still, "the endpoint is left alone")

    async def run(
        self, name: str, data: bytes, options: Mapping[str, Any], *, seconds: float = 60
    ) -> tuple[JobStatus, Results]:
        """Drop a file of a new name and wait for its results."""
        await self.drop(name, data, options)
        ended = await self.job(f"prompts/{name}", seconds=seconds)
        return ended.status, await self.results(ended.status)

    async def until(
        self,
        condition: Callable[[], Any],
        what: str,
        seconds: float = 60,
    ) -> Any:
        """As `until`; when it is late, it also tells what the hosts said and the last events."""
        try:
            return await until(condition, what, seconds)
        except AssertionError as error:
            if self.listening is not None and self.listening.done():
                self.listening.result()
            for line in self.processes.log[-80:]:
                error.add_note(line)
            for told in self.told[-10:]:
                error.add_note(f"{told.event.time} {told.event.type} {told.status.input}")
            raise

    # -- what came of it

    async def results(self, status: JobStatus) -> Results:
        """Download a job's results and verify them."""
        folder = self.processes.folder / "results" / str(status.job)
        return await download(self.storage, status, folder)

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

    def check_discretion(self) -> None:
        """No log line and no event holds a key, a prompt or an answer."""
        events = (told.event.model_dump_json() for told in self.told)
        for text in (*self.processes.log, *events):
            for secret in (self.processes.key, PROMPT, LABEL):
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


@asynccontextmanager
async def user_of(starting: AbstractAsyncContextManager[Processes]) -> AsyncIterator[User]:
    """Somebody who listens to what runs, from its start to its end."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        running = await enter(starting)
        made = User(
            processes=running,
            storage=await enter(
                BlobServiceClient.from_connection_string(running.azurite.connection_string)
            ),
            bus=await enter(
                ServiceBusClient.from_connection_string(running.broker.connection_string)
            ),
            http=await enter(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))),
        )
        made.listening = asyncio.create_task(made.listen())
        stack.push_async_callback(_cancelled, made.listening)
        # The hosts are stopped while somebody listens, so that they can hand back their work.
        stack.push_async_callback(running.hosts.stop)
        yield made
    made.check_discretion()


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])


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
