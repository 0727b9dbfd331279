"""Whose is the minute? Processes that share a deployment claim it for a call of their own.

`probed/{deployment}` in the state container says by its Last-Modified when it was claimed last, and
by what it holds what that call came to; until that is known it is empty. All that counts is
storage's clock, so processes may have any. The blob is not below `deployments/{deployment}/`, where
workers of releases without claims would take it for the word of a process.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from pydantic import ValidationError

from schemas.deployments import Deployment, Task
from schemas.health import Probed
from workers.ports import BlobRef, Blobs, Stored
from workers.ports.errors import BlobMissing, Unavailable

CLAIM_SECONDS: Final = 3.0
"""Seconds for one claim, so that whoever has it asks no later after it; and to tell an answer."""
CLOCK_SECONDS: Final = 3.0
"""Seconds by which what storage tells of its time may be off: whole seconds, and two by which its
front ends differ."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the last call of any process came to. It went at `sent`, or up to 12 s later."""

    answered: bool
    sent: float


@dataclass(frozen=True, slots=True)
class Turn:
    """In how many seconds the time may be claimed, 0 for now, and what the last call came to.

    `finding` is None until that is known. `etag` is that of the last claim, if there was any.
    """

    left: float
    finding: Finding | None = None
    etag: str | None = None


class ProbeClaims:
    """The claims of all processes to ask a deployment something of their own. Times are the loop's.

    All raise `Unavailable` and the errors of the blob primitives.
    """

    def __init__(self, blobs: Blobs, container: str) -> None:
        self._blobs = blobs
        self._container = container

    async def look(self, deployment: Deployment, task: Task, every: float) -> Turn:
        """Whether `every` seconds have passed since the last claim and since its call's end.

        What a call of another task came to says nothing: a deployment may do one of two still.
        """
        began = asyncio.get_running_loop().time()
        try:
            async with _in_time():
                last = await self._blobs.read(self._ref(deployment))
        except BlobMissing:
            return Turn(0.0)
        left = last.last_modified + every - last.server_time
        return Turn(
            min(max(0.0, left), every), _finding(last, _place(deployment, task), began), last.etag
        )

    async def claim(self, deployment: Deployment, turn: Turn) -> str:
        """Claim the time from now on; gives the claim's ETag.

        Raises `BlobChanged` or `BlobExists` where another has claimed it since the look.
        """
        ref, clock = self._ref(deployment), asyncio.get_running_loop().time
        latest = clock() + CLAIM_SECONDS
        async with _in_time():
            if turn.etag is None:
                etag = await self._blobs.create(ref, b"")
            else:
                etag = await self._blobs.replace(ref, b"", turn.etag)
        if clock() > latest:
            raise Unavailable("a claim came too late")
        return etag

    async def tell(self, deployment: Deployment, task: Task, etag: str, finding: Finding) -> None:
        """Tell the others what the call came to for which the time was claimed.

        Raises `BlobChanged` where the next claim was faster: that one's call tells more.
        """
        seconds = asyncio.get_running_loop().time() - finding.sent
        place = _place(deployment, task)
        told = Probed(endpoint=place, answered=finding.answered, seconds=seconds)
        async with _in_time():
            data = told.model_dump_json().encode()
            await self._blobs.replace(self._ref(deployment), data, etag)

    def _ref(self, deployment: Deployment) -> BlobRef:
        return BlobRef(self._container, f"probed/{deployment.name}")


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(CLAIM_SECONDS):
            yield
    except TimeoutError:
        raise Unavailable("storage did not answer in time") from None


def _finding(last: Stored, place: str, now: float) -> Finding | None:
    """What a call came to that was told of; `now` is when the blob began to be read.

    None too where it says nothing to us: it asked another task, or with other settings another
    endpoint, or storage's clock was set back since.
    """
    try:
        told = Probed.model_validate_json(last.data) if last.data else None
    except ValidationError:
        return None
    age = last.server_time - last.last_modified
    if told is None or told.endpoint != place or age < -CLOCK_SECONDS:
        return None
    return Finding(told.answered, now - age - told.seconds - CLOCK_SECONDS - CLAIM_SECONDS)


def _place(deployment: Deployment, task: Task) -> str:
    """What is asked, so that it can be compared and not read."""
    asked = (deployment.url, deployment.kind, deployment.api_version, deployment.model, task)
    return sha256(" ".join(map(str, asked)).encode()).hexdigest()[:16]
