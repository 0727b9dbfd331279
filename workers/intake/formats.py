"""What is a file that holds no JSON Lines, and what has to be done with it?"""

import re

import orjson

HEAD_BYTES = 64 * 1024

# What a file of each kind begins with: byte order marks of UTF-16 and UTF-32, and magic numbers.
_BEGINNINGS = (
    (b"\xff\xfe", "this is UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "this is UTF-16: save it as UTF-8"),
    (b"\x00\x00\xfe\xff", "this is UTF-32: save it as UTF-8"),
    (b"\x1f\x8b", "this is a gzip file: unpack it"),
    (b"(\xb5/\xfd", "this is a zstd file: unpack it"),
    (b"PK\x03\x04", "this is a ZIP file, as archives and spreadsheets are: unpack or export it"),
    (b"PAR1", "this is a Parquet file: export it as JSON Lines"),
)
_NO_JSON = (
    "this is no JSON, but objects as Python or JavaScript print them: write each with json.dumps "
    "or JSON.stringify"
)
# An object as JSON begins it; other languages quote names otherwise, or not at all.
_OBJECT = re.compile(rb"\{\s*([\"}]|$)")
_SEPARATORS = (b",", b";", b"\t", b"|")


def what_it_is(head: bytes) -> str:
    """A word for a file none of whose rows is a JSON object, by its first bytes."""
    for beginning, word in _BEGINNINGS:
        if head.startswith(beginning):
            return word
    if _is_wide(head):
        return "this is UTF-16: save it as UTF-8"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        if _is_arrays(text):
            return "this is a JSON array on each line: write each row as a JSON object instead"
        return "this is one JSON array: write each of its items on a line of its own"
    if text.startswith(b"{"):
        if not _is_utf8(text):
            return "this is not UTF-8, but Latin-1 or another encoding: save it as UTF-8"
        if not _OBJECT.match(text):
            return _NO_JSON
        return "this is JSON, but no object stands on one line: write each on a line of its own"
    if text.startswith(b"<"):
        return "this is HTML or XML: write each row as a JSON object on a line of its own"
    if _is_table(text):
        return "this is a CSV: write each row as a JSON object on a line of its own"
    return "no row of it is a JSON object: write each as one, on a line of its own"


def _is_wide(head: bytes) -> bool:
    """Whether every other byte is a zero, as where UTF-16 without a mark holds ASCII."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    return max(even, odd) > len(head) // 3


def _is_arrays(text: bytes) -> bool:
    """Whether the first line is a whole array, and more lines follow."""
    first, _, others = text.partition(b"\n")
    try:
        orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    return bool(others.strip())


def _is_utf8(text: bytes) -> bool:
    """Whether this is UTF-8, but for a character that may be cut off at the end."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True


def _is_table(text: bytes) -> bool:
    """Whether the first lines have as many of a separator, or of several."""
    lines = [line for line in text.split(b"\n", 3)[:3] if line.strip()]
    return any(
        lines[0].count(separator) and all(separator in line for line in lines)
        for separator in _SEPARATORS
    )
