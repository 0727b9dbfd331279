"""The way to one queue or topic: one sender, and batches that all who send at a time share."""

import asyncio
import time
from dataclasses import dataclass, field

from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch
from azure.servicebus.aio import ServiceBusClient, ServiceBusSender
from azure.servicebus.exceptions import MessageSizeExceededError

from workers.adapters.bus_errors import TURN_SECONDS, answered, quietly, unavailable

_ENVELOPE_BYTES = 1024


@dataclass(eq=False, slots=True)
class Load:
    """What one call wants sent, and what became of it."""

    messages: list[ServiceBusMessage]
    sent: bool = False
    error: Exception | None = field(default=None)


class SendQueue:
    """The way to one entity: a sender, a turn, and the loads that wait for it."""

    def __init__(self, client: ServiceBusClient, entity: str) -> None:
        self._client = client
        self._entity = entity
        self._turn = asyncio.Lock()
        self._waiting: list[Load] = []
        self._sender: ServiceBusSender | None = None
        self._broken: ServiceBusSender | None = None

    async def send(self, load: Load) -> None:
        """Send a load, with what others want sent by then. Raises what became of it."""
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
        """Open the sender; where that fails, the next send tells what is wrong."""
        async with self._turn:
            try:
                async with asyncio.timeout(TURN_SECONDS):
                    await _batch(await self._opened())
            except (AzureError, OSError):  # TimeoutError is an OSError
                self._retire()

    async def close(self) -> None:
        """Close the sender; a send in progress fails."""
        for sender in (self._sender, self._broken):
            if sender is not None:
                await quietly(sender.close())
        self._sender = self._broken = None

    async def _send_for_all(self) -> None:
        loads, self._waiting = self._waiting, []
        made = time.monotonic()
        try:
            async with asyncio.timeout(TURN_SECONDS):
                await self._send(loads)
        except (AzureError, OSError) as error:  # TimeoutError is an OSError
            self._retire()
            for load in loads:
                load.error = load.error or unavailable(self._entity, error, made)
        except BaseException:
            # Only the caller whose turn it was is cancelled. What the others wanted is perhaps
            # sent: they send it again, and receivers expect repeats.
            self._retire()
            self._waiting = loads + self._waiting
            raise
        else:
            answered()
            for load in loads:
                load.sent = True

    async def _send(self, loads: list[Load]) -> None:
        sender = await self._opened()
        batch = await _batch(sender)
        for load in loads:
            for message in load.messages:
                if _added(batch, message):
                    continue
                if len(batch):
                    await sender.send_messages(batch, timeout=TURN_SECONDS)
                    batch = await _batch(sender)
                    if _added(batch, message):
                        continue
                load.error = ValueError(
                    f"A message to {self._entity} is larger than the {batch.max_size_in_bytes} "
                    "bytes it takes: send a reference instead."
                )
        if len(batch):
            await sender.send_messages(batch, timeout=TURN_SECONDS)

    async def _opened(self) -> ServiceBusSender:
        if self._broken is not None:
            await quietly(self._broken.close())
            self._broken = None
        if self._sender is None:
            # A topic's sender is the same thing: both attach to the entity's name.
            self._sender = self._client.get_queue_sender(self._entity)
        return self._sender

    def _retire(self) -> None:
        """Never use this sender again: nobody knows how far it came. The next turn closes it."""
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
