"""How many bytes of large answers may be on their way to a process at a time?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

LARGE_BYTES: Final = 1024 * 1024
# Parsed, and once more as a line and in the journal, an answer takes four times its own bytes.
ROOM_BYTES: Final = 24 * 1024 * 1024


class Room:
    """Room for large answers, given in the order of asking; one that is larger than it goes alone.

    Answers of less than 1 MiB need none: their number is bounded.
    """

    def __init__(self, size: int = ROOM_BYTES) -> None:
        self._size = size
        self._held = 0
        self._first = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Wait for room for an answer of `size` bytes, and keep it until the end."""
        if size < LARGE_BYTES:
            yield
            return
        async with self._first:
            while self._held and self._held + size > self._size:
                self._freed.clear()
                await self._freed.wait()
            self._held += size
        try:
            yield
        finally:
            self._held -= size
            self._freed.set()
