"""Which part of a quota may this process use now, and how much of it does it want?

The share comes from the ledger and ends by this process's own clock; without the ledger it is
small and feels its way (`Cubic`). What the share and the learned headroom come to is spaced by a
`Pacer`. Requests of the day are drawn in small lots. Times are seconds of any monotonic clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from workers.quota.book import Day, Wish
from workers.quota.cubic import Cubic
from workers.quota.deference import Counted, Deference
from workers.quota.pacing import REQUEST_LOSS, TOKEN_LOSS, Headroom, Pacer, Quota
from workers.quota.shares import seats
from workers.quota.weights import JobWeights, named

DAY = 86_400.0
"""Seconds of a day, as quotas count it: from midnight to midnight, UTC."""
HORIZON = 3.0
"""Seconds within which what waits should be served, if the quota allows."""
GROWTH = 1.5
"""What a process asks for beside the calls that wait, as a multiple of those that came."""
FIRST_TOKENS = 500.0
"""Tokens that a call is reckoned with before one was made."""
AHEAD = 20.0
"""Seconds of work for which requests of the day are drawn from the ledger in advance."""
LARGEST_LOT = 0.05
"""The part of a day's requests that is drawn at a time at most; a crash loses it until midnight."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What the ledger gave: a share until a time of the own clock, and what others have learned."""

    share: float
    until: float
    requests: float = Headroom.START
    tokens: float = Headroom.START
    day: int = 0
    date: int = 0
    """The day of which `day` requests were given."""
    day_over: bool = False
    holders: int = 1
    seated: int = 1
    """How many of them may have a share at present."""
    wanting: int = 1
    """How many of them want any, of those who have seats if this one has; at least 1, but 0 where
    this one wants none and nobody waits for its seat."""
    short: bool = False
    """Whether it pays to ask again soon."""
    lapses: float = inf
    """Seconds until another's entry runs out, as far as is known."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """What of each job's weight falls to this process, among all who ask it and all tenants."""


class Allowance:
    """One process's part of one quota, spaced. `midnight` is when the day's quota starts anew."""

    def __init__(self, quota: Quota, *, safe_share: float, midnight: float, now: float) -> None:
        self.quota = quota
        self._safe_share = safe_share
        self._share = 0.0
        self._until = -inf
        self.holders = self.seated = 1
        self.parts: Mapping[str, float] = {}
        self._cubic: Cubic | None = None
        self._alone = False
        self.deference: Deference | None = None
        """What is left to others who ask the same deployment, where it is to give way to them."""
        self._pacer = Pacer(quota, now)
        self._rooms = {
            "requests": Headroom(REQUEST_LOSS, quota.start),
            "tokens": Headroom(TOKEN_LOSS),
        }
        self.midnight = midnight
        self.day_left = 0
        self.drawn = Day()
        self._day_over = False
        self._asked_at = now
        self._sent: tuple[int, float] = (0, 0.0)
        self._each = FIRST_TOKENS
        self._queued = 0
        self.wanted = 0.0
        self.rounds_failed = 0
        """Rounds with the ledger since the process started that failed."""

    # -- may a call go? ---------------------------------------------------------------------

    @property
    def share(self) -> float:
        """The part of the quota to use, 0 to 1; it counts only while `shared` says now."""
        return self._cubic.share if self._cubic is not None else self._share

    def headroom(self, limit: str) -> float:
        """The part of a limit, requests or tokens, that is used: as much as the service allows."""
        return self._rooms[limit].value

    def granted(self, now: float) -> float:
        """The part of the quota that is this process's by the ledger, as long as it is."""
        return self._share if self._cubic is None and now < self._until else 0.0

    def shared(self, now: float) -> float:
        """When the share may be used: now, or inf when one has to come first."""
        return now if self._cubic is not None or now < self._until else inf

    def day(self, now: float) -> float:
        """When a request of the day is left: now, at midnight, or inf when one has to be dealt."""
        if self.quota.requests_per_day is None or self._lot(now) > 0:
            return now
        return self.midnight if self._day_over else inf

    def paced(self, tokens: float, now: float) -> float:
        """When a call of `tokens` may go by the rates of the share."""
        return self._pacer.ready(tokens, now)

    # -- what became of calls ---------------------------------------------------------------

    def spend(self, tokens: float, now: float) -> None:
        """Note that a call of `tokens` goes."""
        self._pacer.spend(tokens, now)
        self.day_left = max(0, self.day_left - 1)
        self._sent = (self._sent[0] + 1, self._sent[1] + tokens)

    def correct(self, tokens: float, now: float) -> None:
        """Correct a reservation by `tokens`, negative where the call cost less."""
        self._pacer.correct(tokens, now)

    def heard(self, counted: Counted, remaining: int, sent: float, now: float) -> None:
        """Note what the service says is left of a window."""
        if self.deference is not None:
            self.deference.heard(counted, remaining, sent, now)

    def passed(self, now: float) -> None:
        """Note that a call was let through."""
        for room in self._rooms.values():
            room.passed()
        if self._cubic is not None:
            self._cubic.passed(now)
        self._pace(now)

    def refused(self, limit: str | None, sent: float, now: float) -> None:
        """Note that a call sent at `sent` met a 429 by the limit of that name, if it has one."""
        if self.deference is not None:
            # Not our doing: it says nothing of what the service lets through when nobody else asks.
            self.deference.refused(sent, now)
        else:
            for name, room in self._rooms.items():
                if limit is None or limit == name:
                    room.refused(sent, now)
        if self._cubic is not None:
            self._cubic.refused(sent, now)
        self._pace(now)

    # -- where the share comes from ---------------------------------------------------------

    def own(self, now: float) -> None:
        """Use the whole quota, because there is nobody to share it with."""
        self._share, self._until, self._alone = 1.0, inf, True
        self.day_left = self.quota.requests_per_day or 0
        self._pace(now)

    def fund(self, grant: Grant, told: Wish, midnight: float, now: float) -> None:
        """Use what the ledger granted to the wish `told`; `midnight` is by the ledger's clock."""
        self._cubic = None
        self._share, self._until = grant.share, grant.until
        self.holders, self.seated = grant.holders, grant.seated
        self.parts = grant.parts
        self.midnight = midnight
        if grant.date != self.drawn.date:
            self.drawn, self.day_left = Day(grant.date), 0
        self.drawn = Day(grant.date, self.drawn.given + grant.day)
        self.day_left += grant.day
        self._day_over = grant.day_over
        self._rooms["requests"].learned(grant.requests, told.requests)
        self._rooms["tokens"].learned(grant.tokens, told.tokens)
        self._pace(now)

    def use_meanwhile(self, share: float, until: float | None, now: float) -> None:
        """Use this share while another is being written, until a time: what others handed over, or
        no more than will be there if the answer is lost. Without a time, at most what is held."""
        if until is None:
            share = min(self._share, share)
        else:
            self._until = until
        self._share = share
        self._pace(now)

    def ledger_lost(self, now: float) -> None:
        """Go on alone and carefully once the share has run out, because the ledger is lost."""
        if now >= self._until and self._cubic is None:
            # The others have lost it too: all together must not start above the quota.
            self._cubic = Cubic(min(self._safe_share, 1.0 / self.holders), now)
            if self.holders > 1 and not self._share:
                self._pacer.rest()
        self._pace(now)

    def release(self) -> None:
        """Use nothing any more: the share and the lot go back to the ledger."""
        self._until = -inf
        self._share = 0.0
        self._cubic = None
        self.parts = {}
        self.drawn = self.used
        self.day_left = 0

    # -- what to ask for --------------------------------------------------------------------

    def wish(
        self,
        asked: JobWeights,
        queued: int,
        now: float,
        *,
        full: bool = False,
        leaving: bool = False,
    ) -> Wish:
        """What to ask of the ledger for the jobs that are asked, while `queued` calls wait.

        They wait for one in flight to end where it is `full`. `leaving` returns the day's rest.
        """
        entry = named(asked)
        return Wish(
            weight=asked.weight or 1.0,
            jobs=entry.jobs,
            tenants=entry.tenants,
            waiting=entry.waiting,
            wants=self._wants(queued, now, full=full),
            seats=seats(self.quota.requests_per_minute),
            rate=self.quota.rate,
            start=self.quota.start,
            requests=self._rooms["requests"].factor,
            tokens=self._rooms["tokens"].factor,
            day=self._day_wanted(now),
            drawn=self.used if leaving else self.drawn,
            per_day=self.quota.requests_per_day,
        )

    @property
    def used(self) -> Day:
        """The requests of the day that were drawn and are not held any more."""
        return Day(self.drawn.date, self.drawn.given - self.day_left)

    def _day_wanted(self, now: float) -> int:
        """How many requests of the day to draw for work at the present rate."""
        per_day = self.quota.requests_per_day
        if per_day is None:
            return 0
        rate, most = self._pacer.request_rate, per_day * LARGEST_LOT
        ahead = min(rate * AHEAD, most) if rate > 0 else most
        return max(0, int(max(1.0, ahead)) - self._lot(now))

    def _wants(self, queued: int, now: float, *, full: bool) -> float:
        """The part of the quota that could be used by the calls that wait and those that come.

        What waits is to be served within HORIZON; what came since the last wish will come again,
        and half as much more where there is room for it. As long as calls go and any waits, the
        process wants what it has: a share that moves lies idle for a round, so it moves once.
        One whose calls have all gone wants nothing, whatever it has used before.
        """
        seconds = max(now - self._asked_at, 0.1)
        requests, tokens = self._sent
        each = tokens / requests if requests else self._each
        came = max(0, requests + queued - self._queued)
        waiting = self._part(queued, queued * each, HORIZON)
        coming = GROWTH * self._part(came, came * each, seconds)
        self._each, self._queued = each, queued
        self._asked_at, self._sent = now, (0, 0.0)
        held = self.granted(now) if queued and requests else 0.0
        self.wanted = min(max(waiting + coming, held), 1.0)
        if full:
            # More would be of no use to it; the queue is no longer for having less.
            went = self._part(requests, tokens, seconds)
            self.wanted = min(self.wanted, max(GROWTH * went, self._part(1, each, HORIZON)))
        return self.wanted

    def _part(self, requests: float, tokens: float, seconds: float) -> float:
        """Which part of the quota so much in so many seconds is; of a day's alone, any is all."""
        unpaced = not self.quota.requests_per_minute and not self.quota.tokens_per_minute
        part = 1.0 if requests and unpaced else 0.0
        if self.quota.requests_per_minute:
            part = requests / seconds * 60.0 / self.quota.requests_per_minute
        if self.quota.tokens_per_minute:
            part = max(part, tokens / seconds * 60.0 / self.quota.tokens_per_minute)
        return part

    def _pace(self, now: float) -> None:
        """Space calls by the share and by what was learned of the service."""
        rooms = self._rooms
        share = self.share * (self.deference.allowed(now) if self.deference is not None else 1.0)
        self._pacer.grant(share, rooms["requests"].value, rooms["tokens"].value, now)

    def _lot(self, now: float) -> int:
        """Requests of the day that are held; at midnight they are worth nothing any more."""
        if now >= self.midnight:
            self.midnight += DAY * (1 + (now - self.midnight) // DAY)
            self._day_over = False
            self.day_left = (self.quota.requests_per_day or 0) if self._alone else 0
        elif self._alone and self.day_left <= 0:
            self._day_over = True
        return self.day_left
