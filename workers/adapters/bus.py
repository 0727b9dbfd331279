"""`workers.ports.Bus` over azure-servicebus: one client a process, one sender an entity.

The SDK's senders are not safe for concurrent use, take a connection each and about a second to
close. So an entity's sender is kept, and what is sent to one entity at the same time shares
batches: whoever gets the entity's turn sends for everybody who waits.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import AzureError
from azure.servicebus import (
    ServiceBusMessage,
    ServiceBusMessageBatch,
    ServiceBusReceivedMessage,
    ServiceBusSubQueue,
)
from azure.servicebus.aio import ServiceBusClient, ServiceBusSender
from azure.servicebus.exceptions import (
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
)

from workers.errors import SettingsError, Unavailable
from workers.ports import OutMessage, Received

# Seconds until a caller is told, and for one batch with the SDK's repeats within it.
SEND_SECONDS = 45.0
BATCH_SECONDS = 20.0
CLOSE_SECONDS = 5.0
DEAD_WAIT_SECONDS = 1.0
_ENVELOPE_BYTES = 1024

_IDENTITY = "; give the identity the role Service Bus Data Owner, or correct the connection string"
_ADVICE: dict[type[Exception], str] = {
    MessagingEntityNotFoundError: "; create the entity",
    ServiceBusAuthenticationError: _IDENTITY,
    ServiceBusAuthorizationError: _IDENTITY,
}

_log = logging.getLogger(__name__)


@asynccontextmanager
async def connect_bus(
    connection: str | None = None,
    namespace: str | None = None,
    credential: AsyncTokenCredential | None = None,
) -> AsyncIterator["ServiceBus"]:
    """A client by connection string, or by `namespace` and `credential`; no call is made yet.

    `namespace` is `{name}.servicebus.windows.net`, as the Functions setting
    `{name}__fullyQualifiedNamespace` has it. The credential stays the caller's to close.
    """
    client = _client(connection, namespace, credential)
    async with client:
        bus = ServiceBus(client)
        try:
            yield bus
        finally:
            await bus.close()


def _client(
    connection: str | None, namespace: str | None, credential: AsyncTokenCredential | None
) -> ServiceBusClient:
    # Few and quick: a repeat reopens a link that idled away, and the callers repeat anyway.
    options: dict[str, Any] = {
        "retry_total": 2,
        "retry_backoff_factor": 0.25,
        "retry_backoff_max": 5,
    }
    try:
        if connection:
            return ServiceBusClient.from_connection_string(connection, **options)
        if namespace and credential:
            return ServiceBusClient(namespace, credential, **options)
    except ValueError:
        # Not chained: the string holds a key.
        raise SettingsError("The Service Bus connection string is malformed.") from None
    raise SettingsError("Service Bus needs a connection string, or a namespace and an identity.")


class ServiceBus:
    """Service Bus; see `workers.ports.Bus` for what `send` promises."""

    def __init__(self, client: ServiceBusClient) -> None:
        self._client = client
        self._lanes: dict[str, _SendQueue] = {}

    async def send(self, entity: str, messages: Sequence[OutMessage]) -> None:
        """Send to a queue or topic; all are accepted when it returns. Errors: `Unavailable`.

        A message too large for the entity is a ValueError.
        """
        if not messages:
            return
        if entity not in self._lanes:
            self._lanes[entity] = _SendQueue(self._client, entity)
        # Made here: what cannot be a message fails its own caller, not whoever shares the batch.
        load = _Load([_encoded(message) for message in messages])
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._lanes[entity].send(load)
        except TimeoutError as error:
            raise Unavailable(f"Service Bus did not accept in time for {entity}") from error

    async def take_dead(
        self, queue: str, handle: Callable[[Received], Awaitable[None]], most: int
    ) -> int:
        """Hand up to `most` dead letters to `handle`; see `workers.ports.Bus`."""
        receiver = self._client.get_queue_receiver(queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER)
        try:
            async with _reached(queue):
                # Opened first: the wait for a message would else include the way there.
                await receiver.__aenter__()
            for taken in range(most):
                async with _reached(queue):
                    found = await receiver.receive_messages(1, max_wait_time=DEAD_WAIT_SECONDS)
                if not found:
                    return taken
                try:
                    await handle(_received(found[0]))
                except BaseException:
                    await _quietly(receiver.abandon_message(found[0]))
                    raise
                # Not done in vain if the lock is lost: it comes again, as any message may.
                await _quietly(receiver.complete_message(found[0]))
            return most
        finally:
            await _quietly(receiver.close())

    async def open(self, entities: Iterable[str]) -> None:
        """Open the ways to some entities together, before the first message has to wait for one.

        What cannot be opened now is opened by the first send, which tells what is wrong.
        """
        async with asyncio.TaskGroup() as group:
            for entity in entities:
                lane = self._lanes.setdefault(entity, _SendQueue(self._client, entity))
                group.create_task(lane.open())

    async def close(self) -> None:
        """Close the senders; those in use fail."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes.values():
                group.create_task(lane.close())


@dataclass(eq=False, slots=True)
class _Load:
    """What one call wants sent, and what became of it."""

    messages: list[ServiceBusMessage]
    sent: bool = False
    error: Exception | None = field(default=None)


class _SendQueue:
    """The way to one entity: a sender, a turn, and the loads that wait for it."""

    def __init__(self, client: ServiceBusClient, entity: str) -> None:
        self._client = client
        self._entity = entity
        self._turn = asyncio.Lock()
        self._waiting: list[_Load] = []
        self._sender: ServiceBusSender | None = None
        self._broken: ServiceBusSender | None = None

    async def send(self, load: _Load) -> None:
        self._waiting.append(load)
        try:
            async with self._turn:
                if not load.sent and load.error is None:
                    await self._send_for_all()
        finally:
            if load in self._waiting:
                self._waiting.remove(load)
        if load.error is not None:
            raise load.error

    async def open(self) -> None:
        async with self._turn:
            try:
                async with asyncio.timeout(BATCH_SECONDS):
                    await _batch(await self._opened())
            except (AzureError, OSError):  # TimeoutError is an OSError
                self._retire()

    async def close(self) -> None:
        for sender in (self._sender, self._broken):
            if sender is not None:
                await _quietly(sender.close())
        self._sender = self._broken = None

    async def _send_for_all(self) -> None:
        loads, self._waiting = self._waiting, []
        try:
            async with asyncio.timeout(BATCH_SECONDS):
                await self._send(loads)
        except (AzureError, OSError) as error:  # TimeoutError is an OSError
            self._retire()
            for load in loads:
                load.error = load.error or _unavailable(self._entity, error)
        except BaseException:
            # Only the caller whose turn it was is cancelled. What the others wanted is perhaps
            # sent: they send it again, and receivers expect repeats.
            self._retire()
            self._waiting = loads + self._waiting
            raise
        else:
            for load in loads:
                load.sent = True

    async def _send(self, loads: list[_Load]) -> None:
        sender = await self._opened()
        batch = await _batch(sender)
        for load in loads:
            for message in load.messages:
                if _added(batch, message):
                    continue
                if len(batch):
                    await sender.send_messages(batch, timeout=BATCH_SECONDS)
                    batch = await _batch(sender)
                    if _added(batch, message):
                        continue
                load.error = ValueError(
                    f"A message to {self._entity} is larger than the {batch.max_size_in_bytes} "
                    "bytes it takes: send a reference instead."
                )
        if len(batch):
            await sender.send_messages(batch, timeout=BATCH_SECONDS)

    async def _opened(self) -> ServiceBusSender:
        if self._broken is not None:
            await _quietly(self._broken.close())
            self._broken = None
        if self._sender is None:
            # A topic's sender is the same thing: both attach to the entity's name.
            self._sender = self._client.get_queue_sender(self._entity)
        return self._sender

    def _retire(self) -> None:
        """Never use this sender again: nobody knows how far it came. Closed at the next turn."""
        self._broken, self._sender = self._sender or self._broken, None


async def _batch(sender: ServiceBusSender) -> ServiceBusMessageBatch:
    """An empty batch, with room for what the SDK adds to a batch without counting it.

    It copies the first message's id (at most 128 characters) to the batch's envelope; a batch
    filled to its limit would be refused.
    """
    limit = (await sender.create_message_batch()).max_size_in_bytes
    return await sender.create_message_batch(limit - _ENVELOPE_BYTES)


def _added(batch: ServiceBusMessageBatch, message: ServiceBusMessage) -> bool:
    try:
        batch.add_message(message)
    except MessageSizeExceededError:
        return False
    return True


@asynccontextmanager
async def _reached(entity: str) -> AsyncIterator[None]:
    """Bound a call in time and give its failures the workers' name."""
    try:
        async with asyncio.timeout(BATCH_SECONDS):
            yield
    except (AzureError, OSError) as error:  # TimeoutError is an OSError
        raise _unavailable(entity, error) from error


async def _quietly(call: Awaitable[None]) -> None:
    """Close or settle; where that fails, the service does it itself in the end."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await call
    except (AzureError, OSError) as error:
        _log.debug("not closed or settled: %s", type(error).__name__)


def _encoded(message: OutMessage) -> ServiceBusMessage:
    properties: dict[Any, Any] = dict(message.properties)
    at = None if message.at is None else datetime.fromtimestamp(message.at, UTC)
    return ServiceBusMessage(
        message.body,
        message_id=message.message_id,
        correlation_id=message.correlation_id,
        application_properties=properties,
        scheduled_enqueue_time_utc=at,
        content_type=message.content_type,
    )


def _received(message: ServiceBusReceivedMessage) -> Received:
    # Names and values come as bytes, and deliveries are counted from 0 on the wire.
    given = message.application_properties or {}
    return Received(
        body=b"".join(message.body),
        message_id=message.message_id,
        correlation_id=message.correlation_id,
        deliveries=(message.delivery_count or 0) + 1,
        properties={_text(name): _text(value) for name, value in given.items()},
    )


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _unavailable(entity: str, error: Exception) -> Unavailable:
    """What to tell a caller, without the SDK's text: it may quote tokens and addresses."""
    return Unavailable(
        f"Service Bus does not serve {entity}: {type(error).__name__}"
        + _ADVICE.get(type(error), "")
    )
