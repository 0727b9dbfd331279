"""Where the lines of a file begin and end, and which of them are rows."""

from collections.abc import Iterator
from typing import NamedTuple

_BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r"
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
