"""Blob triggers: look at containers where Azure would be told by Event Grid.

What was seen is kept in memory only. So what is there already when a host starts is announced too;
an announcement is allowed to come twice, in Azure as here.
"""

import asyncio
import logging
import re
from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.functions.meta import Datum
from azure.storage.blob import BlobProperties
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from local.host.invoking import (
    BlobReference,
    InvocationFailedError,
    Invoker,
    as_json,
    present,
    text,
)
from local.host.loading import Function, LoadError

logger = logging.getLogger("local.host")

POLL_SECONDS = 0.5
# As Azure's blob trigger: then the event goes to the poison queue.
MAX_DELIVERIES = 5


@dataclass(frozen=True, slots=True)
class BlobPattern:
    """A blobTrigger's path, `container/{name}`: which blobs it means, and what its tokens are."""

    container: str
    pattern: re.Pattern[str]
    prefix: str

    @classmethod
    def of(cls, path: str) -> "BlobPattern":
        """Errors: `LoadError` where there is no container in the path."""
        container, slash, rest = path.partition("/")
        if not container or "{" in container:
            raise LoadError(f"blob path {path!r} must begin with the name of a container")
        rest = rest if slash and rest else "{name}"
        parts = re.split(r"\{(\w+)\}", rest)
        pattern = "".join(
            f"(?P<{part}>.+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)
        )
        return cls(container, re.compile(pattern), parts[0])

    def tokens(self, name: str) -> dict[str, str] | None:
        """The path's tokens in a blob's name; None where the blob is not meant."""
        match = self.pattern.fullmatch(name)
        return match.groupdict() if match else None


class BlobListener:
    """One blob function: announces each blob once an ETag."""

    def __init__(
        self, function: Function, client: BlobServiceClient, invoker: Invoker, parallelism: int
    ) -> None:
        self._function = function
        self._client = client
        self._invoker = invoker
        self._pattern = BlobPattern.of(function.trigger["path"])
        self._slots = asyncio.Semaphore(parallelism)
        self._seen: dict[str, str] = {}
        self._failures: dict[tuple[str, str], int] = {}

    async def run(self) -> None:
        """Poll until cancelled."""
        container = self._client.get_container_client(self._pattern.container)
        async with asyncio.TaskGroup() as calls:
            while True:
                try:
                    await self._poll(container, calls)
                except ResourceNotFoundError:
                    await self._create(container)
                except AzureError as error:
                    logger.warning("'%s' cannot list blobs: %s", self._function.name, error.message)
                await asyncio.sleep(POLL_SECONDS)

    async def _create(self, container: ContainerClient) -> None:
        """Create the container: a fresh emulator lacks what a deployment has created on Azure."""
        try:
            await container.create_container()
        except ResourceExistsError:
            logger.debug("container %s was created by another host", self._pattern.container)

    async def _poll(self, container: ContainerClient, calls: asyncio.TaskGroup) -> None:
        present_names: set[str] = set()
        async for blob in container.list_blobs(
            name_starts_with=self._pattern.prefix or None, include=["metadata"]
        ):
            tokens = self._pattern.tokens(blob.name)
            if tokens is None:
                continue
            present_names.add(blob.name)
            if self._seen.get(blob.name) != blob.etag:
                self._seen[blob.name] = blob.etag
                calls.create_task(self._announce(blob, tokens))
        for gone in self._seen.keys() - present_names:
            del self._seen[gone]

    async def _announce(self, blob: BlobProperties, tokens: dict[str, str]) -> None:
        path = f"{self._pattern.container}/{blob.name}"
        async with self._slots:
            try:
                await self._invoker.invoke(
                    self._function,
                    BlobReference.to(
                        self._function.trigger["connection"], self._pattern.container, blob.name
                    ),
                    self._metadata(blob, path, tokens),
                    reason=f"New blob detected({self._function.trigger.get('source')}): {path}",
                )
            except InvocationFailedError:
                self._count_failure(blob)

    def _count_failure(self, blob: BlobProperties) -> None:
        key = (blob.name, blob.etag)
        self._failures[key] = self._failures.get(key, 0) + 1
        if self._failures[key] < MAX_DELIVERIES:
            self._seen.pop(blob.name, None)
        else:
            logger.error(
                "'%s' failed %d times for one blob: in Azure its event would now be in the "
                "queue webjobs-blobtrigger-poison",
                self._function.name,
                MAX_DELIVERIES,
            )

    def _metadata(
        self, blob: BlobProperties, path: str, tokens: dict[str, str]
    ) -> dict[str, Datum]:
        properties: dict[str, Any] = {
            "ETag": blob.etag,
            "LastModified": blob.last_modified,
            "ContentLength": blob.size,
            "BlobType": str(blob.blob_type),
        }
        return present(
            BlobTrigger=text(path),
            Uri=text(f"{self._client.url.rstrip('/')}/{path}"),
            Properties=as_json(properties),
            Metadata=as_json(blob.metadata or {}),
            **{name: text(value) for name, value in tokens.items()},
        )
