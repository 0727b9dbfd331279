"""A consumer of the soak, as a process of its own: completes, abandons some, notes what it did.

usage: soak_consumer.py PORT_FILE NOTES SEED. Each line of NOTES is `done ID` (the service confirmed
the completion) or `asked ID` (the completion was asked for; its answer may never have come).
PORT_FILE holds the connection string of the broker that runs now.
"""

import asyncio
import logging
import random
import sys
from pathlib import Path
from typing import TextIO

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import ServiceBusError

ABANDONED = 0.05

logger = logging.getLogger(__name__)


async def settle(
    receiver: ServiceBusReceiver,
    message: ServiceBusReceivedMessage,
    rng: random.Random,
    notes: TextIO,
) -> None:
    try:
        if rng.random() < ABANDONED:
            await receiver.abandon_message(message)
            return
        notes.write(f"asked {message.message_id}\n")
        await receiver.complete_message(message)
        notes.write(f"done {message.message_id}\n")
    except ServiceBusError:
        return  # the lock is lost or the broker is gone: the message comes again, or was completed


async def consume(connection_string: str, rng: random.Random, notes: TextIO) -> None:
    async with (
        ServiceBusClient.from_connection_string(connection_string, retry_total=0) as client,
        client.get_queue_receiver("soak") as receiver,
    ):
        while True:
            messages = await receiver.receive_messages(100, max_wait_time=1)
            await asyncio.gather(*(settle(receiver, one, rng, notes) for one in messages))


async def main(address: Path, notes_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    # Line by line, so that what is noted before a SIGKILL stays noted.
    with notes_path.open("a", buffering=1, encoding="utf-8") as notes:
        while True:
            try:
                connection_string = address.read_text(encoding="utf-8")  # noqa: ASYNC240 - tiny
                await consume(connection_string, rng, notes)
            except Exception:
                # The SDK's settling of many messages at once may meet the end of its connection
                # with errors that are not its own, such as an AttributeError.
                logger.exception("consuming from the start")
                await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
