"""Which part of a quota may this process use now, and how much of it does it want?

The share comes from the ledger and ends by this process's own clock; without the ledger it is
small and feels its way (`Cubic`). Requests of the day are drawn in small lots.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from workers.quota.pacing import Headroom, Quota, clamp
from workers.quota.shares import REST, Day

DAY = 86_400.0
BETA = 0.7
"""What a 429 leaves of the share that is used without the ledger."""
RECOVERY = 60.0
"""Seconds in which that share climbs back to where it was refused."""
HORIZON = 5.0
"""Seconds within which what waits should be served, if the quota allows."""
LEAST_WANTS = 0.05
AHEAD = 20.0
"""Seconds of work for which requests of the day are drawn from the ledger in advance."""


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
    short: bool = False
    """It pays to ask again soon."""
    spread: Mapping[str, int] = field(default_factory=dict)
    """By how many processes each job is asked that this one asks."""


class Cubic:
    """The share to use while the others cannot be coordinated with, 0 to 1.

    CUBIC (RFC 9438, as botocore's adaptive retries use it for rates), but in shares of the quota
    and with minutes where TCP has milliseconds: it starts from a configured safe share, falls at a
    429, climbs back to where that happened within RECOVERY seconds, rests there, and then probes.
    """

    __slots__ = ("_best", "_cut_at", "_k", "share")

    def __init__(self, safe: float, now: float) -> None:
        self.share = safe
        self._best = safe
        self._k = 0.0
        self._cut_at = now

    def passed(self, now: float) -> None:
        """A call was let through: climb with time."""
        t = (now - self._cut_at - self._k) / RECOVERY
        self.share = min(1.0, max(0.01, self._best + (1.0 - BETA) * self._best * t**3))

    def refused(self, sent: float, now: float) -> None:
        """A call sent at `sent` met a 429; refusals of one flight count once."""
        if sent < self._cut_at:
            return
        self._best = self.share
        self.share = max(0.01, self.share * BETA)
        self._cut_at = now
        self._k = RECOVERY


class Allowance:
    """One process's part of one quota. `midnight` is when the day's quota starts anew."""

    def __init__(self, quota: Quota, *, safe_share: float, midnight: float, now: float) -> None:
        self._quota = quota
        self._safe_share = safe_share
        self._share = 0.0
        self._until = -inf
        self._holders = 1
        self._spread: Mapping[str, int] = {}
        self._cubic: Cubic | None = None
        self._alone = False
        self.midnight = midnight
        self.day_left = 0
        self.drawn = Day()
        self._day_over = False
        self._starved = True
        self._asked_at = now
        self._sent: tuple[int, float] = (0, 0.0)
        self._each = 500.0

    def granted(self, now: float) -> float:
        """The part of the quota that is this process's by the ledger, as long as it is."""
        return self._share if self._cubic is None and now < self._until else 0.0

    @property
    def share(self) -> float:
        """The part of the quota to use, 0 to 1; it counts only while `ready`."""
        return self._cubic.share if self._cubic is not None else self._share

    def ready(self, now: float) -> float:
        """When something may be used: now, at midnight, or inf when a share has to come first."""
        if self._cubic is None and now >= self._until:
            return inf
        if self._quota.requests_per_day is not None and self._lot(now) <= 0:
            self._starved = True
            return self.midnight if self._day_over else inf
        return now

    def day_over(self, now: float) -> bool:
        """Whether nothing is left of the day's requests, here or in the ledger."""
        return self._quota.requests_per_day is not None and self._lot(now) <= 0 and self._day_over

    def starve(self) -> None:
        """The quota holds calls up: more could be used."""
        self._starved = True

    def spend(self, tokens: float) -> None:
        """A call of `tokens` goes."""
        self.day_left = max(0, self.day_left - 1)
        self._sent = (self._sent[0] + 1, self._sent[1] + tokens)

    def passed(self, now: float) -> None:
        """A call was let through."""
        if self._cubic is not None:
            self._cubic.passed(now)

    def refused(self, sent: float, now: float) -> None:
        """A call sent at `sent` met a 429."""
        if self._cubic is not None:
            self._cubic.refused(sent, now)

    def own(self) -> None:
        """There is nobody to share with: the whole quota is this process's."""
        self._share, self._until, self._alone = 1.0, inf, True
        self.day_left = self._quota.requests_per_day or 0

    def fund(self, grant: Grant, midnight: float) -> None:
        """The ledger has granted."""
        self._cubic = None
        self._share, self._until = grant.share, grant.until
        self._holders = grant.holders
        self._spread = grant.spread
        self.midnight = midnight
        if grant.date != self.drawn.date:
            self.drawn, self.day_left = Day(grant.date), 0
        self.drawn = Day(grant.date, self.drawn.given + grant.day)
        self.day_left += grant.day
        self._day_over = grant.day_over

    def lower(self, share: float) -> None:
        """Use no more than this share from now on."""
        self._share = min(self._share, share)

    def ledger_lost(self, now: float) -> None:
        """The ledger did not answer: once the share has run out, go on alone and carefully."""
        if now >= self._until and self._cubic is None:
            # The others have lost it too: all together must not start above the quota.
            self._cubic = Cubic(min(self._safe_share, 1.0 / self._holders), now)

    def release(self) -> None:
        """The share and the lot go back."""
        self._until = -inf
        self._share = 0.0
        self._cubic = None
        self.drawn = self.used
        self.day_left = 0
        self._starved = True

    def spread(self, job: str) -> int:
        """By how many processes a job is asked, as far as is known."""
        return self._spread.get(job) or self._spread.get(REST, 1)

    @property
    def used(self) -> Day:
        """The requests of the day that were drawn and are not held any more."""
        return Day(self.drawn.date, self.drawn.given - self.day_left)

    def day_wanted(self, rate: float, now: float) -> int:
        """How many requests of the day to draw for work at `rate` requests a second."""
        per_day = self._quota.requests_per_day
        if per_day is None:
            return 0
        ahead = min(rate * AHEAD, per_day / 20) if rate > 0 else per_day / 20
        return max(0, int(max(1.0, ahead)) - self._lot(now))

    def wants(self, queued: int, now: float) -> float:
        """The part of the quota that could be used: what was used and half as much again.

        While the quota holds calls up, also what would serve them within HORIZON.
        """
        seconds = max(now - self._asked_at, 0.1)
        requests, tokens = self._sent
        each = tokens / requests if requests else self._each
        self._each = each
        wants = 1.5 * self._part(requests, tokens, seconds)
        if self._starved:
            wants = max(wants, self._part(queued, queued * each, HORIZON))
        self._starved = False
        self._asked_at, self._sent = now, (0, 0.0)
        return clamp(wants, LEAST_WANTS, 1.0)

    def _part(self, requests: float, tokens: float, seconds: float) -> float:
        """Which part of the quota so much in so many seconds is."""
        part = 0.0
        if self._quota.requests_per_minute:
            part = requests / seconds * 60.0 / self._quota.requests_per_minute
        if self._quota.tokens_per_minute:
            part = max(part, tokens / seconds * 60.0 / self._quota.tokens_per_minute)
        return part

    def _lot(self, now: float) -> int:
        """Requests of the day that are held; at midnight they are worth nothing any more."""
        if now >= self.midnight:
            self.midnight += DAY * (1 + (now - self.midnight) // DAY)
            self._day_over = False
            self.day_left = (self._quota.requests_per_day or 0) if self._alone else 0
        elif self._alone and self.day_left <= 0:
            self._day_over = True
        return self.day_left
