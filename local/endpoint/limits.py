"""How much may be asked of one deployment? Quotas as the services judge them, at admission.

Requests are counted in tumbling windows of `window` seconds, in each of which
floor(requests_per_minute * window / 60) pass; tokens in tumbling minutes by estimate (prompt +
max_tokens); both start again from nothing when the window turns. A refused request costs nothing.
Time is handed in, in seconds since the simulator began.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

MINUTE = 60.0
DAY = 86_400.0

Cause = Literal["requests", "tokens", "day", "size", "concurrency"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The quota of one deployment; 0 means unlimited. `window` is in seconds: 1, 10 or 60."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    requests_per_day: int = 0
    max_tokens_per_request: int = 0
    max_concurrency: int = 0
    window: int = 1

    def __post_init__(self) -> None:
        if self.window not in (1, 10, 60):
            raise ValueError(f"window is {self.window}: the services judge 1, 10 or 60 seconds")
        for name in self.__slots__:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is negative: 0 means unlimited")

    @property
    def request_window(self) -> int:
        """The window in seconds; a whole minute where not even one request fits the chosen one."""
        return self.window if self.requests_per_minute * self.window >= MINUTE else int(MINUTE)

    @property
    def requests_per_window(self) -> int:
        """How many requests pass in one window, floored; 0 means unlimited."""
        return self.requests_per_minute * self.request_window // int(MINUTE)


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Why a request is refused: `wait` is the seconds until the same request could pass."""

    cause: Cause
    limit: int
    used: int
    asked: int
    window: int
    wait: float


@dataclass(frozen=True, slots=True)
class Remaining:
    """What the current windows still hold; None where unlimited."""

    requests: int | None
    tokens: int | None
    requests_reset: float
    tokens_reset: float


@dataclass(slots=True)
class _Window:
    """A tumbling window: counts start again at each multiple of its length."""

    seconds: float
    turn: int = -1
    used: int = 0

    def roll(self, now: float) -> None:
        turn = int(now // self.seconds)
        if turn != self.turn:
            self.turn, self.used = turn, 0

    def left(self, now: float) -> float:
        return max(0.0, (self.turn + 1) * self.seconds - now)


class Quota:
    """The state of one deployment's quota."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.in_flight = 0
        self._requests = _Window(limits.request_window)
        self._tokens = _Window(MINUTE)
        self._day = _Window(DAY)

    def change(self, limits: Limits) -> None:
        """Judge by other limits from now on; what the windows have counted stays."""
        self.limits = limits
        if self._requests.seconds != limits.request_window:
            self._requests = _Window(limits.request_window)

    def admit(self, now: float, tokens: int) -> Exceeded | None:
        """Count a request of `tokens` in, or say what stands against it."""
        for window in (self._requests, self._tokens, self._day):
            window.roll(now)
        exceeded = self._judge(now, tokens)
        if exceeded is None:
            self._requests.used += 1
            self._tokens.used += tokens
            self._day.used += 1
            self.in_flight += 1
        return exceeded

    def release(self) -> None:
        """An admitted request has ended."""
        self.in_flight -= 1

    def remaining(self, now: float) -> Remaining:
        """What the windows hold after the last admission, for the x-ratelimit headers."""
        limits = self.limits
        self._requests.roll(now)
        self._tokens.roll(now)
        return Remaining(
            limits.requests_per_window - self._requests.used
            if limits.requests_per_minute
            else None,
            limits.tokens_per_minute - self._tokens.used if limits.tokens_per_minute else None,
            self._requests.left(now),
            self._tokens.left(now),
        )

    def _judge(self, now: float, tokens: int) -> Exceeded | None:
        limits = self.limits
        checks: tuple[tuple[Cause, int, int, int, _Window | None], ...] = (
            ("size", limits.max_tokens_per_request, 0, tokens, None),
            ("concurrency", limits.max_concurrency, self.in_flight, 1, None),
            ("day", limits.requests_per_day, self._day.used, 1, self._day),
            ("requests", limits.requests_per_window, self._requests.used, 1, self._requests),
            ("tokens", limits.tokens_per_minute, self._tokens.used, tokens, self._tokens),
        )
        for cause, limit, used, asked, window in checks:
            if limit and used + asked > limit:
                if window is None:
                    return Exceeded(cause, limit, used, asked, 0, inf if cause == "size" else 0.0)
                return Exceeded(cause, limit, used, asked, int(window.seconds), window.left(now))
        return None
