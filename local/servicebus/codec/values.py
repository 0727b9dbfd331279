"""The types of AMQP values, as Python sees them.

The contract is part 1 ("Types") of the OASIS AMQP 1.0 specification. Python's own types stand for
the AMQP types one to one where they can (None, bool, bytes, str, list, dict, UUID); the small
classes below keep the others apart, so that what was read is written back as the same type.
"""

from typing import Any

# An AMQP value is any of these; naming them in a union would be recursive and would have to be
# narrowed at each use.
Value = Any


class Symbol(str):
    """An ASCII identifier, such as `com.microsoft:timeout`."""

    __slots__ = ()


class Char(str):
    """One Unicode character."""

    __slots__ = ()


class UByte(int):
    """0 to 2^8 - 1."""

    __slots__ = ()


class UShort(int):
    """0 to 2^16 - 1."""

    __slots__ = ()


class UInt(int):
    """0 to 2^32 - 1."""

    __slots__ = ()


class ULong(int):
    """0 to 2^64 - 1."""

    __slots__ = ()


class Byte(int):
    """A signed integer of 8 bits."""

    __slots__ = ()


class Short(int):
    """A signed integer of 16 bits."""

    __slots__ = ()


class Int(int):
    """A signed integer of 32 bits; a plain Python `int` is a `long`, of 64 bits."""

    __slots__ = ()


class Timestamp(int):
    """Milliseconds since the Unix epoch."""

    __slots__ = ()


class Float(float):
    """An IEEE 754 number of 32 bits; a plain Python `float` is a `double`, of 64 bits."""

    __slots__ = ()


class Decimal(bytes):
    """An IEEE 754 decimal of 4, 8 or 16 bytes, passed on without being looked into."""

    __slots__ = ()


class Array(list[Value]):
    """Elements of one type, which is written once for all of them."""


class Described:
    """A value with a descriptor that says what it means, such as a performative or a filter."""

    __slots__ = ("descriptor", "value")

    def __init__(self, descriptor: Value, value: Value) -> None:
        self.descriptor, self.value = descriptor, value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Described) and (self.descriptor, self.value) == (
            other.descriptor,
            other.value,
        )

    def __hash__(self) -> int:
        return hash((self.descriptor, self.value))

    def __repr__(self) -> str:
        return f"Described({self.descriptor!r}, {self.value!r})"
