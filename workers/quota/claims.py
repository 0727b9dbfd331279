"""Whose is the minute? Processes that share a deployment claim it for a call of their own.

`probed/{deployment}` in the state container is empty; its Last-Modified says when it was claimed
last. All that counts is storage's clock. The blob is not below `deployments/{deployment}/`, where
workers of releases without claims would take it for the word of a process.
"""

import asyncio
from typing import Final

from workers.ports import BlobRef, Blobs
from workers.ports.errors import BlobChanged, BlobExists, BlobMissing, Unavailable

CLAIM_SECONDS: Final = 3.0
"""Seconds for one claim, so that whoever has it asks no later after it."""


class ProbeClaims:
    """The claims of all processes to ask a deployment something of their own."""

    def __init__(self, blobs: Blobs, container: str) -> None:
        self._blobs = blobs
        self._container = container

    async def claim(self, deployment: str, every: float) -> float:
        """Claim the time from now on, where the last claim is `every` seconds old.

        The result is 0 where it is ours, else the seconds until it may be claimed again. Raises
        `Unavailable` and the errors of the blob primitives: then it counts as another's.
        """
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                left = await self._swap(BlobRef(self._container, f"probed/{deployment}"), every)
        except TimeoutError:
            raise Unavailable(f"a claim to ask {deployment} was not answered in time") from None
        late = asyncio.get_running_loop().time() > began + CLAIM_SECONDS
        return every if late else left

    async def _swap(self, ref: BlobRef, every: float) -> float:
        try:
            last = await self._blobs.read(ref)
            left = last.last_modified + every - last.server_time
            if left > 0.0:
                return min(left, every)
            await self._blobs.replace(ref, b"", last.etag)
        except BlobMissing:
            return await self._first(ref, every)
        except BlobChanged:
            return every
        return 0.0

    async def _first(self, ref: BlobRef, every: float) -> float:
        try:
            await self._blobs.create(ref, b"")
        except BlobExists:
            return every
        return 0.0
