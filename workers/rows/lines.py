"""Where the lines of a file begin and end, and which of them are rows."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r"
_NEWLINE = ord("\n")
MAX_ADDED_BYTES = 4 * 1024 * 1024
"""What template, system prompt and defaults may add to the longest line."""
# JSON writes a byte that it may not hold as \u00XX.
_ESCAPED = 6


class Line(NamedTuple):
    """A line that is not blank, at `offset` in its file.

    `length` is that of the whole line, in bytes, where `content` may be its beginning only.
    """

    number: int
    offset: int
    length: int
    content: bytes


def kept_bytes(max_line_bytes: int) -> int:
    """How much of a line has to be at hand: a line of errors.jsonl may carry the longest one.

    What is longer is refused whatever it holds.
    """
    return _ESCAPED * max_line_bytes + MAX_ADDED_BYTES


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


def lines_of(
    data: bytes, longest: int, *, number: int = 1, offset: int = 0, length: int | None = None
) -> Iterator[Line]:
    """The lines in a piece of a file that are not blank; only newlines separate.

    The piece begins with line `number` at `offset` and has `length` bytes in the file: more than
    `data` where the end of its last line is missing. A line of more than `longest` bytes is never
    blank: whatever reads it may hold its beginning only, and all have to agree on which lines are
    rows.
    """
    end = offset + (len(data) if length is None else length)
    *lines, last = data.split(b"\n")
    for line in lines:
        if content := line_content(line, number, longest):
            yield Line(number, offset, len(line), content)
        number += 1
        offset += len(line) + 1
    if content := line_content(last, number, longest):
        yield Line(number, offset, end - offset, content)


def line_content(line: bytes, number: int, longest: int) -> bytes:
    """A line without the blanks around it, and without the byte order mark of its file."""
    if number == 1:
        line = line.removeprefix(_BOM)
    if len(line) > longest:
        return line
    return line.strip(BLANK)
