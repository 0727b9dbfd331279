"""How much of a quota is left to others who ask the same deployment, seen by what it tells?

What the service says is left (`x-ratelimit-remaining-*`) shows how much of a window is used. What
our own rate does not explain is others'. Times are seconds of any monotonic clock.
"""

from collections import deque
from typing import Literal

from workers.quota.pacing import clamp

MARGIN = 0.1
"""The part of the quota that is never used: it shows others before one of their calls is refused,
and it is theirs at once."""
LEAST = 0.05
"""The part that is used all the same: answers tell when the others have gone."""
LOOK = 0.5
"""Seconds between notes of our own rate."""
WINDOW = 1.0
"""Seconds of a window, as services judge; a rate that was lower before its end was higher in it."""
REMEMBERED = 180.0
"""Seconds for which our own rates are remembered, as long as a call may take; and windows' sizes,
as long again."""
NOISE = 1.5
"""Calls of our own by which a window may hold more than the rate says."""
REFUSED = 0.25
"""The part of the quota that others are taken to need more when a call meets a 429."""
RECOVERY = 30.0
"""Seconds in which the whole quota comes back after the others have gone."""

Counted = Literal["requests", "tokens"]


class Deference:
    """What one process leaves to others. `part` is what all of ours may use of the quota."""

    def __init__(self, part: float, now: float) -> None:
        self._part = part
        self._margin = max(MARGIN, 1.0 - part)
        self._others, self._at = 0.0, now
        self._windows: dict[Counted, tuple[int, int, float]] = {}
        self._refused_at = now
        # What is told was so when the call was sent: it is held against our rate at that time.
        self._rates: deque[tuple[float, float]] = deque(maxlen=int(REMEMBERED / LOOK))

    def allowed(self, now: float) -> float:
        """The part of our own quota to use now, LEAST to 1."""
        return clamp((1.0 - self._margin - self.others(now)) / self._part, LEAST, 1.0)

    def others(self, now: float) -> float:
        """The part of the quota that others use; it is forgotten with time."""
        return max(0.0, self._others - (now - self._at) / RECOVERY)

    def heard(self, counted: Counted, remaining: int, sent: float, now: float) -> None:
        """Note what the service said was left of a window when it let a call in, sent at `sent`."""
        if not self._rates or now >= self._rates[-1][0] + LOOK:
            self._rates.append((now, self.allowed(now) * self._part))
        window = self._window(counted, remaining, now)
        used = 1.0 - (remaining + (NOISE if counted == "requests" else 0.0)) / window
        self._note(used - self._own(sent), now)

    def refused(self, sent: float, now: float) -> None:
        """Note a 429 to a call sent at `sent`: within our part it is not our doing."""
        if sent >= self._refused_at:
            self._refused_at = now
            self._note(self.others(now) + REFUSED, now)

    def _window(self, counted: Counted, remaining: int, now: float) -> int:
        """What a window holds: the most that was ever left of one, in the last minutes.

        Limits are lowered, and a number that is out of all proportion must not count for good.
        """
        lately, before, since = self._windows.get(counted, (0, 0, now))
        if now >= since + REMEMBERED:
            lately, before, since = 0, lately, now
        lately = max(lately, remaining + 1)
        self._windows[counted] = lately, before, since
        return max(lately, before)

    def _own(self, sent: float) -> float:
        """The most that ours used in the window of a call."""
        most = 0.0
        for at, rate in reversed(self._rates):
            most = max(most, rate) if at <= sent + LOOK else most
            if at < sent - WINDOW:
                break
        return most or 1.0 - self._margin

    def _note(self, others: float, now: float) -> None:
        if others > self.others(now):
            self._others, self._at = min(others, 1.0), now
