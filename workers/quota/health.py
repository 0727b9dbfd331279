"""Where processes leave word of how they find a deployment, and operators of when to try it.

`deployments/{name}/{process}` is one process's own word, `deployments/{name}/probe` the latest
wish that an open breaker let a call through at once.
"""

from collections.abc import AsyncIterator
from typing import Final

import orjson
from pydantic import ValidationError

from schemas.health import DeploymentHealth
from workers.ports import BlobInfo, BlobRef, Blobs
from workers.ports.errors import BlobChanged, BlobExists, BlobMissing, Unavailable
from workers.ports.together import all_of
from workers.quota.allowance import DAY
from workers.quota.book import Book
from workers.quota.ledger import quota_ref
from workers.quota.shares import part_of_one_more

FRESH_SECONDS: Final = 30.0
"""Seconds for which a process's word counts: it is renewed every 10 s while there is work."""
FORGOTTEN_SECONDS: Final = 3600.0
"""Seconds after which the word of a process that has ended is removed."""
_PROBE: Final = "probe"
TRIES: Final = 5


class HealthBoard:
    """The words of all processes. Errors are `Unavailable` and those of the blob primitives."""

    def __init__(self, blobs: Blobs, container: str) -> None:
        self._blobs = blobs
        self._container = container

    async def tell(self, deployment: str, process: str, health: DeploymentHealth) -> None:
        """Leave a process's word in the place of its last one."""
        await self._write(self._ref(deployment, process), orjson.dumps(health.model_dump()))

    async def told(
        self, deployment: str, now: float, most: int | None = None
    ) -> list[DeploymentHealth]:
        """The words that still count, or the newest `most` of them."""
        fresh = [
            info
            async for info in self._listed(deployment)
            if now - info.last_modified < FRESH_SECONDS
        ]
        fresh.sort(key=lambda info: info.last_modified, reverse=True)
        found = await all_of(self._read, [info.ref for info in fresh[:most]])
        return [health for health in found if health is not None]

    async def granted(self, deployment: str, now: float) -> tuple[float, float] | None:
        """The parts of a quota that are held and that are used; None where nobody asks it."""
        try:
            stored = await self._blobs.read(quota_ref(self._container, deployment))
        except BlobMissing:
            return None
        book = Book.load(stored.data)
        held = [] if book is None else [h.share for h in book.holders.values() if h.expires > now]
        return (sum(held), min(book.requests, book.tokens)) if book and held else None

    async def part(
        self, deployment: str, weight: float, tenant: tuple[str, float], now: float
    ) -> tuple[float, int]:
        """The part of a quota that falls to one more job of this weight, all of an idle one; and
        how many requests of this day have been given out.
        """
        try:
            stored = await self._blobs.read(quota_ref(self._container, deployment))
        except BlobMissing:
            return 1.0, 0
        if (book := Book.load(stored.data)) is None:
            return 1.0, 0
        given = book.day.given if book.day.date == now // DAY else 0
        return part_of_one_more(book.holders, weight, tenant, now), given

    async def forget(self, deployment: str, now: float) -> None:
        """Remove the words of processes that have long ended."""
        async for info in self._listed(deployment):
            if now - info.last_modified > FORGOTTEN_SECONDS:
                await self._blobs.delete(info.ref)

    async def ask_probe(self, deployment: str, now: float) -> None:
        """Wish that a call be let through now."""
        await self._write(self._ref(deployment, _PROBE), orjson.dumps({"at": now}))

    async def probe_asked(self, deployment: str) -> tuple[str, float] | None:
        """(ETag, time) of the latest wish, by the service's clock; None where there was none."""
        try:
            info = await self._blobs.head(self._ref(deployment, _PROBE))
        except BlobMissing:
            return None
        return info.etag, info.last_modified

    async def _read(self, ref: BlobRef) -> DeploymentHealth | None:
        try:
            return DeploymentHealth.model_validate_json((await self._blobs.read(ref)).data)
        except (BlobMissing, ValidationError):
            return None  # gone meanwhile, or of another version: it counts as not told

    async def _write(self, ref: BlobRef, data: bytes) -> None:
        for _ in range(TRIES):
            try:
                await self._blobs.replace(ref, data, (await self._blobs.head(ref)).etag)
            except BlobMissing:
                try:
                    await self._blobs.create(ref, data)
                except BlobExists:
                    continue
            except BlobChanged:
                continue
            return
        raise Unavailable(f"{ref.name} changes too fast")

    async def _listed(self, deployment: str) -> AsyncIterator[BlobInfo]:
        async for info in self._blobs.list(self._container, f"deployments/{deployment}/"):
            if not info.ref.name.endswith(f"/{_PROBE}"):
                yield info

    def _ref(self, deployment: str, name: str) -> BlobRef:
        return BlobRef(self._container, f"deployments/{deployment}/{name}")
