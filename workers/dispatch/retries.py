"""What follows from the outcome of a call: is it final, or is it made again, and when?"""

from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal

from schemas.outcomes import Outcome

ATTEMPTS = 3
"""How often a row may fail by its own fault before the failure is final."""
BASE, LONGEST = 0.5, 20.0
"""Seconds of full-jitter backoff: uniform(0, min(LONGEST, BASE * 2**n)) (AWS architecture blog)."""
LONGEST_HINT = 120.0
"""Quotas turn every minute: a longer hint about one of them is a mistake and counts as none.
Services have told clients to wait a day for a minute's quota."""
LONGEST_DAY = 86_400.0
"""A longer hint is a mistake even where the service says that the limit is a day's."""
UNTOLD = {"day": 900.0, "tokens": 5.0, "requests": 1.0}
"""Seconds to wait where the service does not say; but for a day's, doubled with each refusal in a
row."""
LONGEST_UNTOLD = 60.0
JITTER = 0.25

Step = Literal["final", "postpone", "elsewhere", "retry"]

_FINAL = frozenset({"ok", "content_filter", "bad_request"})


def step(outcome: Outcome) -> Step:
    """What an outcome asks for.

    final: the outcome is the row's. postpone: the call was refused for now, which costs the row
    nothing. elsewhere: the deployment is out of order, whatever the row. retry: the call may pass
    next time, within limits.
    """
    if outcome.kind in _FINAL:
        return "final"
    if outcome.kind == "throttled":
        return "postpone"
    if outcome.kind in ("auth", "gone"):
        return "elsewhere"
    return "retry"


def backoff(failures: int, rng: Random, told: float | None = None) -> float:
    """Seconds before try number `failures` + 1, with full jitter; not before the server wants it.

    `told` is what a failed call's Retry-After says, if it makes sense.
    """
    wait = rng.uniform(0.0, min(LONGEST, BASE * 2.0 ** min(failures, 10)))
    if told is None or told > LONGEST_HINT:
        return wait
    return max(wait, told + rng.uniform(0.0, JITTER))


def hint(outcome: Outcome, refusals: int, rng: Random) -> float:
    """Seconds to wait after the `refusals`-th 429 in a row: what the server says if it makes sense.

    A little jitter comes on top, so that those who were told the same do not come back as one.
    """
    day = outcome.limit == "day"
    told = outcome.retry_after
    if told is None or told > (LONGEST_DAY if day else LONGEST_HINT):
        first = UNTOLD.get(outcome.limit or "requests", 1.0)
        told = first if day else min(_most(outcome), first * 2.0 ** min(max(refusals - 1, 0), 10))
    return told + rng.uniform(0.0, JITTER)


def _most(outcome: Outcome) -> float:
    """What the doubled waits end at.

    A long hint for a limit without a name is a mistake about a minute's quota or the truth about a
    day's. Only asking tells: soon at first, and, while it is refused, as rarely as a day's limit.
    """
    told = outcome.retry_after
    if outcome.limit is not None or told is None or told > LONGEST_DAY:
        return LONGEST_UNTOLD
    return min(told, UNTOLD["day"])


@dataclass(slots=True)
class Budget:
    """How many retries a deployment may be burdened with (Finagle's RetryBudget, gRPC's A6).

    A retry takes 1, which comes back if it does not fail; a success gives RATIO, time gives TRICKLE
    a second. So at most MOST + RATIO x successes + TRICKLE x seconds retries fail: a service in
    trouble is not asked twice for everything, and one that is well again answers MOST at a time.
    """

    tokens: float = 10.0
    at: float = 0.0

    MOST: ClassVar[float] = 10.0
    RATIO: ClassVar[float] = 0.1
    TRICKLE: ClassVar[float] = 0.5

    def spend(self) -> None:
        """Note that a retry is made; `wait` must have allowed it."""
        self.tokens -= 1.0

    def give_back(self) -> None:
        """Return a retry that did not fail."""
        self.tokens = min(self.MOST, self.tokens + 1.0)

    def succeeded(self) -> None:
        """Note that a call was answered well."""
        self.tokens = min(self.MOST, self.tokens + self.RATIO)

    def wait(self, now: float) -> float:
        """Seconds until a retry is allowed, as far as time alone decides; 0 where one is now."""
        self._refill(now)
        return max(0.0, 1.0 - self.tokens) / self.TRICKLE

    def _refill(self, now: float) -> None:
        self.tokens = min(self.MOST, self.tokens + (now - self.at) * self.TRICKLE)
        self.at = now
