"""Which of several hosts announces blobs and fires timers? The one that holds a lease.

As in Azure, where timers run on one instance at a time under a blob lease in the container
`azure-webjobs-hosts` (Microsoft.Azure.WebJobs, SingletonManager). A host that is killed is
replaced when its lease runs out, after at most 15 s.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.storage.blob.aio import BlobLeaseClient, BlobServiceClient

logger = logging.getLogger("local.host")

CONTAINER = "azure-webjobs-hosts"
BLOB = "locks/local/host.Listener"
LEASE_SECONDS = 15
RENEW_SECONDS = 5.0
RETRY_SECONDS = 1.0


class LeaseGoneError(Exception):
    """The lease could not be renewed: somebody else may hold it now."""


async def run_as_only_one(client: BlobServiceClient, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` while this process holds the lease; try again whenever it does not.

    `work` is cancelled when the lease is lost. Returns when `work` does.
    """
    while True:
        lease = await _acquire(client)
        if lease is None:
            await asyncio.sleep(RETRY_SECONDS)
            continue
        try:
            await _work_under(lease, work)
        except* LeaseGoneError:
            logger.warning("lost the lease of the host's listeners, trying to get it back")
        else:
            return
        finally:
            with suppress(AzureError):
                await lease.release()


async def _work_under(lease: BlobLeaseClient, work: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        renewal = tasks.create_task(_renew(lease))
        await work()
        renewal.cancel()


async def _renew(lease: BlobLeaseClient) -> None:
    failures = 0
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            await lease.renew()
            failures = 0
        except HttpResponseError as error:
            raise LeaseGoneError from error
        except AzureError as error:
            failures += 1
            if failures * RENEW_SECONDS >= LEASE_SECONDS - RENEW_SECONDS:
                raise LeaseGoneError from error


async def _acquire(client: BlobServiceClient) -> BlobLeaseClient | None:
    """The lease, or None where another host has it or storage cannot be reached."""
    blob = client.get_blob_client(CONTAINER, BLOB)
    lease_id = str(uuid.uuid4())
    try:
        try:
            return await blob.acquire_lease(LEASE_SECONDS, lease_id=lease_id)
        except ResourceNotFoundError:
            await _create(client)
            return await blob.acquire_lease(LEASE_SECONDS, lease_id=lease_id)
    except HttpResponseError as error:
        logger.debug("another host has the lease: %s", error.reason)
    except AzureError as error:
        logger.warning("cannot reach the storage of the host's lease: %s", error.message)
    return None


async def _create(client: BlobServiceClient) -> None:
    with suppress(ResourceExistsError):
        await client.create_container(CONTAINER)
    with suppress(ResourceExistsError):
        await client.get_blob_client(CONTAINER, BLOB).upload_blob(b"", overwrite=False)
