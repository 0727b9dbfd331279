"""Bytes to AMQP values.

A value on the wire is one constructor byte that names its type and width, then its content. Two
kinds differ: 0x00 announces a *described* value (a descriptor, then the value itself), and lists,
maps and arrays carry their size in bytes and their count of elements before the elements.
Arbitrary bytes end in a value or in a DecodeError, in time and memory bounded by their length.
"""

import struct
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from .values import (
    Array,
    Byte,
    Char,
    Decimal,
    Described,
    Float,
    Int,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    Value,
)

_U8, _U16, _U32, _U64 = (struct.Struct(f">{code}") for code in "BHIQ")
_I8, _I16, _I32, _I64 = (struct.Struct(f">{code}") for code in "bhiq")
_F32, _F64 = struct.Struct(">f"), struct.Struct(">d")
_U32_PAIR = struct.Struct(">II")


class DecodeError(ValueError):
    """The bytes are not a well-formed AMQP value; the connection they came on must be closed."""


_Reader = Callable[[bytes, int], tuple[Value, int]]

# An array of a type without content (null, true, uint0...) takes no bytes however many elements
# it claims to have, so the count cannot be checked against the bytes that are there. Small enough
# that a frame full of such arrays takes no more memory than one full of any other values.
_MAX_EMPTY_ELEMENTS = 16

# An index beyond the end, an unknown constructor, an unhashable map key, broken UTF-8, or nesting
# that no honest peer sends.
_MALFORMED = (LookupError, TypeError, ValueError, OverflowError, RecursionError, struct.error)


def decode(data: bytes, position: int = 0) -> tuple[Value, int]:
    """The value that begins at `position`, and the position after it.

    Raises:
        DecodeError: the bytes are not a well-formed value.
    """
    try:
        return _read(data, position)
    except DecodeError:
        raise
    except _MALFORMED as error:
        raise DecodeError(f"malformed AMQP value: {error!r}") from error


def _read(data: bytes, position: int) -> tuple[Value, int]:
    return _READERS[data[position]](data, position + 1)


def _slice(data: bytes, start: int, length: int) -> tuple[bytes, int]:
    end = start + length
    if end > len(data):
        raise DecodeError("a value is longer than the bytes that are there")
    return data[start:end], end


def _fixed(layout: struct.Struct, kind: Callable[[Any], Value] | None = None) -> _Reader:
    unpack, size = layout.unpack_from, layout.size
    if kind is None:
        return lambda data, position: (unpack(data, position)[0], position + size)
    return lambda data, position: (kind(unpack(data, position)[0]), position + size)


def _constant(value: Value) -> _Reader:
    return lambda _data, position: (value, position)


def _variable(width: int, convert: Callable[[bytes], Value]) -> _Reader:
    def short(data: bytes, position: int) -> tuple[Value, int]:
        content, end = _slice(data, position + 1, data[position])
        return convert(content), end

    def long(data: bytes, position: int) -> tuple[Value, int]:
        content, end = _slice(data, position + 4, _U32.unpack_from(data, position)[0])
        return convert(content), end

    return short if width == 1 else long


def _raw(size: int, convert: Callable[[bytes], Value]) -> _Reader:
    def read(data: bytes, position: int) -> tuple[Value, int]:
        content, end = _slice(data, position, size)
        return convert(content), end

    return read


def _compound(width: int, convert: Callable[[bytes, int, int], tuple[Value, int]]) -> _Reader:
    """A reader of size, count and elements; `convert` gets the first element's position."""

    def read(data: bytes, position: int) -> tuple[Value, int]:
        if width == 1:
            size, count = data[position], data[position + 1]
        else:
            size, count = _U32_PAIR.unpack_from(data, position)
        value, end = convert(data, position + 2 * width, count)
        if end != position + width + size:
            raise DecodeError("the elements do not fill the size that was announced")
        return value, end

    return read


def _list(data: bytes, position: int, count: int) -> tuple[list[Value], int]:
    items = []
    for _ in range(count):
        item, position = _read(data, position)
        items.append(item)
    return items, position


def _map(data: bytes, position: int, count: int) -> tuple[dict[Value, Value], int]:
    if count % 2:
        raise DecodeError("a map has a key without a value")
    items = {}
    for _ in range(count // 2):
        key, position = _read(data, position)
        items[key], position = _read(data, position)
    return items, position


def _array(data: bytes, position: int, count: int) -> tuple[Array, int]:
    constructor, position, descriptor = data[position], position + 1, None
    if constructor == 0:
        descriptor, position = _read(data, position)
        constructor, position = data[position], position + 1
    if constructor >> 4 == 4 and count > _MAX_EMPTY_ELEMENTS:
        raise DecodeError(f"an array claims {count} elements without content")
    read, items = _READERS[constructor], Array()
    for _ in range(count):
        item, position = read(data, position)
        items.append(item if descriptor is None else Described(descriptor, item))
    return items, position


def _char(code: int) -> Char:
    if 0xD800 <= code < 0xE000:
        raise DecodeError("half of a surrogate pair is no character")
    return Char(chr(code))


def _described(data: bytes, position: int) -> tuple[Described, int]:
    descriptor, position = _read(data, position)
    value, position = _read(data, position)
    return Described(descriptor, value), position


_READERS: dict[int, _Reader] = {
    0x00: _described,
    0x40: _constant(None),
    0x41: _constant(True),
    0x42: _constant(False),
    0x43: _constant(UInt(0)),
    0x44: _constant(ULong(0)),
    0x45: lambda _data, position: ([], position),
    0x50: _fixed(_U8, UByte),
    0x51: _fixed(_I8, Byte),
    0x52: _fixed(_U8, UInt),
    0x53: _fixed(_U8, ULong),
    0x54: _fixed(_I8, Int),
    0x55: _fixed(_I8),
    0x56: _fixed(_U8, bool),
    0x60: _fixed(_U16, UShort),
    0x61: _fixed(_I16, Short),
    0x70: _fixed(_U32, UInt),
    0x71: _fixed(_I32, Int),
    0x72: _fixed(_F32, Float),
    0x73: _fixed(_U32, _char),
    0x74: _raw(4, Decimal),
    0x80: _fixed(_U64, ULong),
    0x81: _fixed(_I64),
    0x82: _fixed(_F64),
    0x83: _fixed(_I64, Timestamp),
    0x84: _raw(8, Decimal),
    0x94: _raw(16, Decimal),
    0x98: _raw(16, lambda content: uuid.UUID(bytes=content)),
    0xA0: _variable(1, bytes),
    0xB0: _variable(4, bytes),
    0xA1: _variable(1, lambda content: content.decode()),
    0xB1: _variable(4, lambda content: content.decode()),
    0xA3: _variable(1, lambda content: Symbol(content, "ascii")),
    0xB3: _variable(4, lambda content: Symbol(content, "ascii")),
    0xC0: _compound(1, _list),
    0xD0: _compound(4, _list),
    0xC1: _compound(1, _map),
    0xD1: _compound(4, _map),
    0xE0: _compound(1, _array),
    0xF0: _compound(4, _array),
}

# The high half of a constructor gives the width of its content (AMQP 1.0, part 1, 1.2.2).
_FIXED_WIDTHS = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}


def skip(data: bytes, position: int) -> int:
    """The position after the value at `position`, without building it.

    Raises:
        DecodeError: the value does not end within `data`.
    """
    try:
        while data[position] == 0:
            position = skip(data, position + 1)
        width = data[position] >> 4
        if width in _FIXED_WIDTHS:
            end = position + 1 + _FIXED_WIDTHS[width]
        elif width in (0xA, 0xC, 0xE):
            end = position + 2 + data[position + 1]
        elif width in (0xB, 0xD, 0xF):
            end = position + 5 + _U32.unpack_from(data, position + 1)[0]
        else:
            raise DecodeError(f"unknown constructor 0x{data[position]:02x}")
    except (IndexError, struct.error, RecursionError) as error:
        raise DecodeError(f"malformed AMQP value: {error!r}") from error
    if end > len(data):
        raise DecodeError("a value is longer than the bytes that are there")
    return end


def map_entries(data: bytes, position: int) -> Iterator[tuple[Value, bytes]]:
    """Each key of the map at `position` with its still encoded key and value.

    The broker adds to a sender's map by this, without decoding, and so changing, what is in it.
    """
    end = skip(data, position)
    constructor = data[position]
    if constructor == 0x40:
        return
    if constructor not in (0xC1, 0xD1):
        raise DecodeError("a map was expected")
    position += 3 if constructor == 0xC1 else 9
    while position < end:
        start = position
        key, position = decode(data, position)
        position = skip(data, position)
        yield key, data[start:position]
