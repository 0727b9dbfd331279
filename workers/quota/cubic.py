"""How much of a quota may a process use while it cannot coordinate with the others?

CUBIC (RFC 9438, as botocore's adaptive retries use it for rates), but in shares of the quota and
with minutes where TCP has milliseconds: it starts from a configured safe share, falls at a 429,
climbs back to where that happened within RECOVERY seconds, rests there, and then probes.
"""

BETA = 0.7
RECOVERY = 60.0


class Cubic:
    """The share to use without the ledger, 0 to 1."""

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
