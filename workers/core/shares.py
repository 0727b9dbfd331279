"""Who may use how much of one quota? The ledger that worker processes share, as a pure document.

Weighted max-min fair shares with leases (Doorman's FAIR_SHARE): every holder renews its entry and
takes min(its fair share, what the unexpired entries of others leave), so that the shares sum to at
most 1 at any moment, whatever the order in which holders come, go and die. Where slices would get
so thin that they collide in a service's one-second windows, only some holders are seated at a time
and the seats go round. Times are seconds of the storage service's clock (HTTP `Date`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import floor
from typing import Any

import orjson

from .pacing import Headroom, clamp

VERSION = 1
LEASE = 13.0
"""Seconds for which an entry counts after it was written."""
MARGIN = 3.5
"""Seconds by which a holder stops before that: a `Date` of whole seconds, front ends whose clocks
differ by up to 2 s, and the drift of its own clock."""
SLOWEST_ROUND = 4.0
"""Seconds between two rounds of a holder, give or take a tenth."""
SLOWEST_RECOVERY = LEASE + 1.0 + 1.1 * SLOWEST_ROUND
"""Seconds within which the others have a dead holder's share: whole seconds of `Date` included."""
TURN = 20.0
"""Seconds a seat is kept while others wait for one."""
QUEUE = 4
"""How many of those who have waited longest may take one free seat, whoever comes first."""
SEAT_RATE = 2.0
"""Requests per second below which a share is too thin to be dealt out."""


@dataclass(frozen=True, slots=True)
class Holder:
    """One process in the ledger. `wants` is the part of the quota it could use, 0 to 1."""

    weight: float
    wants: float
    share: float
    since: float
    expires: float
    seated: bool = True


@dataclass(frozen=True, slots=True)
class Day:
    """How many of a day's requests have been given out. `date` is days since 1970, UTC."""

    date: int = 0
    given: int = 0


@dataclass(frozen=True, slots=True)
class Book:
    """The ledger of one deployment: blob `quota/{deployment}.json`."""

    holders: Mapping[str, Holder] = field(default_factory=dict)
    requests: float = Headroom.START
    tokens: float = Headroom.START
    day: Day = Day()

    def dump(self) -> bytes:
        """As stored."""
        return orjson.dumps({"version": VERSION, **_plain(self)})

    @classmethod
    def load(cls, data: bytes) -> "Book | None":
        """As read. None: written by a newer version, which must not be overwritten.

        What cannot be understood otherwise counts as empty: leases heal that within LEASE.
        """
        try:
            raw: dict[str, Any] = orjson.loads(data)
            if raw["version"] != VERSION:
                return None
            return cls(
                {name: _holder(entry) for name, entry in raw["holders"].items()},
                float(raw["requests"]),
                float(raw["tokens"]),
                Day(int(raw["day"]["date"]), int(raw["day"]["given"])),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a process asks of the ledger.

    `requests` and `tokens` are the factors by which its headroom has changed since it last asked;
    `day` is how many requests of the day it would like to hold, `back` how many it returns.
    """

    weight: float
    wants: float
    seats: int = 64
    requests: float = 1.0
    tokens: float = 1.0
    day: int = 0
    back: int = 0
    per_day: int | None = None


def renew(book: Book, me: str, wish: Wish, now: float) -> tuple[Book, int]:
    """The ledger after `me` has asked, and how many requests of the day it was given.

    `now` is the service's clock. The caller may use what `holders[me].share` says from the moment
    the write has succeeded until LEASE - MARGIN seconds after it began to read.
    """
    others = {
        name: holder for name, holder in book.holders.items() if name != me and holder.expires > now
    }
    mine = _seat(book.holders.get(me), others, wish, now)
    if mine.seated:
        fair = weighted_max_min(seated(others) | {me: mine})[me]
        free = max(0.0, 1.0 - sum(other.share for other in others.values()))
        mine = replace(mine, share=min(fair, free))
    day, given = _deal(book.day, wish, now)
    fresh = Book(
        others | {me: mine},
        clamp(book.requests * wish.requests, Headroom.FLOOR, Headroom.CEILING),
        clamp(book.tokens * wish.tokens, Headroom.FLOOR, Headroom.CEILING),
        day,
    )
    return fresh, given


def leave(book: Book, me: str, wish: Wish, now: float) -> Book:
    """The ledger after `me` has given its share, and what is left of its day, back."""
    fresh, _ = renew(book, me, replace(wish, day=0), now)
    return replace(
        fresh, holders={name: held for name, held in fresh.holders.items() if name != me}
    )


def weighted_max_min(holders: Mapping[str, Holder]) -> dict[str, float]:
    """Divide 1 by weight, none getting more than it wants while others want more.

    What nobody says to want is divided too: wishes are guesses, and quota must not lie idle.
    """
    shares: dict[str, float] = {}
    left, open_ = 1.0, dict(holders)
    while open_:
        weights = sum(holder.weight for holder in open_.values())
        content = {
            name: holder.wants
            for name, holder in open_.items()
            if holder.wants <= left * holder.weight / weights
        }
        if not content:
            shares |= {name: left * h.weight / weights for name, h in open_.items()}
            break
        shares |= content
        left = max(0.0, left - sum(content.values()))
        for name in content:
            del open_[name]
    else:
        weights = sum(holder.weight for holder in holders.values())
        shares = {
            name: share + left * holders[name].weight / weights for name, share in shares.items()
        }
    return shares


def seated(holders: Mapping[str, Holder]) -> dict[str, Holder]:
    """Those that may hold a share at present."""
    return {name: holder for name, holder in holders.items() if holder.seated}


def seats(requests_per_minute: float | None) -> int:
    """How many processes may hold a share at a time, so that none holds a sliver."""
    if requests_per_minute is None:
        return 64
    return max(1, min(64, floor(requests_per_minute / 60.0 / SEAT_RATE)))


def _seat(before: Holder | None, others: Mapping[str, Holder], wish: Wish, now: float) -> Holder:
    """Keep, take, wait for or give up a seat. The entry's own share is yet to be reckoned."""
    taken = len(seated(others))
    waiting = [other.since for other in others.values() if not other.seated]
    free = wish.seats - taken
    if before is None or before.expires <= now:
        before = Holder(wish.weight, wish.wants, 0.0, now, now, seated=False)
    mine = replace(before, weight=wish.weight, wants=wish.wants, expires=now + LEASE, share=0.0)
    if before.seated:
        turn_over = waiting and free <= 1 and now - before.since >= TURN
        return replace(mine, seated=False, since=now) if free <= 0 or turn_over else mine
    # Only those who have waited longest: a free seat is found at once, and nobody starves.
    ahead = sum(since < before.since for since in waiting)
    return replace(mine, seated=True, since=now) if ahead < QUEUE * free else mine


def _deal(day: Day, wish: Wish, now: float) -> tuple[Day, int]:
    if wish.per_day is None:
        return day, 0
    today = int(now // 86_400)
    # What is returned after midnight belongs to a day that is over.
    given = max(0, day.given - wish.back) if day.date == today else 0
    more = max(0, min(wish.day, wish.per_day - given))
    return Day(today, given + more), more


def _holder(entry: Mapping[str, Any]) -> Holder:
    return Holder(
        weight=float(entry["weight"]),
        wants=float(entry["wants"]),
        share=float(entry["share"]),
        since=float(entry["since"]),
        expires=float(entry["expires"]),
        seated=bool(entry["seated"]),
    )


def _plain(book: Book) -> dict[str, Any]:
    return {
        "holders": {
            name: {slot: getattr(held, slot) for slot in Holder.__slots__}
            for name, held in book.holders.items()
        },
        "requests": book.requests,
        "tokens": book.tokens,
        "day": {"date": book.day.date, "given": book.day.given},
    }
