"""Who may use how much of one quota? The rules by which the ledger's holders change it.

Weighted max-min fair shares with leases (Doorman's FAIR_SHARE): every holder renews its entry and
takes min(its fair share, what the unexpired entries of others leave), so that the shares sum to at
most 1 at any moment, whatever the order in which holders come, go and die. What it gives up it
hands over to the others by name, in the same write. Where slices would get so thin that they
collide in a service's one-second windows, only some holders are seated at a time and the seats go
round. A job weighs the same however many processes ask it. Times are seconds of the storage
service's clock (HTTP `Date`).
"""

from collections.abc import Mapping
from dataclasses import replace
from math import floor, fsum, inf
from typing import TypeVar

from workers.quota.book import Book, Day, Holder, Wish
from workers.quota.pacing import Headroom, clamp
from workers.quota.weights import FEWEST, counted, effective, parts

Named = TypeVar("Named", str, tuple[str, ...])

LEASE = 11.0
"""Seconds for which an entry counts after it was written."""
MARGIN = 3.5
"""Seconds by which a holder stops before that: a `Date` of whole seconds, front ends whose clocks
differ by up to 2 s, and the drift of its own clock."""
SLOWEST_ROUND = 4.0
"""Seconds between two rounds of a holder, give or take a tenth."""
SLOWEST_RECOVERY = LEASE + 1.0
"""Seconds within which the others have a dead holder's share, which they look for when its entry
runs out: it may have run out for up to a second when a `Date` of whole seconds tells so."""
TURN = 20.0
"""Seconds a seat is kept while others of the same weight wait for one."""
LEAST_TURN, MOST_TURN = 4.0, 120.0
"""The same while much heavier or much lighter ones wait: a change costs a round or two, and even
the lightest is to be seated now and then."""
HEAVIER = 2.0
"""From how many times the weight of another a holder goes before it, and not only more often."""
_ONE_MORE = "one more"
LEAST_RATE, AMPLE_RATE = 1.0, 1.25
"""Requests per second below which one whose jobs are asked anyhow leaves its seat, and from which
on it takes one."""
SEAT_RATE = 2.0
"""Requests per second that each seat would have, were all alike."""


def renew(book: Book, me: str, wish: Wish, now: float) -> tuple[Book, int]:
    """The ledger after `me` has asked, and how many requests of the day it was given.

    `now` is the service's clock. The caller may use what `holders[me].share` says from the moment
    the write has succeeded until LEASE - MARGIN seconds after it began to read.
    """
    others = {
        name: holder for name, holder in book.holders.items() if name != me and holder.expires > now
    }
    mine = _entry(book.holders.get(me), wish, now)
    holders = _seated(others | {me: mine}, wish, now)
    if mine.seated and _leaves(holders, me, wish, now):
        holders = _seated(holders | {me: replace(mine, seated=False, since=now)}, wish, now)
    day, drawn, given = _deal(book, me, wish, now)
    if day.date != book.day.date:
        holders = {name: replace(each, drawn=0) for name, each in holders.items()}
    holders[me] = replace(holders[me], drawn=drawn)
    fresh = replace(
        book,
        holders=_dealt(holders, me, wish.rate),
        requests=clamp(book.requests * wish.requests, Headroom.FLOOR, Headroom.CEILING),
        tokens=clamp(book.tokens * wish.tokens, Headroom.FLOOR, Headroom.CEILING),
        day=day,
    )
    return fresh, given


def leave(book: Book, me: str, wish: Wish, now: float) -> Book:
    """The ledger after `me` has given its share, and what is left of its day, back."""
    fresh, unused = renew(book, me, replace(wish, day=0), now)
    others = {name: held for name, held in fresh.holders.items() if name != me}
    return replace(
        fresh,
        holders=_dealt(_seated(others, wish, now), me, wish.rate),
        day=replace(fresh.day, given=max(0, fresh.day.given - unused)),
    )


def _dealt(holders: Mapping[str, Holder], me: str, rate: int) -> dict[str, Holder]:
    """The holders with what is fair for `me`, as far as others leave it, and with what is then free
    given to those who have less than is fair.

    They have it by reading their entry, once they come to that: nobody has to win a write for it.
    """
    fair = fair_shares(seated(holders), rate)
    free = 1.0 - sum(held.share for held in holders.values())
    dealt = dict(holders)
    for name in sorted(fair, key=lambda name: (name != me, holders[name].share, name)):
        more = min(fair[name] - holders[name].share, max(0.0, free))
        if more > 0.0:
            dealt[name] = replace(holders[name], share=holders[name].share + more)
            free -= more
    return dealt


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
        total = fsum(weights[name] for name in open_)
        content = {
            name: holder.wants
            for name, holder in open_.items()
            if holder.wants <= left * weights[name] / total
        }
        if not content:
            shares |= {name: left * weights[name] / total for name in open_}
            break
        shares |= content
        left = max(0.0, left - fsum(content.values()))
        for name in content:
            del open_[name]
    else:
        wanting = [name for name, share in shares.items() if share > 0.0] or list(shares)
        total = fsum(weights[name] for name in wanting)
        shares |= {name: shares[name] + left * weights[name] / total for name in wanting}
    return shares


def fair_shares(holders: Mapping[str, Holder], rate: int) -> dict[str, float]:
    """What each holder should have, in whole requests a second of the `rate` that all have.

    Streams of 3.75 a second are three or four in a window of a second, and eight of them more than
    30 in every fourth. Streams of three or four add up to the same in each. Those below one a
    second stay as they are, and one of the others has what is no whole request. Those who ask the
    same jobs have together what is theirs, but for less than one: of many small parts each would
    lose most by being cut to a whole one.
    """
    shares = weighted_max_min(holders)
    alike: dict[tuple[str, ...], dict[str, float]] = {}
    # All processes have to come to the same, in whatever order they have read or added entries.
    for name in sorted(shares):
        if shares[name] * rate >= 1.0 - 1e-9:
            jobs = tuple(sorted(holders[name].jobs))
            alike.setdefault(jobs, {})[name] = shares[name] * rate
    sums = {jobs: sum(large.values()) for jobs, large in alike.items()}
    for jobs, whole in _whole(sums, sum(sums.values())).items():
        shares |= {name: each / rate for name, each in _whole(alike[jobs], whole).items()}
    return shares


def _whole(divided: Mapping[Named, float], total: float) -> dict[Named, float]:
    """Parts as whole numbers, but for what is left of the total, which one of them has."""
    found = {name: float(floor(part + 1e-9)) for name, part in divided.items()}
    spare = total - sum(found.values())
    # Rounded, so that a tie is one: equal parts may differ in the last digit.
    for name in sorted(found, key=lambda name: (round(found[name] - divided[name], 6), name)):
        more = clamp(spare, 0.0, 1.0)
        found[name] += more
        spare -= more
    return found


def short(holders: Mapping[str, Holder], me: str, now: float, rate: int = 0) -> bool:
    """Whether to ask again soon: others have yet to give back, or the next free seat may be mine,
    which is so for the first in line of those who ask the same jobs.
    """
    mine = holders[me]
    if mine.seated:
        return mine.share < 0.9 * fair_shares(seated(holders), rate)[me]
    line = _line(holders, now)
    before = (holders[name].jobs.keys() for name in line[: line.index(me)])
    return mine.wants > 0.0 and not any(jobs >= mine.jobs.keys() for jobs in before)


def seated(holders: Mapping[str, Holder]) -> dict[str, Holder]:
    """The holders that may have a share at present."""
    return {name: holder for name, holder in holders.items() if holder.seated}


def seats(requests_per_minute: float | None) -> int:
    """How many processes may hold a share at a time, so that none holds a sliver."""
    if requests_per_minute is None:
        return 64
    return max(1, min(64, floor(requests_per_minute / 60.0 / SEAT_RATE)))


def _entry(before: Holder | None, wish: Wish, now: float) -> Holder:
    """What a holder is from now on, without a share."""
    if before is None or before.expires <= now:
        # As if it had waited: time counts by weight, and one without any would be the last.
        before = Holder(wish.weight, wish.wants, 0.0, now - LEAST_TURN, now, seated=False)
    return replace(
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


def _seated(holders: Mapping[str, Holder], wish: Wish, now: float) -> dict[str, Holder]:
    """The holders with the next ones of the line on the seats that are free, but for those whose
    jobs are asked anyhow and who would have a sliver."""
    fresh, free, heard = dict(holders), wish.seats - len(seated(holders)), _heard(holders)
    thin: set[tuple[frozenset[str], float]] = set()
    for name in _line(holders, now):
        held = fresh[name]
        # The first in line of those who ask and want alike would have most of them.
        kind = frozenset(held.jobs), min(held.wants, AMPLE_RATE / max(1, wish.rate))
        if free <= 0:
            break
        if kind in thin:
            continue
        sitting = {**fresh, name: replace(held, seated=True, since=now)}
        if _unheard(held, heard) or not _sliver(sitting, name, wish.rate, AMPLE_RATE):
            fresh, free, heard = sitting, free - 1, _heard(sitting)
        else:
            thin.add(kind)
    return fresh


def _leaves(holders: Mapping[str, Holder], me: str, wish: Wish, now: float) -> bool:
    """Whether `me` is to leave its seat."""
    if len(seated(holders)) > wish.seats or _turn_over(holders, me, wish.seats, now):
        return True
    # Workers of earlier releases seat on a free seat whoever is next.
    if now - holders[me].since < TURN or not _sliver(holders, me, wish.rate, LEAST_RATE):
        return False
    others = {name: held for name, held in holders.items() if name != me}
    return not _unheard(holders[me], _heard(others))


def _sliver(holders: Mapping[str, Holder], name: str, rate: int, least: float) -> bool:
    """Whether a holder is not the only one for whom less than so many requests a second is fair,
    and less than it wants.

    Calls of many such streams meet in one window of a second, and are missing in the next. One of
    them harms nobody, and has what others cannot use.
    """
    if not rate:
        return False
    thin = {
        each
        for each, fair in weighted_max_min(seated(holders)).items()
        if fair * rate < least - 1e-9 and fair < holders[each].wants - 1e-9
    }
    return name in thin and len(thin) > 1


def _line(holders: Mapping[str, Holder], now: float) -> list[str]:
    """Those who wait for a seat, whoever comes next first: who wants any, whose jobs nobody asks
    who has a seat, and whose score is the highest, which grows with the weight and the time."""
    weights, heard = effective(holders), _heard(holders)
    waiting = {name: held for name, held in holders.items() if not held.seated}
    score = {
        name: (held.wants > 0.0, _unheard(held, heard), (now - held.since) * weights[name], name)
        for name, held in waiting.items()
    }
    return sorted(waiting, key=score.__getitem__, reverse=True)


def _heard(holders: Mapping[str, Holder]) -> set[str]:
    """The jobs of which calls wait at somebody who has a seat.

    Workers of 0.1.0 tell their jobs alone. Those beyond the 64 that an entry names are told as one,
    which is no job: whoever has such asks what nobody is known to ask.
    """
    return {
        job
        for held in seated(holders).values()
        if held.wants
        for job in held.jobs
        if (held.waiting.get(job) if held.waiting else job)
    }


def _unheard(holder: Holder, heard: set[str]) -> bool:
    """Whether a call waits of a job that nobody asks who has a seat, as far as the entry tells."""
    return not holder.jobs or any(
        job not in heard for job in holder.jobs if holder.waiting.get(job, FEWEST)
    )


def _turn_over(holders: Mapping[str, Holder], me: str, seats: int, now: float) -> bool:
    """Whether `me` is to leave its seat to one that waits.

    Where those who have seats ask the same jobs, that is seldom: a job has its part wherever it is
    asked, and a change costs a round. One that wants none leaves it to any, unless it weighs much
    more.
    """
    mine, heard, weights = holders[me], _heard(holders), effective(holders)
    waiting = {name: held for name, held in holders.items() if not held.seated and held.wants}
    pressing = {name for name, held in waiting.items() if _unheard(held, heard)}
    heaviest = max((weights[name] for name in pressing or waiting), default=0.0)
    if not mine.wants and weights[me] < HEAVIER * heaviest:
        turn = LEAST_TURN
    elif pressing:
        turn = _turn(holders, me, heaviest, seats)
    else:
        turn = MOST_TURN
    longest = max((now - waiting[name].since for name in pressing or waiting), default=0.0)
    return now - mine.since >= turn and longest >= turn / 2.0


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
