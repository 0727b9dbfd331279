"""Embeddings whose vectors stay the bytes that they came as, where they came.

2,048 vectors of 1,536 numbers are 30 to 40 MB of JSON. As Python's numbers they are another 100 MB,
which nobody looks at before they are JSON again; as small copies they stay in the heap.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

_NUMBERS: Final = b"0123456789+-.eE, \t\r\n[]"
_ANSWER: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENTRIES: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def parsed_vectors(raw: bytes | bytearray) -> dict[str, Any] | None:
    """An embeddings answer whose vectors are views of `raw`; None for what is no such answer."""
    try:
        return {name: _field(name, value) for name, value in _ANSWER.decode(raw).items()}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _field(name: str, value: msgspec.Raw) -> Any:
    if name == "data":
        return [_entry(entry) for entry in _ENTRIES.decode(value)]
    return orjson.loads(memoryview(value))


def _entry(entry: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    return {
        name: _vector(value) if name == "embedding" else orjson.loads(memoryview(value))
        for name, value in entry.items()
    }


def _vector(value: msgspec.Raw) -> Any:
    # The grammar of what is skipped has been checked; what else it may be is parsed as ever.
    text = bytes(value)
    if text.startswith(b"[") and not text.translate(None, _NUMBERS):
        return value
    return orjson.loads(text)
