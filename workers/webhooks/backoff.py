"""What follows from a receiver's answer: is it told, is it tried again, and when, or given up?"""

from random import Random
from typing import Final, NamedTuple

from schemas.webhooks import Reception

DAY_SECONDS: Final = 86_400.0
"""For which a receiver is tried."""
FIRST_SECONDS: Final = 5.0
LONGEST_SECONDS: Final = 2 * 3600.0
_GROWTH: Final = 4.0
_SPREAD: Final = 0.2
_GONE: Final = 410


class Delivered(NamedTuple):
    """The receiver has taken it."""


class Later(NamedTuple):
    """The receiver is tried again at a time, in seconds since the epoch."""

    at: float


class GivenUp(NamedTuple):
    """The receiver is not tried again."""

    why: str


def judge(
    reception: Reception, *, tries: int, since: float, now: float, rng: Random
) -> Delivered | Later | GivenUp:
    """What follows from try number `tries`, where the first was at `since`.

    5 s, 20 s, 80 s and so on to two hours lie between tries, give or take a fifth, and no less than
    the receiver asks for. The last try is a day after the first.
    """
    if reception.taken:
        return Delivered()
    if reception.status == _GONE:
        return GivenUp("the receiver wants no more of it (410)")
    last = since + DAY_SECONDS
    if now >= last:
        return GivenUp(f"{reception.told}, for a day")
    wait = min(FIRST_SECONDS * _GROWTH ** min(tries - 1, 10), LONGEST_SECONDS)
    wait *= rng.uniform(1.0 - _SPREAD, 1.0 + _SPREAD)
    return Later(min(now + max(wait, reception.retry_after or 0.0), last))
