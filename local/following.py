"""What does a job tell of itself? Its events from Service Bus, its status over HTTP."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver

from local.hosts import Hosts
from schemas.messages import StatusEvent
from schemas.status import JobStatus

TOPIC, SUBSCRIPTION = "job-status", "all"
LAST_EVENTS = frozenset(
    {"job.completed", "job.failed", "job.expired", "job.cancelled", "job.rejected"}
)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A status event as it came. `after` is seconds since its receiver was opened."""

    after: float
    raw: dict[str, Any]
    event: StatusEvent

    @property
    def last(self) -> bool:
        """Whether nothing comes after it."""
        return self.event.type in LAST_EVENTS


class Events:
    """The status events of one input, in order of arrival. Made by `events`."""

    def __init__(self, receiver: ServiceBusReceiver, source: str) -> None:
        self._receiver = receiver
        self._source = source
        self._began = time.monotonic()
        self.arrived: list[Arrived] = []

    async def __aiter__(self) -> AsyncIterator[Arrived]:
        """Each event once, the last one too."""
        own = asyncio.current_task()
        while True:
            if own is not None and own.cancelling():
                # The SDK waits with asyncio.wait_for, which before Python 3.12 loses a cancellation
                # that comes in the moment in which an answer does.
                raise asyncio.CancelledError
            for message in await self._receiver.receive_messages(1, max_wait_time=5):
                raw = json.loads(b"".join(message.body))
                event = StatusEvent.model_validate(raw)
                await self._receiver.complete_message(message)
                if event.data.input != self._source:
                    continue
                arrived = Arrived(time.monotonic() - self._began, raw, event)
                self.arrived.append(arrived)
                yield arrived
                if arrived.last:
                    return


@asynccontextmanager
async def events(bus: str, source: str) -> AsyncIterator[Events]:
    """Subscribed once entered; `source` is the input's container/name."""
    async with (
        ServiceBusClient.from_connection_string(bus) as client,
        client.get_subscription_receiver(TOPIC, SUBSCRIPTION) as receiver,
    ):
        yield Events(receiver, source)


class Asker:
    """Asks a host that serves HTTP now, whichever it is."""

    def __init__(self, session: aiohttp.ClientSession, hosts: Hosts) -> None:
        self._session = session
        self._hosts = hosts

    async def status(self, job: str) -> JobStatus | None:
        """A job's status; None where no host tells it now."""
        code, body = await self._ask("GET", job)
        return JobStatus.model_validate_json(body) if code == 200 else None

    async def cancel(self, job: str) -> bool:
        """Cancel a job; False where no host can now. One that has ended stays as it is."""
        code, _ = await self._ask("POST", f"{job}/cancel")
        return code in (202, 409)

    async def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        """The status code and the body; 0 where there is no answer."""
        try:
            address = next(iter(self._hosts.addresses.values()), None)
            if address is not None:
                url = f"{address}/api/jobs/{path}"
                async with self._session.request(method, url) as response:
                    return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError):
            pass
        return 0, b""
