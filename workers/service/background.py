"""Tasks that a process does besides answering triggers, and which of them keep failing.

A task that dies unnoticed takes with it what it did for all the others: quotas are no longer
shared, or nobody hears of an open breaker, until the process is replaced.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from workers.ports.errors import being_cancelled

PAUSE_SECONDS: Final = 5.0
"""Seconds between a task's error and its next start."""
TOLD_AFTER: Final = 3
"""Errors in a row from which on the task is told of in the status."""
MENDED_SECONDS: Final = 600.0
"""Seconds without an error after which a task counts as mended."""

log = logging.getLogger(__name__)


async def each_in_turn(*works: Callable[[], Awaitable[object]]) -> None:
    """Run all, whatever becomes of the others. Errors: `ExceptionGroup`, at the end."""
    errors: list[Exception] = []
    for work in works:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)
    if errors:
        raise ExceptionGroup("not all was looked after", errors)


class Background:
    """Runs tasks again that end in an error that nobody expected."""

    def __init__(self) -> None:
        # How often each task failed in a row, and when last.
        self._failures: dict[str, tuple[int, float]] = {}

    async def keep(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` until it returns; after an error again, as often as it takes.

        It is an error too where work ends by a CancelledError that nobody outside asked for: of a
        future, a call or a connection that a library has given up.
        """
        while True:
            try:
                return await work()
            except (Exception, asyncio.CancelledError):
                if being_cancelled():
                    raise
                log.exception("[TASK_BUG] %s failed and starts again in %d s", name, PAUSE_SECONDS)
                self._failed(name)
            await asyncio.sleep(PAUSE_SECONDS)

    def failing(self) -> tuple[str, ...]:
        """The names of tasks that have failed three times in a row, and lately."""
        return tuple(name for name in self._failures if self._lately(name) >= TOLD_AFTER)

    def _failed(self, name: str) -> None:
        self._failures[name] = (self._lately(name) + 1, asyncio.get_running_loop().time())

    def _lately(self, name: str) -> int:
        """How often a task failed in a row."""
        failures, last = self._failures.get(name, (0, 0.0))
        mended = asyncio.get_running_loop().time() - last >= MENDED_SECONDS
        return 0 if mended else failures
