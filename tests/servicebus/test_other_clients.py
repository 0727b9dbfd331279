"""The sync SDK and the JavaScript client, against the broker as a process of its own."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from azure.servicebus import (
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusReceivedMessage,
    ServiceBusReceiver,
    ServiceBusSubQueue,
)
from azure.servicebus import exceptions as errors

from .support import (
    ROOT,
    Runs,
    command,
    namespace,
    queue,
    run_together,
    sql,
    subscription,
    together,
    topic,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONFIG = namespace(
    queue("sync"),
    queue("sync-sessions", RequiresSession=True),
    queue("js"),
    queue("js-many"),
    queue("js-sessions", RequiresSession=True),
    topics=(
        topic("sync-topic", subscription("all")),
        topic(
            "js-topic",
            subscription("all"),
            subscription("ended", sql("state IN ('completed', 'failed')")),
        ),
    ),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connection_string(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    path = tmp_path_factory.mktemp("broker") / "Config.json"
    path.write_text(json.dumps(CONFIG), encoding="utf-8")
    async with command("--config", str(path), "--port", "0") as (_, line):
        yield line


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(request: pytest.FixtureRequest, connection_string: str) -> AsyncIterator[Runs]:
    async with run_together(request, connection_string=connection_string) as started:
        yield started


def take(receiver: ServiceBusReceiver, count: int) -> list[ServiceBusReceivedMessage]:
    messages: list[ServiceBusReceivedMessage] = []
    while len(messages) < count:
        more = receiver.receive_messages(count - len(messages), max_wait_time=5)
        assert more, f"only {len(messages)} of {count} messages came"
        messages += more
    return messages


def use_queue(client: ServiceBusClient) -> None:
    with client.get_queue_sender("sync") as sender, client.get_queue_receiver("sync") as receiver:
        sender.send_messages([ServiceBusMessage(body) for body in ("1", "2", "3")])
        first, second, third = take(receiver, 3)
        assert receiver.renew_message_lock(first) is not None
        receiver.complete_message(first)
        receiver.abandon_message(second)
        receiver.dead_letter_message(third, reason="bad")
        [again] = take(receiver, 1)
        assert (str(again), again.delivery_count) == ("2", 1)
        receiver.defer_message(again)
        assert again.sequence_number is not None
        [deferred] = receiver.receive_deferred_messages([again.sequence_number])
        receiver.complete_message(deferred)
        assert receiver.peek_messages(5) == []
        with pytest.raises(errors.MessageSizeExceededError):
            sender.send_messages(ServiceBusMessage(bytes(300_000)))
    letters = client.get_queue_receiver("sync", sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    with letters:
        [letter] = take(letters, 1)
        assert (str(letter), letter.dead_letter_reason) == ("3", "bad")


def use_topic(client: ServiceBusClient) -> None:
    with client.get_topic_sender("sync-topic") as sender:
        sender.send_messages(ServiceBusMessage("t"))
    with client.get_subscription_receiver("sync-topic", "all") as receiver:
        assert [str(message) for message in take(receiver, 1)] == ["t"]


def use_session(client: ServiceBusClient) -> None:
    with client.get_queue_sender("sync-sessions") as sender:
        sender.send_messages(ServiceBusMessage("s", session_id="S"))
    with client.get_queue_receiver("sync-sessions", session_id="S") as receiver:
        assert [str(message) for message in take(receiver, 1)] == ["s"]
        receiver.session.set_state(b"state")
        assert receiver.session.get_state() == b"state"


async def use(connection_string: str, how: Callable[[ServiceBusClient], None]) -> None:
    with ServiceBusClient.from_connection_string(connection_string) as client:
        await asyncio.to_thread(how, client)


@together
async def test_the_sync_client_and_a_queue(connection_string: str) -> None:
    await use(connection_string, use_queue)


@together
async def test_the_sync_client_and_a_topic(connection_string: str) -> None:
    await use(connection_string, use_topic)


@together
async def test_the_sync_client_and_a_session(connection_string: str) -> None:
    await use(connection_string, use_session)


JAVASCRIPT_SAW = {
    "batch": ["one", "two", "three", "four", "five"],
    "properties": ["m1", "s", {"colour": "red", "n": 7}, 0],
    "renew": True,
    "abandon": ["two", 1],
    "defer": ["four", "deferred"],
    "dead letter": ["three", "bad", "very bad", "js"],
    "nothing left": [],
    "scheduled": [True, ["kept"], True],
    "oversize": "MessageSizeExceeded",
    "still works": "no error",
    "no session": "GeneralError",
    "unknown": "MessagingEntityNotFound",
    "all": ["running", "failed"],
    "ended": ["failed"],
    "session": ["A", ["a1", "a2"], "half way"],
    "locked": "SessionCannotBeLocked",
    "next": ["B", ["b1"]],
    "subscribe": 300,
}


@together
async def test_the_javascript_client(connection_string: str) -> None:
    node = shutil.which("node")
    assert node is not None, "node is needed: npm ci installs the client"
    process = await asyncio.create_subprocess_exec(
        node,
        str(Path(__file__).with_name("client.mjs")),
        connection_string,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, problems = await process.communicate()
    assert process.returncode == 0, problems.decode()
    saw = {item["probe"]: item["result"] for item in map(json.loads, output.splitlines())}
    assert saw == JAVASCRIPT_SAW
