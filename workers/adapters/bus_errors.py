"""What an answer of Service Bus, or its absence, means in the workers' own errors."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

from azure.core.exceptions import AzureError
from azure.servicebus.exceptions import (
    MessagingEntityNotFoundError,
    ServiceBusAuthenticationError,
    ServiceBusAuthorizationError,
)

from workers.ports.errors import Outage, Unavailable

# Seconds for one batch, or one turn of a receiver, with the SDK's repeats within it.
TURN_SECONDS = 20.0
CLOSE_SECONDS = 5.0

_IDENTITY = "; give the identity the role Service Bus Data Owner, or correct the connection string"
_ADVICE: dict[type[Exception], str] = {
    MessagingEntityNotFoundError: "; create the entity",
    ServiceBusAuthenticationError: _IDENTITY,
    ServiceBusAuthorizationError: _IDENTITY,
}

_log = logging.getLogger(__name__)

# Of the one namespace that a process uses.
OUTAGE = Outage(_log, "Service Bus")


@asynccontextmanager
async def reached(entity: str) -> AsyncIterator[None]:
    """Bound a call in time and give its failures the workers' name."""
    made = time.monotonic()
    try:
        async with asyncio.timeout(TURN_SECONDS):
            yield
    except (AzureError, OSError) as error:  # TimeoutError is an OSError
        raise unavailable(entity, error, made) from error
    else:
        answered()


async def quietly(call: Awaitable[None]) -> None:
    """Close or settle; the service does it by itself in the end where this call fails."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await call
    except (AzureError, OSError) as error:
        _log.debug("not closed or settled: %s", type(error).__name__)


def unavailable(entity: str, error: Exception, made: float) -> Unavailable:
    """What to tell a caller, without the SDK's text: it may quote tokens and addresses.

    `made` is when the call was made, by the monotonic clock.
    """
    meaning = Unavailable(
        f"Service Bus does not serve {entity}: {type(error).__name__}"
        + _ADVICE.get(type(error), "")
    )
    OUTAGE.failed(meaning, time.monotonic(), made)
    return meaning


def answered() -> None:
    """Note that Service Bus did what it was asked."""
    OUTAGE.passed(time.monotonic())
