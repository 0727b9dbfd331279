"""Which part of a quota may a process use while it cannot coordinate with the others?"""

BETA = 0.7
"""What a 429 leaves of the share."""
RECOVERY = 60.0
"""Seconds in which the share climbs back to where it was refused."""
LEAST_SHARE = 0.01
"""The share never falls below this, so that it can climb again."""


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
        """Climb with time, because a call was let through."""
        t = (now - self._cut_at - self._k) / RECOVERY
        self.share = min(1.0, max(LEAST_SHARE, self._best + (1.0 - BETA) * self._best * t**3))

    def refused(self, sent: float, now: float) -> None:
        """Fall, because a call sent at `sent` met a 429; refusals of one flight count once."""
        if sent < self._cut_at:
            return
        self._best = self.share
        self.share = max(LEAST_SHARE, self.share * BETA)
        self._cut_at = now
        self._k = RECOVERY
