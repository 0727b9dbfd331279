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
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, TypeVar

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


class Timer(asyncio.TimerHandle):
    """As asyncio's, without what debugging needs: a world makes thousands."""

    __slots__ = ()

    def __init__(
        self, when: float, callback: Any, args: Any, loop: Any, context: Context | None
    ) -> None:
        made: Any = self
        made._when, made._scheduled = when, True
        made._callback, made._args, made._cancelled = callback, args, False
        made._loop, made._source_traceback, made._repr = loop, None, None
        made._context = copy_context() if context is None else context

    def __eq__(self, other: object) -> bool:
        return self is other

    def __lt__(self, other: object) -> bool:
        # Asked of two that are due at the same time: none comes before the other.
        return False

    __hash__ = asyncio.TimerHandle.__hash__


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. Its time, which is `now`, starts at `start` seconds."""

    # asyncio's own, which typeshed does not tell of.
    _ready: deque[Any]
    _scheduled: list[tuple[float, Any]]
    _timer_cancelled_count: int
    _clock_resolution: float
    _stopping: bool

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.now = start
        self._selector = self
        self.set_task_factory(_task)

    def time(self) -> float:
        return self.now

    # For each handle that is made, asyncio asks this.
    get_debug = staticmethod(bool)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, with less on the way."""
        timer = Timer(self.now + delay, callback, args, self, context)
        heappush(self._scheduled, (self.now + delay, timer))
        return timer

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """As asyncio's, with less on the way."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's; but pairs are compared without a call of Python's."""
        timer = Timer(when, callback, args, self, context)
        heappush(self._scheduled, (when, timer))
        return timer

    def _run_once(self) -> None:
        """What asyncio does in a turn, in the same order, without what only sockets need."""
        if self._timer_cancelled_count:
            self._forget_cancelled()
        timers, ready = self._scheduled, self._ready
        if not ready and not self._stopping:
            self.select(min(timers[0][0] - self.now, DAY) if timers else None)
        until = self.now + self._clock_resolution
        while timers and timers[0][0] < until:
            timer = heappop(timers)[1]
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as asyncio does
                    what = f"Exception in callback {handle!r}"
                    self.call_exception_handler(
                        {"message": what, "exception": error, "handle": handle}
                    )

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
        self.now += max(0.0, timeout)
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def run_in_executor(self, *_: Any) -> Any:  # type: ignore[override]
        """A thread takes real time, in which virtual time might or might not pass."""
        raise Stuck("threads know no virtual time")

    def _write_to_self(self) -> None:
        """There is only one thread: nobody has to be woken."""


def current() -> VirtualLoop:
    """The loop that runs now."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


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
