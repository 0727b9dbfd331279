"""Service Bus triggers: receive, call, complete on success, abandon on an exception.

This host does as Microsoft.Azure.WebJobs.Extensions.ServiceBus, with one difference on purpose: a
message is asked for only when a slot is free, one at a time, so that several hosts share a queue
evenly and none holds messages that it cannot work on.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from azure.functions.meta import Datum
from azure.servicebus import ServiceBusReceivedMessage, ServiceBusSubQueue
from azure.servicebus.aio import AutoLockRenewer, ServiceBusClient, ServiceBusReceiver
from azure.servicebus.exceptions import ServiceBusError

from local.host.invoking import InvocationFailedError, Invoker, as_json, number, present, text
from local.host.loading import Function, LoadError
from local.host.options import HostOptions

logger = logging.getLogger("local.host")

# The longest that a receive call goes without looking whether the host stops. Seconds.
RECEIVE_WAIT = 0.5
# The same when the connection is to be opened again within it, which takes its time.
REOPEN_WAIT = 10.0
REOPEN_SECONDS = 1.0
DEAD_LETTERS = "/$deadletterqueue"


class ServiceBusListener:
    """One queue or subscription function: its receiver and at most maxConcurrentCalls calls."""

    def __init__(
        self, function: Function, client: ServiceBusClient, invoker: Invoker, options: HostOptions
    ) -> None:
        if function.trigger.get("isSessionsEnabled"):
            raise LoadError(f"function {function.name}: the local host has no sessions")
        if str(function.trigger.get("cardinality", "ONE")).upper() != "ONE":
            raise LoadError(f"function {function.name}: the local host gives one message a call")
        self._function = function
        self._client = client
        self._invoker = invoker
        self._options = options
        self._slots = asyncio.Semaphore(options.max_concurrent_calls)
        self._unsettled: dict[asyncio.Task[None], ServiceBusReceivedMessage] = {}
        self._stopping = asyncio.Event()
        self._wait = RECEIVE_WAIT

    async def run(self) -> None:
        """Receive until `stop`, then wait for the calls that run.

        A cancellation of this cancels them and abandons their messages.
        """
        while not self._stopping.is_set():
            try:
                await self._listen()
            except ServiceBusError as error:
                logger.warning("'%s' cannot listen, trying again: %s", self._function.name, error)
                await asyncio.sleep(REOPEN_SECONDS)

    async def _listen(self) -> None:
        async with (
            open_receiver(self._client, self._function.trigger) as receiver,
            AutoLockRenewer(max_lock_renewal_duration=self._options.max_lock_renewal) as renewer,
        ):
            logger.debug("Listening for 'Functions.%s'", self._function.name)
            try:
                await self._receive(receiver, renewer)
                if self._unsettled:
                    await asyncio.wait(self._unsettled)
            finally:
                await self._abandon_all(receiver)

    def stop(self) -> None:
        """Receive nothing more. Calls that run go on."""
        self._stopping.set()

    async def _receive(self, receiver: ServiceBusReceiver, renewer: AutoLockRenewer) -> None:
        while True:
            await self._slots.acquire()
            if self._stopping.is_set():
                return
            messages = await self._receive_one(receiver)
            if not messages:
                self._slots.release()
                continue
            renewer.register(receiver, messages[0], on_lock_renew_failure=self._renewal_failed)
            task = asyncio.create_task(self._handle(receiver, messages[0]))
            self._unsettled[task] = messages[0]
            task.add_done_callback(self._handled)

    async def _receive_one(self, receiver: ServiceBusReceiver) -> list[ServiceBusReceivedMessage]:
        """The next message; none where there is none in time or Service Bus is away."""
        try:
            messages = await receiver.receive_messages(1, max_wait_time=self._wait)
        except ServiceBusError as error:
            logger.warning("'%s' cannot receive, trying again: %s", self._function.name, error)
            await asyncio.sleep(RECEIVE_WAIT)
            self._wait = REOPEN_WAIT
            return []
        self._wait = RECEIVE_WAIT
        return messages

    def _handled(self, task: asyncio.Task[None]) -> None:
        self._unsettled.pop(task, None)
        self._slots.release()

    async def _handle(
        self, receiver: ServiceBusReceiver, message: ServiceBusReceivedMessage
    ) -> None:
        try:
            await self._invoker.invoke(
                self._function,
                _body(self._function, message),
                metadata_of(message),
                reason="(null)",
                trace_parent=_trace_parent(message),
            )
        except UnicodeDecodeError:
            logger.exception("'%s' takes texts, a message is none", self._function.name)
            await self._settle(receiver.abandon_message(message), "abandon")
        except InvocationFailedError:
            await self._settle(receiver.abandon_message(message), "abandon")
        else:
            await self._settle(receiver.complete_message(message), "complete")

    async def _settle(self, settlement: Any, what: str) -> None:
        try:
            await settlement
        except (ServiceBusError, ValueError) as error:  # ValueError: its receiver is closed
            logger.warning("'%s' could not %s a message: %s", self._function.name, what, error)

    async def _abandon_all(self, receiver: ServiceBusReceiver) -> None:
        """What is not finished when the host stops goes back to the queue at once."""
        unfinished = dict(self._unsettled)
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        await asyncio.gather(
            *(
                self._settle(receiver.abandon_message(each), "abandon")
                for each in unfinished.values()
            )
        )

    async def _renewal_failed(self, message: Any, error: Exception | None) -> None:
        logger.warning("'%s' lost the lock of a message: %s", self._function.name, error)


@asynccontextmanager
async def open_receiver(
    client: ServiceBusClient, trigger: Mapping[str, Any]
) -> AsyncIterator[ServiceBusReceiver]:
    """A receiver for what a serviceBusTrigger names; `/$DeadLetterQueue` is its dead letters."""
    name = trigger.get("queueName") or trigger["subscriptionName"]
    dead = name.lower().endswith(DEAD_LETTERS)
    name = name[: -len(DEAD_LETTERS)] if dead else name
    options: dict[str, Any] = {"prefetch_count": 0}
    if dead:
        options["sub_queue"] = ServiceBusSubQueue.DEAD_LETTER
    if "queueName" in trigger:
        receiver = client.get_queue_receiver(name, **options)
    else:
        receiver = client.get_subscription_receiver(trigger["topicName"], name, **options)
    async with receiver:
        yield receiver


def _body(function: Function, message: ServiceBusReceivedMessage) -> Datum:
    """A message as Azure hands it over: a text, unless the binding says dataType binary.

    Errors: UnicodeDecodeError, at which the host abandons the message without a call.
    """
    body = b"".join(message.body)
    if function.trigger.get("dataType") in ("BINARY", 2):
        return Datum(body, "bytes")
    return Datum(body.decode(), "string")


def metadata_of(message: ServiceBusReceivedMessage) -> dict[str, Datum]:
    """The trigger metadata of a message, in the host's names and types."""
    properties = {
        _text(name): _text(value) for name, value in (message.application_properties or {}).items()
    }
    return present(
        MessageId=text(message.message_id or ""),
        CorrelationId=text(message.correlation_id),
        ContentType=text(message.content_type),
        Subject=text(message.subject),
        Label=text(message.subject),
        To=text(message.to),
        ReplyTo=text(message.reply_to),
        SessionId=text(message.session_id),
        PartitionKey=text(message.partition_key),
        DeadLetterSource=text(message.dead_letter_source),
        DeadLetterReason=text(message.dead_letter_reason),
        DeadLetterErrorDescription=text(message.dead_letter_error_description),
        # The wire counts deliveries that failed; the host shows this one as well.
        DeliveryCount=number((message.delivery_count or 0) + 1),
        SequenceNumber=number(message.sequence_number),
        EnqueuedSequenceNumber=number(message.enqueued_sequence_number),
        EnqueuedTimeUtc=_time(message.enqueued_time_utc),
        ExpiresAtUtc=_time(message.expires_at_utc),
        LockedUntil=_time(message.locked_until_utc),
        LockToken=text(str(message.lock_token)),
        ApplicationProperties=as_json(properties),
        UserProperties=as_json(properties),
    )


def _time(moment: datetime | None) -> Datum | None:
    if moment is None:
        return None
    return Datum(json.dumps(moment.astimezone(UTC).isoformat().replace("+00:00", "Z")), "json")


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _trace_parent(message: ServiceBusReceivedMessage) -> str | None:
    properties = {_text(k): _text(v) for k, v in (message.application_properties or {}).items()}
    value = properties.get("traceparent") or properties.get("Diagnostic-Id")
    return value if isinstance(value, str) else None
