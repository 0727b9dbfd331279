"""Who may use how much of one quota? The ledger that worker processes share, as a pure document.

Weighted max-min fair shares with leases (Doorman's FAIR_SHARE): every holder renews its entry and
takes min(its fair share, what the unexpired entries of others leave), so that the shares sum to at
most 1 at any moment, whatever the order in which holders come, go and die. Where slices would get
so thin that they collide in a service's one-second windows, only some holders are seated at a time
and the seats go round. A job weighs the same however many processes ask it. Times are seconds of
the storage service's clock (HTTP `Date`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import floor, inf
from typing import Any

import orjson

from workers.quota.pacing import Headroom, clamp
from workers.quota.weights import Tenants, counted, effective, parts

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
"""Seconds a seat is kept while others of the same weight wait for one."""
LEAST_TURN, MOST_TURN = 4.0, 120.0
"""The same while much heavier or much lighter ones wait: a change costs a round or two, and even
the lightest is to be seated now and then."""
HEAVIER = 2.0
"""From how many times the weight of another a holder goes before it, and not only more often."""
QUEUE = 4
"""How many of those who come next may take one free seat, whoever asks first."""
_ONE_MORE = "one more"
SEAT_RATE = 2.0
"""Requests per second that each seat would have, were all alike."""


@dataclass(frozen=True, slots=True)
class Holder:
    """One process in the ledger. `wants` is the part of the quota it could use, 0 to 1.

    `jobs` are the weights of the jobs it asks, `tenants` whose those are that are not the
    default's, `waiting` as how many its calls of each count that wait; `weight`, the sum of the
    weights, counts where they are not known. `drawn` is how many requests of the book's day it was
    given. `unknown`, here and below, is what a later version says of it, which stays as it is.
    """

    weight: float
    wants: float
    share: float
    since: float
    expires: float
    seated: bool = True
    jobs: Mapping[str, float] = field(default_factory=dict)
    tenants: Tenants = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    drawn: int = 0
    unknown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Day:
    """How many of a day's requests have been given out. `date` is days since 1970, UTC."""

    date: int = 0
    given: int = 0
    unknown: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Book:
    """The ledger of one deployment: blob `quota/{deployment}.json`."""

    holders: Mapping[str, Holder] = field(default_factory=dict)
    requests: float = Headroom.START
    tokens: float = Headroom.START
    day: Day = Day()
    unknown: Mapping[str, Any] = field(default_factory=dict)

    def dump(self) -> bytes:
        """The document as it is stored."""
        holders = {name: _plain(held) for name, held in self.holders.items()}
        own = {**_plain(self), "holders": holders, "day": _plain(self.day)}
        return orjson.dumps({"version": VERSION, **own})

    @classmethod
    def load(cls, data: bytes) -> "Book | None":
        """The document as it was read; None for one of a newer version, which must be left alone.

        A document that cannot be understood counts as empty: leases heal that within LEASE.
        """
        try:
            raw: dict[str, Any] = orjson.loads(data)
            if raw["version"] != VERSION:
                return None
            day = raw["day"]
            return cls(
                {name: _holder(entry) for name, entry in raw["holders"].items()},
                float(raw["requests"]),
                float(raw["tokens"]),
                Day(int(day["date"]), int(day["given"]), _unknown(Day, day)),
                _unknown(cls, raw),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a process asks of the ledger.

    `rate` is how many whole requests a second the quota has, 0 where they are not limited, and
    `start` the headroom that a new ledger begins with. `requests` and `tokens` are the factors by
    which its own has changed since it last asked;
    `day` is how many requests of the day it would like to be given, `drawn` how many it knows to
    have been given (when it leaves: how many of them it has used).
    """

    weight: float
    wants: float
    seats: int = 64
    rate: int = 0
    start: float = Headroom.START
    requests: float = 1.0
    tokens: float = 1.0
    day: int = 0
    drawn: Day = Day()
    per_day: int | None = None
    jobs: Mapping[str, float] = field(default_factory=dict)
    tenants: Tenants = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)


def renew(book: Book, me: str, wish: Wish, now: float) -> tuple[Book, int]:
    """The ledger after `me` has asked, and how many requests of the day it was given.

    `now` is the service's clock. The caller may use what `holders[me].share` says from the moment
    the write has succeeded until LEASE - MARGIN seconds after it began to read.
    """
    others = {
        name: holder for name, holder in book.holders.items() if name != me and holder.expires > now
    }
    mine = _seat(me, book.holders.get(me), others, wish, now)
    if mine.seated:
        fair = fair_shares(seated(others) | {me: mine}, wish.rate)[me]
        free = max(0.0, 1.0 - sum(other.share for other in others.values()))
        mine = replace(mine, share=min(fair, free))
    day, drawn, given = _deal(book, me, wish, now)
    if day.date != book.day.date:
        others = {name: replace(other, drawn=0) for name, other in others.items()}
    fresh = replace(
        book,
        holders=others | {me: replace(mine, drawn=drawn)},
        requests=clamp(book.requests * wish.requests, Headroom.FLOOR, Headroom.CEILING),
        tokens=clamp(book.tokens * wish.tokens, Headroom.FLOOR, Headroom.CEILING),
        day=day,
    )
    return fresh, given


def leave(book: Book, me: str, wish: Wish, now: float) -> Book:
    """The ledger after `me` has given its share, and what is left of its day, back."""
    fresh, unused = renew(book, me, replace(wish, day=0), now)
    return replace(
        fresh,
        holders={name: held for name, held in fresh.holders.items() if name != me},
        day=replace(fresh.day, given=max(0, fresh.day.given - unused)),
    )


def job_parts(holders: Mapping[str, Holder], me: str) -> dict[str, float]:
    """What of each of its jobs falls to `me`, among those who have a share as `me` has."""
    return parts(seated(holders) if holders[me].seated else holders)[me]


def part_of_one_more(
    holders: Mapping[str, Holder], weight: float, tenant: tuple[str, float], now: float
) -> float:
    """The part of a quota that falls to one more job of a tenant, were all to ask for all of it."""
    present = {name: held for name, held in holders.items() if held.expires > now and held.wants}
    one = Holder(weight, 1.0, 0.0, now, inf, jobs={_ONE_MORE: weight}, tenants={_ONE_MORE: tenant})
    weights = effective({**present, _ONE_MORE: one})
    return weights[_ONE_MORE] / sum(weights.values())


def weighted_max_min(holders: Mapping[str, Holder]) -> dict[str, float]:
    """Divide 1 by weight, none getting more than it wants while others want more.

    What nobody says to want is divided among those who want any: wishes are guesses, and quota must
    not lie idle.
    """
    shares: dict[str, float] = {}
    weights = effective(holders)
    left, open_ = 1.0, dict(holders)
    while open_:
        total = sum(weights[name] for name in open_)
        content = {
            name: holder.wants
            for name, holder in open_.items()
            if holder.wants <= left * weights[name] / total
        }
        if not content:
            shares |= {name: left * weights[name] / total for name in open_}
            break
        shares |= content
        left = max(0.0, left - sum(content.values()))
        for name in content:
            del open_[name]
    else:
        wanting = [name for name, share in shares.items() if share > 0.0] or list(shares)
        total = sum(weights[name] for name in wanting)
        shares |= {name: shares[name] + left * weights[name] / total for name in wanting}
    return shares


def fair_shares(holders: Mapping[str, Holder], rate: int) -> dict[str, float]:
    """What each holder should have, in whole requests a second of the `rate` that all have.

    Streams of 3.75 a second are three or four in a window of a second, and eight of them more than
    30 in every fourth. Streams of three or four add up to the same in each. Those below one a
    second stay as they are, and one of the others has what is no whole request.
    """
    shares = weighted_max_min(holders)
    large = {name: share * rate for name, share in shares.items() if share * rate >= 1.0 - 1e-9}
    whole = {name: floor(requests + 1e-9) for name, requests in large.items()}
    spare = sum(large.values()) - sum(whole.values())
    for name in sorted(large, key=lambda name: (whole[name] - large[name], name)):
        more = clamp(spare, 0.0, 1.0)
        shares[name] = (whole[name] + more) / rate
        spare -= more
    return shares


def short(holders: Mapping[str, Holder], me: str, now: float, rate: int = 0) -> bool:
    """Whether to ask again soon: others have yet to give back, or the next free seat is mine."""
    mine = holders[me]
    if mine.seated:
        return mine.share < 0.9 * fair_shares(seated(holders), rate)[me]
    weights = effective(holders)
    waiting = {
        name: (_score(held, weights[name], now), name)
        for name, held in holders.items()
        if not held.seated
    }
    return waiting[me] == max(waiting.values())


def seated(holders: Mapping[str, Holder]) -> dict[str, Holder]:
    """The holders that may have a share at present."""
    return {name: holder for name, holder in holders.items() if holder.seated}


def seats(requests_per_minute: float | None) -> int:
    """How many processes may hold a share at a time, so that none holds a sliver."""
    if requests_per_minute is None:
        return 64
    return max(1, min(64, floor(requests_per_minute / 60.0 / SEAT_RATE)))


def _seat(
    me: str, before: Holder | None, others: Mapping[str, Holder], wish: Wish, now: float
) -> Holder:
    """Keep, take, wait for or give up a seat. The entry's own share is yet to be reckoned."""
    free = wish.seats - len(seated(others))
    if before is None or before.expires <= now:
        # As if it had waited: time counts by weight, and one without any would be the last.
        before = Holder(wish.weight, wish.wants, 0.0, now - LEAST_TURN, now, seated=False)
    mine = replace(
        before,
        weight=wish.weight,
        jobs=wish.jobs,
        tenants=wish.tenants,
        waiting={
            job: counted(calls, before.waiting.get(job)) for job, calls in wish.waiting.items()
        },
        wants=wish.wants,
        expires=now + LEASE,
        share=0.0,
    )
    everyone = {**others, me: mine}
    weights = effective(everyone)
    waiting = {name: other for name, other in others.items() if not other.seated}
    if before.seated:
        heaviest = max((weights[name] for name in waiting), default=0.0)
        over = waiting and now - before.since >= _turn(everyone, me, heaviest, wish.seats)
        turn_over = over and free <= 1
        return replace(mine, seated=False, since=now) if free <= 0 or turn_over else mine
    # Only those who come next: a free seat is found at once, and nobody starves. One that is
    # ahead and much heavier has a seat for itself, or it would race with the many light ones.
    score = _score(mine, weights[me], now)
    ahead = sum(
        QUEUE if weights[name] >= HEAVIER * weights[me] else 1
        for name, other in waiting.items()
        if _score(other, weights[name], now) > score
    )
    return replace(mine, seated=True, since=now) if ahead < QUEUE * free else mine


def _score(holder: Holder, weight: float, now: float) -> float:
    """The score of a holder that waits: the highest comes next; that of the heavy grows fast."""
    return (now - holder.since) * weight


def _turn(holders: Mapping[str, Holder], me: str, heaviest: float, seats: int) -> float:
    """Seconds for which one keeps its seat while others, the heaviest of them so heavy, wait."""
    weight = effective(holders)[me]
    if weight < HEAVIER * heaviest:
        return max(LEAST_TURN, TURN * min(1.0, weight / heaviest))
    # It comes back after one turn of a lighter one; so it has its part of the time.
    wanting = {name: replace(each, wants=1.0 / seats) for name, each in holders.items()}
    part = min(1.0, seats * weighted_max_min(wanting)[me])
    if part > 1.0 - 1e-9:
        return inf
    lighter = max(LEAST_TURN, TURN * heaviest / weight)
    return clamp(lighter * part / (1.0 - part), TURN, MOST_TURN)


def _deal(book: Book, me: str, wish: Wish, now: float) -> tuple[Day, int, int]:
    """The day, what `me` has drawn of it now, and how much of that `me` has yet to learn.

    The entry may say more than its process knows: a write may land though its answer is lost.
    """
    if wish.per_day is None:
        return book.day, 0, 0
    today = int(now // 86_400)
    if book.day.date == today + 1:
        # One front end is past midnight, another not yet: what was dealt since stays dealt.
        today += 1
    before = book.holders.get(me)
    known = wish.drawn.given if wish.drawn.date == today else 0
    given, drawn = 0, known
    if book.day.date == today:
        given = book.day.given
        drawn = max(known, before.drawn if before is not None else 0)
    more = max(0, min(wish.day - (drawn - known), wish.per_day - given))
    day = replace(book.day, date=today, given=given + more)
    return day, drawn + more, drawn + more - known


def _holder(entry: Mapping[str, Any]) -> Holder:
    return Holder(
        weight=float(entry["weight"]),
        wants=float(entry["wants"]),
        share=float(entry["share"]),
        since=float(entry["since"]),
        expires=float(entry["expires"]),
        seated=bool(entry["seated"]),
        # Earlier workers, who may write the same blob, do not know these.
        jobs={str(job): float(weight) for job, weight in entry.get("jobs", {}).items()},
        tenants={
            str(job): (str(tenant), float(weight))
            for job, (tenant, weight) in entry.get("tenants", {}).items()
        },
        waiting={str(job): max(1, calls) for job, calls in entry.get("waiting", {}).items()},
        drawn=int(entry.get("drawn", 0)),
        unknown=_unknown(Holder, entry),
    )


def _unknown(kind: type[Book | Day | Holder], entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: entry[name] for name in entry.keys() - {*kind.__slots__, "version"}}


def _plain(what: Book | Day | Holder) -> dict[str, Any]:
    known = {slot: getattr(what, slot) for slot in what.__slots__ if slot != "unknown"}
    return {**known, **what.unknown}
