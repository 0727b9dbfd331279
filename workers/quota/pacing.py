"""When may the next call go, so that a quota is used to the full and never exceeded?

Leaky buckets in the manner of GCRA (ITU-T I.371): what passes in t seconds is at most
rate * t + burst, whatever the order of calls; a call larger than the burst passes when the bucket
is empty and leaves a debt. Times are seconds of any monotonic clock, handed in.
"""

from dataclasses import dataclass
from math import inf

LATENESS = 0.05
"""Seconds by which a wake-up may be late without quota being lost: the burst of requests."""
TOKEN_BURST = 1.0
"""Seconds of the token rate that may go at once."""
REQUEST_LOSS, TOKEN_LOSS = 0.005, 0.015
"""The part of the headroom that a 429 closes, by the limit that it names."""


class Bucket:
    """One limited quantity: it leaks at `rate` per second and holds `burst`."""

    __slots__ = ("_at", "burst", "level", "rate")

    def __init__(self, rate: float = 0.0, burst: float = 1.0, now: float = 0.0) -> None:
        self.rate = rate
        self.burst = burst
        self.level = 0.0
        self._at = now

    def set(self, rate: float, burst: float, now: float) -> None:
        """Change rate and burst from now on; what has been spent stays spent."""
        self._leak(now)
        self.rate = rate
        self.burst = burst

    def ready(self, cost: float, now: float) -> float:
        """The earliest time at which `cost` may pass; inf while the rate is zero."""
        self._leak(now)
        if self.rate <= 0.0:
            return inf
        over = self.level - max(0.0, self.burst - cost)
        return now if over <= 1e-9 else now + over / self.rate + 1e-9

    def spend(self, cost: float, now: float) -> None:
        """Let `cost` pass now."""
        self._leak(now)
        self.level += cost

    def correct(self, amount: float, now: float) -> None:
        """Correct what was spent by `amount`, negative where it was less."""
        self._leak(now)
        self.level = max(0.0, self.level + amount)

    def _leak(self, now: float) -> None:
        if now > self._at:
            self.level = max(0.0, self.level - (now - self._at) * self.rate)
            self._at = now


@dataclass(frozen=True, slots=True)
class Quota:
    """What a deployment allows; None is unlimited."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    requests_per_day: int | None = None

    @property
    def rate(self) -> int:
        """Whole requests a second, as many as windows of a second let through; 0: no limit."""
        return int((self.requests_per_minute or 0.0) // 60)

    @property
    def start(self) -> float:
        """The part of the requests with which to begin, before it is learned what passes."""
        return max(Headroom.START, 60.0 * self.rate / (self.requests_per_minute or inf))

    @property
    def limited(self) -> bool:
        """Whether there is anything to share."""
        return (self.requests_per_minute, self.tokens_per_minute, self.requests_per_day) != (
            None,
            None,
            None,
        )


class Pacer:
    """Requests and tokens of one process at one deployment: its share of the quota, smoothed."""

    def __init__(self, quota: Quota, now: float) -> None:
        self._quota = quota
        self._requests = Bucket(now=now) if quota.requests_per_minute else None
        self._tokens = Bucket(now=now) if quota.tokens_per_minute else None

    @property
    def request_rate(self) -> float:
        """Requests per second at present; inf where unlimited."""
        return self._requests.rate if self._requests else inf

    def grant(self, share: float, request_room: float, token_room: float, now: float) -> None:
        """Use `share` (0 to 1) of the quota from now on, times the headroom of each limit."""
        if self._requests is not None and self._quota.requests_per_minute:
            rate = self._quota.requests_per_minute / 60.0 * share * request_room
            self._requests.set(rate, 1.0 + rate * LATENESS, now)
        if self._tokens is not None and self._quota.tokens_per_minute:
            rate = self._quota.tokens_per_minute / 60.0 * share * token_room
            self._tokens.set(rate, rate * TOKEN_BURST, now)

    def rest(self) -> None:
        """Begin as if a request had just gone: others begin at the same time."""
        if self._requests is not None:
            self._requests.level = max(self._requests.level, 1.0)

    def ready(self, tokens: float, now: float) -> float:
        """When one request of `tokens` may go at the earliest; inf while there is no share."""
        at = self._requests.ready(1.0, now) if self._requests else now
        return max(at, self._tokens.ready(tokens, now)) if self._tokens else at

    def spend(self, tokens: float, now: float) -> None:
        """Let one request of `tokens` go now."""
        if self._requests is not None:
            self._requests.spend(1.0, now)
        if self._tokens is not None:
            self._tokens.spend(tokens, now)

    def correct(self, tokens: float, now: float) -> None:
        """Correct a reservation by `tokens`, negative where the request cost less."""
        if self._tokens is not None:
            self._tokens.correct(tokens, now)


class Headroom:
    """How much of the nominal quota the service really lets through, learned from its 429s.

    Services floor and round their windows, and count prompts in their own way. Each success opens
    a little, each 429 closes more: at the balance about one request in a hundred is refused
    (GAIN / LOSS). A long run without a 429 opens faster, so that what was closed by somebody
    else's burst comes back in minutes. `factor` is what this process has learned and the shared
    ledger does not know yet; `spent` tells the part that it has been told.
    """

    GAIN = 0.00005
    LOSS: float
    FLOOR, CEILING, START = 0.05, 1.0, 0.96

    def __init__(self, loss: float, start: float = START) -> None:
        self.LOSS = loss
        self.base = start
        self.factor = 1.0
        self._clean = 0
        self._cut_at = -inf

    @property
    def value(self) -> float:
        """The part of the quota to be used, FLOOR to CEILING."""
        return clamp(self.base * self.factor, self.FLOOR, self.CEILING)

    def passed(self) -> None:
        """Note that a request was let through."""
        self._clean += 1
        if self.base * self.factor < self.CEILING:
            self.factor *= 1.0 + self.GAIN * max(1.0, self._clean / 200.0)

    def refused(self, sent: float, now: float) -> None:
        """Note that a request sent at `sent` met a 429; refusals of one flight count once."""
        self._clean = 0
        if sent < self._cut_at or self.value <= self.FLOOR:
            return
        self._cut_at = now
        self.factor *= 1.0 - self.LOSS

    def learned(self, base: float, told: float) -> None:
        """Take over the ledger's value, which contains the part `told` of the own factor."""
        self.base = base
        self.factor /= told


def clamp(value: float, low: float, high: float) -> float:
    """`value`, but not below `low` and not above `high`."""
    return min(max(value, low), high)
