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
from math import inf
from random import Random
from uuid import UUID

from workers.ports import BlobRef, Blobs, Stored
from workers.ports.errors import BlobChanged, BlobExists, BlobMissing, NewerVersion, Unavailable
from workers.quota.allowance import Grant
from workers.quota.book import Book, Holder, Wish
from workers.quota.pacing import clamp
from workers.quota.shares import LEASE, MARGIN, SLOWEST_ROUND, job_parts, leave, renew, short

log = logging.getLogger(__name__)

ROUND = 3.0
"""Seconds for one round; the next one comes soon enough."""
TRIES = 8
FASTEST, PER_HOLDER = 0.25, 0.05
"""Seconds between rounds of those who want any: what one holder gives up lies idle until another
has come to its next round. Those who have seats read the blob about twenty times a second, however
many they are."""
SOONEST, PER_SHORT = 0.2, 0.01
"""The same for those who have less than is fair, or come next: it may be theirs any moment. Where
that is so of all, as when many come or until a dead one's share is back, these are a hundred a
second."""
FAILED = 0.5
"""Seconds after a round that failed."""
AT_ONCE = 16
"""Conflicts after which also one that gives up a share waits before it tries again. They are none
of its TRIES."""
REWRITE = 2.5
"""Seconds after which an entry is written again although nothing has changed."""


@dataclass(frozen=True, slots=True)
class Round:
    """What came of a round: the grant, what the ledger was told with it, the service's clock."""

    grant: Grant
    told: Wish
    server_time: float


Meanwhile = Callable[[float, float | None], None]
"""Takes a share, and until when it may be used; None where that stays as it is."""


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
        """Seconds until the next round: soon after one that failed or gave less than is fair, and
        where another's entry runs out."""
        seconds, lapses = SLOWEST_ROUND, inf
        if grant is None:
            seconds = FAILED
        elif grant.wanting:
            each, least = (PER_SHORT, SOONEST) if grant.short else (PER_HOLDER, FASTEST)
            seconds = clamp(each * grant.wanting, least, SLOWEST_ROUND)
            lapses = max(grant.lapses, SOONEST)
        return min(seconds * self._rng.uniform(0.9, 1.1), lapses)

    async def renew(self, deployment: str, wish: Wish, meanwhile: Meanwhile) -> Round:
        """Ask for a share. `meanwhile` is called with what may be used before one is written: no
        more than that, for the answer may be lost, and what others have handed over.

        Raises Unavailable when the ledger cannot be read or written in time, NewerVersion when it
        is of a later version; what was held stays held until it runs out.
        """
        try:
            async with asyncio.timeout(ROUND):
                return await self._rounds(deployment, wish, meanwhile)
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

    async def _rounds(self, deployment: str, wish: Wish, meanwhile: Meanwhile) -> Round:
        ref, loop = self._ref(deployment), asyncio.get_running_loop()
        turn = again = 0
        while turn < TRIES:
            began = loop.time()
            try:
                stored = await self._blobs.read(ref)
            except BlobMissing:
                # The service's clock is not known before there is a blob to read.
                await self._create(ref, wish)
                turn += 1
                continue
            book, now = _book(ref, stored), stored.server_time
            fresh, given = renew(book, self.holder, wish, now)
            mine = fresh.holders[self.holder]
            held, since = self._held(deployment, book)
            if held and not given and self._stands(book, fresh, wish, now, began - since):
                self._written[deployment] = held, since
                untold = replace(wish, requests=1.0, tokens=1.0)
                return self._round(book, held, since, untold, given=0, now=now)
            if held is None:
                meanwhile(mine.share, None)
            else:
                meanwhile(min(mine.share, held.share), since + LEASE - MARGIN)
            # A write whose answer is lost may land any time later: until one is answered, nothing
            # that is read makes the share larger.
            written = self._written.pop(deployment, None)
            try:
                await self._blobs.replace(ref, fresh.dump(), stored.etag)
            except BlobChanged:
                if written is not None:
                    self._written[deployment] = written
                # What is given up lies idle until it is written.
                at_once = held is not None and mine.share < held.share and again < AT_ONCE
                await self._yield(turn, at_once=at_once)
                again, turn = again + at_once, turn + (not at_once)
                continue
            self._written[deployment] = (mine, began)
            return self._round(fresh, mine, began, wish, given=given, now=now)
        raise Unavailable(f"{ref.name} changes too fast")

    def _held(self, deployment: str, book: Book) -> tuple[Holder | None, float]:
        """The entry, if it is as it was written but for what others handed over; when that was."""
        written, since = self._written.get(deployment, (None, 0.0))
        held = book.holders.get(self.holder)
        if written is None or held is None:
            return None, since
        same = held == replace(written, share=held.share, seated=held.seated, since=held.since)
        return (held if same else None), since

    def _stands(self, book: Book, fresh: Book, wish: Wish, now: float, age: float) -> bool:
        """Whether the ledger may stand as it is: this process has written its entry, nothing that
        matters has changed since, and there is nothing to hand over to others.

        Of a share that is fair, and of a seat that is waited for, it does not matter how much more
        is wanted.
        """
        held, mine = book.holders[self.holder], fresh.holders[self.holder]
        ample = min(mine.wants, held.wants) > 2.0 * mine.share
        if mine.seated:
            ample = ample and not short(fresh.holders, self.holder, now, wish.rate)
        return (
            age < REWRITE
            and mine.seated == held.seated
            and abs(mine.share - held.share) < 0.001
            and (mine.wants > 0.0) == (held.wants > 0.0)
            and (ample or abs(mine.wants - held.wants) < 0.1)
            and mine.jobs == held.jobs
            and mine.tenants == held.tenants
            and mine.waiting == held.waiting
            and mine.weight == held.weight
            and mine.drawn == held.drawn
            and not any(
                other.share > book.holders[name].share + 0.001
                for name, other in fresh.holders.items()
                if name != self.holder
            )
        )

    def _round(
        self, book: Book, mine: Holder, began: float, told: Wish, *, given: int, now: float
    ) -> Round:
        holders, per_day = book.holders.values(), told.per_day
        among = [held for held in holders if held.seated or not mine.seated]
        # Somebody who waits for a seat is not to wait for one who comes rarely.
        idle = not mine.wants and all(held.seated or not held.wants for held in holders)
        soon = short(book.holders, self.holder, now, told.rate)
        # Who waits behind others for a seat is told of it by those who have one.
        others = [held for name, held in book.holders.items() if name != self.holder]
        lapsing = (held.expires - now for held in others if held.expires > now)
        lapses = min(lapsing, default=inf) if mine.seated or soon else inf
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
            seated=sum(held.seated for held in holders),
            wanting=0 if idle else max(1, sum(held.wants > 0.0 for held in among)),
            short=soon,
            lapses=lapses,
            parts=job_parts(book.holders, self.holder),
        )
        return Round(grant, told, now)

    async def _create(self, ref: BlobRef, wish: Wish) -> None:
        try:
            await self._blobs.create(ref, Book(requests=wish.start).dump())
        except BlobExists:
            log.debug("another process created %s", ref.name)

    async def _yield(self, turn: int, *, at_once: bool = False) -> None:
        """Wait with full jitter after a conflict, so that the same ones do not collide again."""
        self.conflicts += 1
        if not at_once:
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
