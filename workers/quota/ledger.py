"""How does a process keep its share of a quota? Rounds with the ledger blob in Blob Storage.

One blob for each deployment, `quota/{deployment}.json` in the state container, changed by
compare-and-swap with the pure rules of shares.py. Expiry of others is judged by the storage
service's clock as it comes with each read; what this process holds ends by its own monotonic
clock, counted from before the read.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from uuid import UUID

from workers.ports import BlobRef, Blobs, Stored
from workers.ports.errors import BlobChanged, BlobExists, BlobMissing, NewerVersion, Unavailable
from workers.quota.allowance import Grant
from workers.quota.pacing import clamp
from workers.quota.shares import (
    LEASE,
    MARGIN,
    SLOWEST_ROUND,
    Book,
    Holder,
    Wish,
    job_parts,
    leave,
    renew,
    short,
)

log = logging.getLogger(__name__)

ROUND = 3.0
"""Seconds for one round; the next one comes soon enough."""
TRIES = 8
FASTEST, PER_HOLDER = 0.5, 0.1
"""Seconds between rounds of those who want any: what one holder gives up lies idle until another
has come to its next round. The blob sees about ten of these a second, however many holders there
are, up to forty."""
REWRITE = 4.0
"""Seconds after which an entry is written again although nothing has changed."""


@dataclass(frozen=True, slots=True)
class Round:
    """What came of a round: the grant, what the ledger was told with it, the service's clock."""

    grant: Grant
    told: Wish
    server_time: float


class Ledger:
    """This process's entries in the ledgers of its deployments."""

    def __init__(self, blobs: Blobs, container: str, *, rng: Random) -> None:
        self._blobs = blobs
        self._container = container
        self._rng = rng
        self.holder = UUID(int=rng.getrandbits(128), version=4).hex
        self._written: dict[str, tuple[Holder, float]] = {}
        self.conflicts = 0
        """Since the process started: somebody else was faster."""

    def interval(self, grant: Grant | None) -> float:
        """Seconds until the next round: soon after one that failed or gave less than is fair."""
        seconds = FASTEST
        if grant is not None and not grant.wanting:
            seconds = SLOWEST_ROUND
        elif grant is not None and not grant.short:
            seconds = clamp(PER_HOLDER * grant.wanting, FASTEST, SLOWEST_ROUND)
        return seconds * self._rng.uniform(0.9, 1.1)

    async def renew(self, deployment: str, wish: Wish, lower: Callable[[float], None]) -> Round:
        """Ask for a share. `lower` is called before a smaller share is written.

        Raises Unavailable when the ledger cannot be read or written in time, NewerVersion when it
        is of a later version; what was held stays held until it runs out.
        """
        try:
            async with asyncio.timeout(ROUND):
                return await self._rounds(deployment, wish, lower)
        except TimeoutError:
            raise Unavailable(f"the quota ledger of {deployment} did not answer in time") from None

    async def leave(self, deployment: str, wish: Wish) -> None:
        """Give the share back. Raises Unavailable; the entry then runs out by itself."""
        self._written.pop(deployment, None)
        try:
            async with asyncio.timeout(ROUND):
                await self._leave(self._ref(deployment), wish)
        except TimeoutError:
            raise Unavailable(f"the quota ledger of {deployment} did not answer in time") from None

    async def _leave(self, ref: BlobRef, wish: Wish) -> None:
        for turn in range(TRIES):
            try:
                stored = await self._blobs.read(ref)
                book = _book(ref, stored)
                if self.holder not in book.holders:
                    # Also when a conflict was about our own earlier success: never return twice.
                    return
                left = leave(book, self.holder, wish, stored.server_time)
                await self._blobs.replace(ref, left.dump(), stored.etag)
            except BlobMissing:
                return
            except BlobChanged:
                await self._yield(turn)
            else:
                return
        raise Unavailable(f"{ref.name} changes too fast")

    async def _rounds(self, deployment: str, wish: Wish, lower: Callable[[float], None]) -> Round:
        ref = self._ref(deployment)
        loop = asyncio.get_running_loop()
        for turn in range(TRIES):
            began = loop.time()
            try:
                stored = await self._blobs.read(ref)
            except BlobMissing:
                # The service's clock is not known before there is a blob to read.
                await self._create(ref, wish)
                continue
            book, now = _book(ref, stored), stored.server_time
            fresh, given = renew(book, self.holder, wish, now)
            mine = fresh.holders[self.holder]
            if self._stands(deployment, book, mine, given, began):
                held, since = self._written[deployment]
                untold = replace(wish, requests=1.0, tokens=1.0)
                return self._round(book, held, since, untold, given=0, now=now)
            lower(mine.share)
            try:
                await self._blobs.replace(ref, fresh.dump(), stored.etag)
            except BlobChanged:
                await self._yield(turn)
                continue
            self._written[deployment] = (mine, began)
            return self._round(fresh, mine, began, wish, given=given, now=now)
        raise Unavailable(f"{ref.name} changes too fast")

    def _stands(self, deployment: str, book: Book, mine: Holder, given: int, began: float) -> bool:
        """Whether the entry may stand as it was written."""
        held, since = self._written.get(deployment, (None, 0.0))
        return (
            held is not None
            and book.holders.get(self.holder) == held
            and given == 0
            and began - since < REWRITE
            and mine.seated == held.seated
            and abs(mine.share - held.share) < 0.001
            and abs(mine.wants - held.wants) < 0.1
            and (mine.wants > 0.0) == (held.wants > 0.0)
            and mine.jobs == held.jobs
            and mine.tenants == held.tenants
            and mine.waiting == held.waiting
            and mine.weight == held.weight
            and mine.drawn == held.drawn
        )

    def _round(
        self, book: Book, mine: Holder, began: float, told: Wish, *, given: int, now: float
    ) -> Round:
        holders, per_day = book.holders.values(), told.per_day
        # Somebody who waits for a seat is not to wait for one who comes rarely.
        idle = not mine.wants and all(held.seated for held in holders)
        over = per_day is not None and book.day.date == now // 86_400 and book.day.given >= per_day
        grant = Grant(
            share=mine.share,
            until=began + LEASE - MARGIN,
            requests=book.requests,
            tokens=book.tokens,
            day=given,
            date=book.day.date,
            day_over=over,
            holders=len(book.holders),
            wanting=0 if idle else sum(held.wants > 0.0 for held in holders),
            short=short(book.holders, self.holder, now, told.rate),
            parts=job_parts(book.holders, self.holder),
        )
        return Round(grant, told, now)

    async def _create(self, ref: BlobRef, wish: Wish) -> None:
        try:
            await self._blobs.create(ref, Book(requests=wish.start).dump())
        except BlobExists:
            log.debug("another process created %s", ref.name)

    async def _yield(self, turn: int) -> None:
        """Wait with full jitter after a conflict, so that the same ones do not collide again."""
        self.conflicts += 1
        await asyncio.sleep(self._rng.uniform(0.0, 0.1 * 2.0 ** min(turn, 3)))

    def _ref(self, deployment: str) -> BlobRef:
        return quota_ref(self._container, deployment)


def quota_ref(container: str, deployment: str) -> BlobRef:
    """The ledger of a deployment's quota."""
    return BlobRef(container, f"quota/{deployment}.json")


def _book(ref: BlobRef, stored: Stored) -> Book:
    book = Book.load(stored.data)
    if book is None:
        raise NewerVersion(f"the ledger {ref.name}", "above 1")
    return book
