"""Bytes that are sent piece by piece, however often the SDK begins again."""

from collections.abc import AsyncIterator
from typing import Final

_PIECE: Final = 256 * 1024


class Pieces:
    """What the SDK takes for a stream. Bytes themselves would be copied whole once more."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)

    def __aiter__(self) -> AsyncIterator[memoryview]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[memoryview]:
        for start in range(0, len(self._data), _PIECE):
            yield self._data[start : start + _PIECE]
