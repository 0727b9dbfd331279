"""How many calls may be in flight at one deployment?

A request quota shows no queueing delay, a self-hosted server shows nothing else; so the guard
climbs the measured throughput. While calls wait for a slot it doubles each round (TCP's slow
start) and then tries half as much again; a step that does not bring its part of more throughput is
taken back. So latency that rises because the server is full stops the climb, and latency that
rises of itself, ten times if need be, is answered with more calls in flight. A 429 for concurrency
pins the limit to what the server held at that moment; a flight that times out cuts it.
"""

from math import ceil, inf

START = 64
MOST = 4096
CUT = 0.7
STEP = 1.5
HOLD = 15.0
"""Seconds of rest after a step that brought nothing; doubled each time, up to LONGEST."""
PINNED = 60.0
"""Seconds for which a limit on concurrency is believed before one more call is tried; likewise."""
LONGEST = 300.0
SAMPLES = 50


class Guard:
    """The limit of calls in flight: at most `most`, from `start` where that is not configured."""

    def __init__(self, most: int | None, now: float, *, start: int = START) -> None:
        self.most = most or MOST
        # An operator who configures a maximum knows it: no need to feel the way there.
        self.limit = most or start
        self._step = 2.0
        self._tried: int | None = None  # the limit before a step that is still to prove itself
        self._rate = 0.0
        self._hold = HOLD
        self._pin = PINNED
        self._pinned_at = -inf
        self._rest_until = -inf
        self._cut_at = -inf
        self._round(now)

    def full(self) -> None:
        """Note that a call waits for a slot: only then does the limit matter."""
        self._full = True

    def answered(self, now: float) -> None:
        """Note that a call was answered well. A round is as many answers as there are slots."""
        self._done += 1
        if self._done < max(self.limit, min(SAMPLES, 4 * self.limit)):
            return
        rate = self._done / max(now - self._opened, 1e-6)
        full = self._full
        self._round(now)
        if full and now >= self._rest_until:
            self._climb(rate, now)

    def refused(self, in_flight: int, now: float) -> None:
        """429 for concurrency: `in_flight` calls, without this one, are what the server bears."""
        limit = max(1, min(self.limit, in_flight))
        if now - self._pinned_at > self._pin:
            # The limit was tried again and still stands: believe it for longer.
            self._pin = min(LONGEST, 2.0 * self._pin) if self._pinned_at > -inf else PINNED
        self._pinned_at = now
        self._rest(limit, self._pin, now)

    def timed_out(self, sent: float, now: float) -> None:
        """Cut the limit, because a call sent at `sent` did not come back in time; once a flight."""
        if sent >= self._cut_at:
            self._cut_at = now
            self._rest(max(1, ceil(self.limit * CUT)), HOLD, now)

    def _climb(self, rate: float, now: float) -> None:
        if self._tried is not None:
            grown = self.limit / self._tried - 1.0
            if rate < self._rate * (1.0 + grown / 4.0):
                self._rest(self._tried, self._hold, now)
                self._hold = min(LONGEST, 2.0 * self._hold)
                return
            self._hold = HOLD
        self._rate = rate
        if self._pinned_at > -inf:
            # One more than what is known to be the server's limit; its answer is the 429.
            self._tried = None
            self.limit = min(self.most, self.limit + 1)
            return
        self._tried = self.limit
        self.limit = min(self.most, max(self.limit + 1, int(self.limit * self._step)))
        if self.limit == self._tried:
            self._tried = None

    def _rest(self, limit: int, seconds: float, now: float) -> None:
        self.limit = limit
        self._step = STEP
        self._tried = None
        self._rest_until = now + seconds
        self._round(now)

    def _round(self, now: float) -> None:
        self._opened = now
        self._done = 0
        self._full = False
