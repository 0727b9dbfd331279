"""Until when may the calls of one shard be admitted, and who has to hear when that changes?"""

import asyncio
from collections.abc import Callable

from schemas.results import WaitReason
from workers.dispatch.lane import Lane, Ticket
from workers.dispatch.token_estimates import Size
from workers.errors import HandBack


class Waiter:
    """A call that waits: for its turn, or for the end of a backoff.

    `since` is when it began to wait for this try, `waited_for` what it met first. `retried` says
    that it has been tried before, `resting` why it waits by itself; None: for a lane.
    """

    __slots__ = (
        "_future",
        "gate",
        "job",
        "resting",
        "retried",
        "since",
        "size",
        "waited_for",
        "weight",
    )

    def __init__(self, job: str, weight: float, size: Size, gate: "Gate", since: float) -> None:
        self.job = job
        self.weight = weight
        self.size = size
        self.gate = gate
        self.since = since
        self.retried = False
        self.waited_for: WaitReason | None = None
        self.resting: tuple[WaitReason, str] | None = None
        # HandBack as a result, not an exception: nobody may be left to fetch it.
        self._future: asyncio.Future[tuple[Lane, Ticket] | HandBack | None] | None = None

    def begin(self) -> None:
        """From now on it can be ended."""
        self._future = asyncio.get_running_loop().create_future()
        self.gate.waiters[self] = None

    def tried(self, now: float) -> None:
        """A try has ended; from now on it waits for the next."""
        self.retried = True
        self.since = now
        self.waited_for = None

    def end(self, result: tuple[Lane, Ticket] | HandBack | None) -> None:
        """Let it go on: with a lane, after a backoff (None), or to raise; the first end counts."""
        if self._future is not None and not self._future.done():
            self._future.set_result(result)

    @property
    def ended(self) -> bool:
        """Whether it goes on already."""
        return self._future is None or self._future.done()

    async def wait(self) -> tuple[Lane, Ticket] | HandBack | None:
        """Wait for the end."""
        return None if self._future is None else await self._future

    def leave(self) -> tuple[Lane, Ticket] | None:
        """It waits no more. Gives what it was let through with, which its owner may not know."""
        self.gate.waiters.pop(self, None)
        future, self._future = self._future, None
        if future is None or not future.done() or future.cancelled():
            return None
        result = future.result()
        return result if isinstance(result, tuple) else None


class Gate:
    """Admission of one shard's calls. Times are the event loop's.

    `until` is when the lease may be gone: the runner moves it forward with each renewal.
    `deadline` is the shard's soft deadline: a wait beyond it hands the call back.
    """

    def __init__(self, until: float, deadline: float) -> None:
        self._until = until
        self.deadline = deadline
        self.closed: str | None = None
        self.waiters: dict[Waiter, None] = {}
        self.hear: dict[Callable[[], None], None] = {}
        self.timer: asyncio.TimerHandle | None = None

    @property
    def until(self) -> float:
        """No call is admitted at or after this."""
        return self._until

    @until.setter
    def until(self, until: float) -> None:
        later = until > self._until
        self._until = until
        if later and self.waiters:
            for moved in list(self.hear):
                moved()

    def close(self, reason: str) -> None:
        """No admission from now on: every waiting call is handed back at once.

        Calls in flight go on.
        """
        if self.closed is None:
            self.closed = reason
        for waiter in list(self.waiters):
            waiter.end(HandBack(self.closed, 0.0))
