"""What an answer of Blob Storage, or its absence, means in the workers' own errors.

Codes: https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes and the table
of lease outcomes in https://learn.microsoft.com/rest/api/storageservices/lease-blob. Azurite and
the service answer some conflicts with different statuses (a foreign lease is 412 there and 409
here), so codes come first and a status counts only where the code says nothing.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from azure.core.exceptions import AzureError, HttpResponseError

from workers.ports import BlobRef, errors

# Seconds for a small call with the SDK's own repeats.
CALL_SECONDS = 30.0
# Seconds for a whole blob, and of silence on a connection meanwhile.
BULK_SECONDS = 150.0
BULK_SILENCE_SECONDS = 60.0

_BY_CODE: dict[str, type[errors.StorageError]] = {
    "BlobNotFound": errors.BlobMissing,
    "ContainerNotFound": errors.BlobMissing,
    "ResourceNotFound": errors.BlobMissing,
    "BlobAlreadyExists": errors.BlobExists,
    "BlockCountExceedsLimit": errors.BlobFull,
    "LeaseAlreadyPresent": errors.LeaseHeld,
    "LeaseIdMissing": errors.LeaseHeld,
    "LeaseIsBreakingAndCannotBeAcquired": errors.LeaseHeld,
    "LeaseIdMismatchWithLeaseOperation": errors.LeaseLost,
    "LeaseIdMismatchWithBlobOperation": errors.LeaseLost,
    "LeaseNotPresentWithLeaseOperation": errors.LeaseLost,
    "LeaseNotPresentWithBlobOperation": errors.LeaseLost,
    "LeaseIsBrokenAndCannotBeRenewed": errors.LeaseLost,
    "LeaseIsBreakingAndCannotBeChanged": errors.LeaseLost,
    "LeaseLost": errors.LeaseLost,
}
_PASSING = frozenset({"ContainerBeingDeleted", "AccountBeingCreated", "ServerBusy"})
_REFUSED = "give the identity the role Storage Blob Data Owner, or correct the connection string"

# Of the one account that a process uses.
OUTAGE = errors.Outage(logging.getLogger(__name__), "Blob Storage")


@asynccontextmanager
async def deadline(
    where: BlobRef | str, conflict: type[errors.StorageError], seconds: float = CALL_SECONDS
) -> AsyncIterator[None]:
    """Bound a call in time and give its failures the workers' names.

    `conflict` is what a 409 or 412 means to the call when its code does not say it.
    """
    made = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            yield
    except (AzureError, OSError) as error:  # TimeoutError is an OSError
        meaning = meaning_of(error, path_of(where), conflict)
        if isinstance(meaning, errors.Unavailable) or meaning.details["status"] in (401, 403):
            OUTAGE.failed(meaning, time.monotonic(), made)
        else:
            OUTAGE.passed(time.monotonic())
        raise meaning from error
    else:
        OUTAGE.passed(time.monotonic())


def path_of(where: BlobRef | str) -> str:
    """How messages name a blob or a container."""
    return where if isinstance(where, str) else f"{where.container}/{where.name}"


def code_of(error: Exception) -> str:
    """The service's own name for an error (`x-ms-error-code`); empty where there is none."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")


def meaning_of(
    error: Exception, what: str, conflict: type[errors.StorageError]
) -> errors.WorkerError:
    """The worker's error for `error`, met while working on `what` (container/name)."""
    status = error.status_code if isinstance(error, HttpResponseError) else None
    code = code_of(error)
    details = {"status": status, "code": code}
    # Below 400: an answer that broke off or cannot be read.
    if status is None or status < 400 or status in (408, 429) or code in _PASSING:
        reason = code or type(error).__name__
        return errors.Unavailable(f"Blob Storage cannot be reached for {what}: {reason}", **details)
    if status >= 500 and status != 501:
        return errors.Unavailable(f"Blob Storage failed on {what}: {status} {code}", **details)
    kind = _kind(status, code, conflict)
    if status in (401, 403):
        return kind(f"Blob Storage refused {what}: {status} {code}; {_REFUSED}", **details)
    text = (kind.__doc__ or "").splitlines()[0].rstrip(".")
    return kind(f"{text}: {what} ({status} {code})", **details)


def _kind(status: int, code: str, conflict: type[errors.StorageError]) -> type[errors.StorageError]:
    kind = _BY_CODE.get(code)
    if kind is errors.LeaseHeld and conflict is errors.BlobExists:
        return conflict  # to be leased, it has to exist
    if kind is not None:
        return kind
    if status == 404:
        return errors.BlobMissing
    if status == 412 or (status == 409 and not code):
        return conflict
    return errors.StorageError
