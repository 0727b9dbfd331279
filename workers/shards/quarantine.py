"""Which suspect rows may be in flight at the same time in one process?

A crash blames what was in flight, in each shard of the process. Were a row asked alone while a
group of another shard is, which has the culprit, it would be given up for somebody else's crashes.
"""

import asyncio
from collections.abc import Awaitable, Callable


class Quarantine:
    """Lets groups of suspect rows be asked side by side, and a row alone when no group is.

    Both are let in in the order in which they come. A process has one instance.
    """

    def __init__(self) -> None:
        self._door = asyncio.Lock()
        self._groups = 0
        self._empty = asyncio.Event()
        self._empty.set()

    async def ask(self, rows: int, asking: Callable[[], Awaitable[None]]) -> None:
        """Ask a group of this many rows, when its turn has come."""
        async with self._door:
            if rows == 1:
                await self._empty.wait()
                await asking()
                return
            self._groups += 1
            self._empty.clear()
        try:
            await asking()
        finally:
            self._groups -= 1
            if not self._groups:
                self._empty.set()
