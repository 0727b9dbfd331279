"""The lines of a piece, found all at once.

This is apart from `workers.rows.lines` because numpy takes a tenth of a second to import, and most
commands of the command line do without it.
"""

from collections.abc import Iterator

import numpy as np

_NEWLINE = ord("\n")


class Block:
    """The lines of a piece from `start` up to the newline before `end`.

    `starts` are where in the piece they begin, and where the next one does. `blanks` are how many
    there are at the end of each line where all lines begin with { and, but for those, end with };
    None for any other lines.
    """

    def __init__(self, piece: bytes, start: int, end: int) -> None:
        self._piece = piece
        held = np.frombuffer(piece, np.uint8, end)
        (ends,) = (held[start:] == _NEWLINE).nonzero()
        ends += start
        self._starts = np.concatenate(([start], ends + 1))
        self.starts: list[int] = self._starts.tolist()
        self._count = count = len(ends)
        # Before the first byte of a piece stands here its last one, which is a newline.
        last = held.take(ends - 1).tobytes()
        if blanks := int(last.count(b"\r") == count):
            last = held.take(ends - 2).tobytes()
        first = held.take(self._starts[:-1]).tobytes()
        tight = first.count(b"{") == last.count(b"}") == count
        self.blanks = blanks if tight else None

    def __len__(self) -> int:
        return self._count

    @property
    def longest(self) -> int:
        """How many bytes the longest of them has."""
        return int((self._starts[1:] - self._starts[:-1]).max()) - 1

    def line(self, at: int) -> bytes:
        """One of them."""
        starts = self.starts
        return self._piece[starts[at] : starts[at + 1] - 1]

    def lines(self, first: int, end: int) -> Iterator[bytes]:
        """Some of them."""
        return map(self.line, range(first, end))

    def whole(self, first: int, end: int) -> memoryview:
        """The same as they stand in the piece, with their newlines."""
        return memoryview(self._piece)[self.starts[first] : self.starts[end]]

    def lengths(self, first: int, end: int, more: int) -> list[int]:
        """How many bytes each of them has, and some more."""
        starts = self._starts[first : end + 1]
        lengths: list[int] = (starts[1:] - starts[:-1] + (more - 1)).tolist()
        return lengths
