"""An asyncio event loop on a virtual clock: hours pass in seconds, and a seed replays a run.

When nothing is ready, time jumps to the next timer. There is no I/O; what would wait for it waits
for ever, and that is an error here (`Stuck`). Tasks are hashed by serial number, because asyncio
keeps them in sets and iterates over those: with addresses as hashes no run would repeat another.
"""

import asyncio
import random
from asyncio import events
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, TypeVar, cast

T = TypeVar("T")


# asyncio's own: it waits no longer at a time, and drops cancelled timers where half of many are.
DAY = 24 * 3600.0
MANY_TIMERS = 100


class Stuck(RuntimeError):
    """Nothing is ready, nothing is scheduled, and the run has not ended."""


class Task(asyncio.Task[T]):
    """A task whose hash is its serial number."""

    _serials = count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._serial = next(Task._serials)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._serial


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. Its time starts at `start` seconds."""

    # asyncio's own, which typeshed does not tell of.
    _ready: deque[Any]
    _scheduled: list[tuple[float, Any]]
    _timer_cancelled_count: int
    _clock_resolution: float
    _stopping: bool

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self._now = start
        self._selector = self
        self.set_task_factory(_task)

    def time(self) -> float:
        return self._now

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, with less on the way."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's; but pairs are compared without a call of Python's."""
        timer: Any = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._scheduled, (when, timer))
        timer._scheduled = True
        return cast("asyncio.TimerHandle", timer)

    def _run_once(self) -> None:
        """What asyncio does in a turn, in the same order, without what only sockets need."""
        self._forget_cancelled()
        timers, ready = self._scheduled, self._ready
        if not ready and not self._stopping:
            self.select(min(timers[0][0] - self._now, DAY) if timers else None)
        until = self._now + self._clock_resolution
        while timers and timers[0][0] < until:
            timer = heappop(timers)[1]
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _forget_cancelled(self) -> None:
        timers = self._scheduled
        if len(timers) > MANY_TIMERS and self._timer_cancelled_count > len(timers) / 2:
            for _, timer in timers:
                timer._scheduled = not timer._cancelled
            timers[:] = [pair for pair in timers if not pair[1]._cancelled]
            heapify(timers)
            self._timer_cancelled_count = 0
        while timers and timers[0][1]._cancelled:
            self._timer_cancelled_count -= 1
            heappop(timers)[1]._scheduled = False

    def select(self, timeout: float | None) -> list[Any]:
        """Where a real loop would wait for I/O: virtual time passes instead."""
        if timeout is None:
            raise Stuck("nothing is ready and nothing is scheduled")
        self._now += max(0.0, timeout)
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def run_in_executor(self, *_: Any) -> Any:  # type: ignore[override]
        """A thread takes real time, in which virtual time might or might not pass."""
        raise Stuck("threads know no virtual time")

    def _write_to_self(self) -> None:
        """There is only one thread: nobody has to be woken."""


def _task(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Task[Any]:
    return Task(coro, loop=loop, **kwargs)


def run(main: Callable[[random.Random], Awaitable[T]], seed: int = 0, start: float = 0.0) -> T:
    """Run `main` to its end on a virtual clock; all randomness comes from the seed."""
    loop = VirtualLoop(start)
    before = events._get_running_loop()
    Task._serials = count()
    try:
        # A test may itself run inside a loop (pytest-asyncio): this one stands in meanwhile.
        events._set_running_loop(None)
        return loop.run_until_complete(_main(main, seed))
    finally:
        try:
            _cancel_all(loop)
        finally:
            loop.close()
            events._set_running_loop(before)


async def _main(main: Callable[[random.Random], Awaitable[T]], seed: int) -> T:
    return await main(random.Random(seed))


def _cancel_all(loop: VirtualLoop) -> None:
    left = sorted(asyncio.all_tasks(loop), key=hash)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
