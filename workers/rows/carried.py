"""What a line of errors.jsonl carries: the request that failed, or the line that was none."""

from typing import Any, NamedTuple

import orjson
from msgspec import Raw, Struct
from msgspec.json import Decoder

from workers.rows.dialects import WrongRow
from workers.rows.lines import MAX_ADDED_BYTES


class _ErrorLine(Struct):
    """What counts of such a line. Nothing of it is built: what it carries may be large."""

    error: Raw
    custom_id: Raw = Raw()
    request: Raw = Raw()
    raw: Raw = Raw()


_decode = Decoder(_ErrorLine).decode


class Carried(NamedTuple):
    """The line that failed, or the request that was made of one."""

    custom_id: Any
    data: bytes
    is_request: bool


def carried_by(line: bytes, max_line_bytes: int) -> Carried | None:
    """What a line of errors.jsonl carries; None for any other line.

    It is judged by what it carries, not by its own length: escaped, a line may have six times its
    bytes. Raises WrongRow where it carries nothing that could be asked again.
    """
    try:
        found = _decode(line)
        custom_id, raw = (
            orjson.loads(bytes(part) or b"null") for part in (found.custom_id, found.raw)
        )
    except (ValueError, RecursionError):
        return None
    if not bytes(found.error).startswith(b"{") or not (found.request or found.raw):
        return None
    request = bytes(found.request)
    if request.startswith(b"{"):
        return Carried(custom_id, _within(request, max_line_bytes + MAX_ADDED_BYTES), True)
    if not isinstance(raw, str):
        raise WrongRow(
            "invalid_row",
            "an error row without a request cannot be asked again: take the line from its file",
        )
    return Carried(custom_id, _within(raw.encode(), max_line_bytes), False)


def _within(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise WrongRow(
            "line_too_long",
            f"it carries {len(data):,} bytes, {most:,} are the most: shorten it, or raise "
            "MAX_LINE_BYTES",
        )
    return data
