"""What the tests of the broker share: configurations, a clock, and clients that close together."""

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender

from local.servicebus.broker.broker import Broker
from local.servicebus.broker.configuration import load
from local.servicebus.broker.entity import Surroundings
from local.servicebus.broker.journal import Journal, NoJournal
from local.servicebus.broker.message import Message
from local.servicebus.broker.sessions import Session
from local.servicebus.codec import sections
from local.servicebus.codec.values import UInt
from local.servicebus.codec.writing import encode

ROOT = Path(__file__).parents[2]

Scenario = Callable[..., Coroutine[Any, Any, None]]
Runs = dict[str, asyncio.Task[None]]

_AT_ONCE = 12
_scenarios: dict[tuple[str, str], Scenario] = {}


def together(scenario: Scenario) -> Callable[[Runs], Coroutine[Any, Any, None]]:
    """A test that runs at the same time as the others of its module, as it mostly waits.

    It is still a test of its own, which shows its own failure; its module has a fixture `runs`,
    made of `run_together`. Scenarios share the clients of the module, so each has its own entities.
    """

    async def test(runs: Runs) -> None:
        await runs[scenario.__name__]

    _scenarios[scenario.__module__, scenario.__name__] = scenario
    test.__name__ = test.__qualname__ = scenario.__name__
    test.__module__, test.__doc__ = scenario.__module__, scenario.__doc__
    return test


@asynccontextmanager
async def run_together(request: pytest.FixtureRequest, **arguments: Any) -> AsyncIterator[Runs]:
    """Start the scenarios of a module that were selected, with those arguments that they name."""
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def run(scenario: Scenario) -> None:
        wanted = {name: arguments[name] for name in inspect.signature(scenario).parameters}
        async with at_once:
            await scenario(**wanted)

    module = request.module.__name__
    selected = {item.name for item in request.session.items}
    runs = {
        name: asyncio.create_task(run(scenario))
        for (where, name), scenario in _scenarios.items()
        if where == module and name in selected
    }
    try:
        yield runs
    finally:
        for task in runs.values():
            task.cancel()
        await asyncio.gather(*runs.values(), return_exceptions=True)


def queue(name: str, **properties: Any) -> dict[str, Any]:
    """An entry of Queues (or Subscriptions) in the configuration."""
    return {"Name": name, "Properties": properties}


def topic(name: str, *subscriptions: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """An entry of Topics in the configuration."""
    return {"Name": name, "Properties": properties, "Subscriptions": list(subscriptions)}


def subscription(name: str, *filters: dict[str, Any], **properties: Any) -> dict[str, Any]:
    """An entry of Subscriptions with rules of these properties."""
    rules = [{"Name": f"rule-{n}", "Properties": one} for n, one in enumerate(filters)]
    return {"Name": name, "Properties": properties, "Rules": rules}


def sql(expression: str) -> dict[str, Any]:
    """The properties of an SQL rule."""
    return {"FilterType": "Sql", "SqlFilter": {"SqlExpression": expression}}


def correlation(**settings: Any) -> dict[str, Any]:
    """The properties of a correlation rule."""
    return {"FilterType": "Correlation", "CorrelationFilter": settings}


def namespace(*queues: dict[str, Any], topics: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """A configuration in the format of Microsoft's emulator."""
    spaces = [{"Name": "sbemulatorns", "Queues": list(queues), "Topics": list(topics)}]
    return {"UserConfig": {"Namespaces": spaces}}


class Clock:
    """A clock that stands still until it is moved; milliseconds."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


def make_broker(config: dict[str, Any], clock: Clock, journal: Journal | None = None) -> Broker:
    """A broker without connections."""
    return Broker(load(config), Surroundings(clock, journal or NoJournal()))


def encoded(
    body: bytes = b"x",
    *,
    message_id: str | None = None,
    session_id: str | None = None,
    ttl_ms: int | None = None,
    **application: Any,
) -> bytes:
    """A message as a sender encodes it."""
    properties = [message_id, *[None] * 9, session_id]
    return b"".join(
        (
            sections.section(
                sections.HEADER, encode([None, None, UInt(ttl_ms) if ttl_ms else None])
            ),
            sections.section(sections.PROPERTIES, encode(properties)),
            sections.section(sections.APPLICATION_PROPERTIES, encode(application)),
            sections.section(sections.DATA, encode(body)),
        )
    )


def body_of(message: Message) -> bytes:
    """What `encoded` was given."""
    part = next(part for part in sections.split(message.body) if part.code == sections.DATA)
    return message.body[part.value + 2 : part.end]


class Taker:
    """A consumer that keeps what it gets."""

    def __init__(self, credit: int = 1000, *, deletes_on_receive: bool = False) -> None:
        self.credit = credit
        self.deletes_on_receive = deletes_on_receive
        self.messages: list[Message] = []

    def deliver(self, message: Message) -> None:
        self.credit -= 1
        self.messages.append(message)

    def bodies(self) -> list[bytes]:
        return [body_of(message) for message in self.messages]


class SessionTaker(Taker):
    """A consumer that notes what happens to its session."""

    session: Session | None = None
    lost = False

    def session_granted(self, session: Session) -> None:
        self.session = session

    def session_lost(self) -> None:
        self.lost = True


class Bus:
    """Senders and receivers of the unmodified SDK, one each per entity, closed together.

    The SDK takes a second to close each; a test would spend most of its time on that.
    """

    def __init__(self, client: ServiceBusClient) -> None:
        self.client = client
        self._opened: list[ServiceBusSender | ServiceBusReceiver] = []
        self._senders: dict[str, ServiceBusSender] = {}

    async def sender(self, name: str, *, is_topic: bool = False) -> ServiceBusSender:
        if name not in self._senders:
            make = self.client.get_topic_sender if is_topic else self.client.get_queue_sender
            sender = self._senders[name] = make(name)
            self._opened.append(sender)
            await sender.__aenter__()
        return self._senders[name]

    async def receiver(
        self, name: str, topic: str | None = None, **options: Any
    ) -> ServiceBusReceiver:
        receiver = (
            self.client.get_subscription_receiver(topic, name, **options)
            if topic
            else self.client.get_queue_receiver(name, **options)
        )
        self._opened.append(receiver)
        await receiver.__aenter__()
        return receiver

    async def close(self) -> None:
        await asyncio.gather(*(one.close() for one in self._opened))


@asynccontextmanager
async def connect(connection_string: str, **options: Any) -> AsyncIterator[Bus]:
    """A client whose links close together at the end."""
    options = {"retry_total": 1, "retry_backoff_factor": 0.1, **options}
    async with ServiceBusClient.from_connection_string(connection_string, **options) as client:
        bus = Bus(client)
        try:
            yield bus
        finally:
            await bus.close()


async def take(
    receiver: ServiceBusReceiver, count: int, seconds: float = 20
) -> list[ServiceBusReceivedMessage]:
    """Exactly this many messages, received within the time."""
    messages: list[ServiceBusReceivedMessage] = []
    async with asyncio.timeout(seconds):
        while len(messages) < count:
            messages += await receiver.receive_messages(
                count - len(messages), max_wait_time=seconds
            )
    return messages


async def nothing(receiver: ServiceBusReceiver, seconds: float = 0.3) -> bool:
    """Whether no message comes for this long."""
    return not await receiver.receive_messages(1, max_wait_time=seconds)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition of this process."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition sends no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def command(
    *arguments: str, errors: bool = False
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The broker as a process of its own, and the line that it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "local.servicebus",
        *arguments,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if errors else None,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            line = (await process.stdout.readline()).decode().strip()
        yield process, line
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()  # and not wait(): its pipes close while there is a loop
