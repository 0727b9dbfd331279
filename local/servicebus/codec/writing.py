"""AMQP values to bytes."""

import struct
import uuid
from collections.abc import Callable, Iterable

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

NULL = b"\x40"


def encode(value: Value) -> bytes:
    """The bytes of a value, in the shortest form its type has.

    Raises:
        TypeError: the value is of no AMQP type.
        struct.error: an integer does not fit its type.
    """
    writer = _WRITERS.get(type(value))
    if writer is None:
        raise TypeError(f"{type(value).__name__} is no AMQP type")
    return writer(value)


def writer(kind: type) -> Callable[[Value], bytes]:
    """How values of one AMQP type are written; a plain `int` may be passed for any integer type."""
    return _WRITERS[kind]


def encode_list(items: Iterable[bytes]) -> bytes:
    """A list of elements that are already encoded."""
    parts = list(items)
    return _compound_bytes(0xC0, len(parts), b"".join(parts)) if parts else b"\x45"


def encode_map(items: Iterable[bytes]) -> bytes:
    """A map of entries that are already encoded: key, value, key, value..."""
    parts = list(items)
    return _compound_bytes(0xC1, len(parts), b"".join(parts))


def encode_entries(entries: Iterable[bytes]) -> bytes:
    """A map of entries of which each holds an encoded key and value, as `map_entries` gives."""
    parts = list(entries)
    return _compound_bytes(0xC1, 2 * len(parts), b"".join(parts))


def _compound_bytes(short: int, count: int, body: bytes) -> bytes:
    if len(body) < 255 and count < 256:
        return bytes((short, len(body) + 1, count)) + body
    return bytes((short + 0x10,)) + _U32_PAIR.pack(len(body) + 4, count) + body


def _variable_bytes(short: int, content: bytes) -> bytes:
    if len(content) < 256:
        return bytes((short, len(content))) + content
    return bytes((short + 0x10,)) + _U32.pack(len(content)) + content


def _encode_uint(value: int) -> bytes:
    if value == 0:
        return b"\x43"
    return b"\x52" + _U8.pack(value) if 0 < value < 256 else b"\x70" + _U32.pack(value)


def _encode_ulong(value: int) -> bytes:
    if value == 0:
        return b"\x44"
    return b"\x53" + _U8.pack(value) if 0 < value < 256 else b"\x80" + _U64.pack(value)


def _encode_int(value: int) -> bytes:
    return b"\x54" + _I8.pack(value) if -128 <= value < 128 else b"\x71" + _I32.pack(value)


def _encode_long(value: int) -> bytes:
    return b"\x55" + _I8.pack(value) if -128 <= value < 128 else b"\x81" + _I64.pack(value)


# Elements of an array share one constructor, so each is written at its widest.


def _wide_text(value: str) -> bytes:
    return _wide_bytes(value.encode())


def _wide_bytes(content: bytes) -> bytes:
    return _U32.pack(len(content)) + content


def _wide_compound(count: int, body: bytes) -> bytes:
    return _U32_PAIR.pack(len(body) + 4, count) + body


def _wide_list(value: list[Value]) -> bytes:
    return _wide_compound(len(value), b"".join(map(encode, value)))


def _wide_map(value: dict[Value, Value]) -> bytes:
    parts = [encode(part) for item in value.items() for part in item]
    return _wide_compound(len(parts), b"".join(parts))


def _wide_array(value: Array) -> bytes:
    constructor, write = _array_elements(value)
    return _wide_compound(len(value), constructor + b"".join(map(write, value)))


_ARRAY_ELEMENTS: dict[type, tuple[bytes, Callable[[Value], bytes]]] = {
    type(None): (NULL, lambda _: b""),
    bool: (b"\x56", _U8.pack),
    UByte: (b"\x50", _U8.pack),
    UShort: (b"\x60", _U16.pack),
    UInt: (b"\x70", _U32.pack),
    ULong: (b"\x80", _U64.pack),
    Byte: (b"\x51", _I8.pack),
    Short: (b"\x61", _I16.pack),
    Int: (b"\x71", _I32.pack),
    int: (b"\x81", _I64.pack),
    Timestamp: (b"\x83", _I64.pack),
    Float: (b"\x72", _F32.pack),
    float: (b"\x82", _F64.pack),
    Char: (b"\x73", lambda value: _U32.pack(ord(value))),
    uuid.UUID: (b"\x98", lambda value: value.bytes),
    bytes: (b"\xb0", _wide_bytes),
    str: (b"\xb1", _wide_text),
    Symbol: (b"\xb3", _wide_text),
    list: (b"\xd0", _wide_list),
    dict: (b"\xd1", _wide_map),
    Array: (b"\xf0", _wide_array),
}
_DECIMALS = {4: b"\x74", 8: b"\x84", 16: b"\x94"}


def _array_elements(value: list[Value]) -> tuple[bytes, Callable[[Value], bytes]]:
    """The constructor that all elements share, and how each is written after it."""
    if not value:
        return NULL, lambda _: b""
    first = value[0]
    if isinstance(first, Described):
        constructor, write = _array_elements([first.value])
        return b"\x00" + encode(first.descriptor) + constructor, lambda item: write(item.value)
    if isinstance(first, Decimal):
        return _DECIMALS[len(first)], bytes
    return _ARRAY_ELEMENTS[type(first)]


_WRITERS: dict[type, Callable[[Value], bytes]] = {
    type(None): lambda _: NULL,
    bool: lambda value: b"\x41" if value else b"\x42",
    UByte: lambda value: b"\x50" + _U8.pack(value),
    UShort: lambda value: b"\x60" + _U16.pack(value),
    UInt: _encode_uint,
    ULong: _encode_ulong,
    Byte: lambda value: b"\x51" + _I8.pack(value),
    Short: lambda value: b"\x61" + _I16.pack(value),
    Int: _encode_int,
    int: _encode_long,
    Timestamp: lambda value: b"\x83" + _I64.pack(value),
    Float: lambda value: b"\x72" + _F32.pack(value),
    float: lambda value: b"\x82" + _F64.pack(value),
    Decimal: lambda value: _DECIMALS[len(value)] + value,
    Char: lambda value: b"\x73" + _U32.pack(ord(value)),
    uuid.UUID: lambda value: b"\x98" + value.bytes,
    bytes: lambda value: _variable_bytes(0xA0, value),
    str: lambda value: _variable_bytes(0xA1, value.encode()),
    Symbol: lambda value: _variable_bytes(0xA3, value.encode()),
    list: lambda value: encode_list(map(encode, value)),
    dict: lambda value: encode_map(encode(part) for item in value.items() for part in item),
    Array: lambda value: b"\xf0" + _wide_array(value),
    Described: lambda value: b"\x00" + encode(value.descriptor) + encode(value.value),
}
