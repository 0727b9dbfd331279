"""Bytes that the SDK takes and gives without a copy of its own."""

from collections.abc import AsyncIterator
from typing import Final

_PIECE: Final = 256 * 1024


class Pieces:
    """What the SDK takes for a stream, however often it begins again. Bytes themselves would be
    copied whole once more.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)

    def __aiter__(self) -> AsyncIterator[memoryview]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[memoryview]:
        for start in range(0, len(self._data), _PIECE):
            yield self._data[start : start + _PIECE]


class Parts(list[bytes]):
    """What the SDK takes for a file to write to; its own `readall` copies into one and out again.

    A range comes in one part where it is one call, and joining that copies nothing.
    """

    def write(self, part: bytes) -> int:
        """Keep the next part."""
        self.append(part)
        return len(part)
