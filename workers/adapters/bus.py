"""`workers.ports.Bus` over azure-servicebus: one client a process, one sender an entity.

The SDK's senders are not safe for concurrent use, take a connection each and about a second to
close. So an entity's sender is kept, and what is sent to one entity at the same time shares
batches: whoever gets the entity's turn sends for everybody who waits.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from azure.core.credentials_async import AsyncTokenCredential
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient

from workers.adapters.bus_errors import quietly, reached
from workers.adapters.send_queue import Load, SendQueue
from workers.ports import OutMessage, Received
from workers.ports.errors import SettingsError, Unavailable

# Seconds until a caller is told: a batch that is on its way, and one's own.
SEND_SECONDS = 45.0
DEAD_WAIT_SECONDS = 1.0


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
        self._ways: dict[str, SendQueue] = {}

    async def send(self, entity: str, messages: Sequence[OutMessage]) -> None:
        """Send to a queue or topic; all are accepted when it returns. Errors: `Unavailable`.

        A message too large for the entity is a ValueError.
        """
        if not messages:
            return
        if entity not in self._ways:
            self._ways[entity] = SendQueue(self._client, entity)
        # Made here: what cannot be a message fails its own caller, not whoever shares the batch.
        load = Load([_encoded(message) for message in messages])
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._ways[entity].send(load)
        except TimeoutError as error:
            raise Unavailable(f"Service Bus did not accept in time for {entity}") from error

    async def take_dead(
        self, queue: str, handle: Callable[[Received], Awaitable[None]], most: int
    ) -> int:
        """Hand up to `most` dead letters to `handle`; see `workers.ports.Bus`."""
        receiver = self._client.get_queue_receiver(queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER)
        try:
            async with reached(queue):
                # Opened first: the wait for a message would else include the way there.
                await receiver.__aenter__()
            for taken in range(most):
                async with reached(queue):
                    found = await receiver.receive_messages(1, max_wait_time=DEAD_WAIT_SECONDS)
                if not found:
                    return taken
                try:
                    await handle(_received(found[0]))
                except BaseException:
                    await quietly(receiver.abandon_message(found[0]))
                    raise
                # Not done in vain if the lock is lost: it comes again, as any message may.
                await quietly(receiver.complete_message(found[0]))
            return most
        finally:
            await quietly(receiver.close())

    async def reach(self, queue: str) -> None:
        """Ask a queue for something that changes nothing; see `workers.ports.Bus`."""
        receiver = self._client.get_queue_receiver(queue)
        try:
            async with reached(queue):
                await receiver.peek_messages(1)
        finally:
            await quietly(receiver.close())

    async def open(self, entities: Iterable[str]) -> None:
        """Open the ways to some entities together, before the first message has to wait for one.

        What cannot be opened now is opened by the first send, which tells what is wrong.
        """
        async with asyncio.TaskGroup() as group:
            for entity in entities:
                way = self._ways.setdefault(entity, SendQueue(self._client, entity))
                group.create_task(way.open())

    async def close(self) -> None:
        """Close the senders; those in use fail."""
        async with asyncio.TaskGroup() as group:
            for way in self._ways.values():
                group.create_task(way.close())


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
        enqueued=message.enqueued_time_utc.timestamp() if message.enqueued_time_utc else None,
    )


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
