"""Until when may the calls of one shard be admitted, and who has to hear when that changes?"""

import asyncio
from collections.abc import Callable

from schemas.results import WaitReason
from workers.dispatch.lane import Lane, Ticket
from workers.dispatch.token_estimates import Size
from workers.errors import HandBack


class Waiter:
    """A call that waits: for its turn, or for the end of a backoff.

    `since` is when the call began to wait for this try, `waited_for` what stood against it first.
    `retried` says that the call has been tried before. `resting` says why and where the call waits
    by itself; it is None while the call waits for a lane.
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
        """Make this call one that can be ended."""
        self._future = asyncio.get_running_loop().create_future()
        self.gate.waiters[self] = None

    def tried(self, now: float) -> None:
        """Note that a try has ended and that the call waits for the next one."""
        self.retried = True
        self.since = now
        self.waited_for = None

    def end(self, result: tuple[Lane, Ticket] | HandBack | None) -> None:
        """Let the call go on with a lane, after a backoff (None), or by raising; the first wins."""
        if self._future is not None and not self._future.done():
            self._future.set_result(result)

    @property
    def ended(self) -> bool:
        """Whether the call goes on already."""
        return self._future is None or self._future.done()

    async def wait(self) -> tuple[Lane, Ticket] | HandBack | None:
        """Wait until the call may go on; gives what `end` was given."""
        return None if self._future is None else await self._future

    def leave(self) -> tuple[Lane, Ticket] | None:
        """Stop waiting. Gives the lane and ticket that the call may have been given meanwhile."""
        self.gate.waiters.pop(self, None)
        future, self._future = self._future, None
        if future is None or not future.done() or future.cancelled():
            return None
        result = future.result()
        return result if isinstance(result, tuple) else None


class Gate:
    """Admission of one shard's calls. Times are the event loop's.

    `until` is when the lease may be gone: each renewal prolongs it.
    `deadline` is the shard's soft deadline: a wait beyond it hands the call back.
    """

    def __init__(self, until: float, deadline: float) -> None:
        self.until = until
        self.deadline = deadline
        self.closed: str | None = None
        self.waiters: dict[Waiter, None] = {}
        self.hear: dict[Callable[[], None], None] = {}
        self.timer: asyncio.TimerHandle | None = None

    def prolong(self, until: float) -> None:
        """Admit calls up to another time; who waits hears of a later one."""
        later = until > self.until
        self.until = until
        if later and self.waiters:
            for moved in list(self.hear):
                moved()

    def close(self, reason: str) -> None:
        """Admit no call from now on and hand every waiting call back; calls in flight go on."""
        if self.closed is None:
            self.closed = reason
        for waiter in list(self.waiters):
            waiter.end(HandBack(self.closed, 0.0))
