"""The sections of an encoded message.

The contract is part 3 ("Messaging"), 3.2, of the AMQP 1.0 specification. A message is a sequence
of described sections: header, delivery annotations, message annotations, properties, application
properties, body (data, sequences or a value), footer. Each may be missing but the body.
"""

from collections.abc import Iterator
from typing import NamedTuple

from .reading import DecodeError, decode, skip
from .values import ULong, Value
from .writing import encode

HEADER, DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS, PROPERTIES = 0x70, 0x71, 0x72, 0x73
APPLICATION_PROPERTIES, DATA, SEQUENCE, VALUE, FOOTER = 0x74, 0x75, 0x76, 0x77, 0x78

# The message format of a batch: its data sections are each an encoded message.
BATCH_FORMAT = 0x80013700


class Section(NamedTuple):
    """A section still encoded: `data[start:end]`, of which the value begins at `value`."""

    code: int
    start: int
    value: int
    end: int


def split(data: bytes) -> Iterator[Section]:
    """The sections of an encoded message.

    Raises:
        DecodeError: the bytes are no sequence of sections.
    """
    position = 0
    while position < len(data):
        if data[position] != 0:
            raise DecodeError("a message holds something that is no section")
        code, value = decode(data, position + 1)
        if not isinstance(code, ULong) or not HEADER <= code <= FOOTER:
            raise DecodeError(f"a message has a section {code!r}")
        end = skip(data, value)
        yield Section(code, position, value, end)
        position = end


def section(code: int, encoded: bytes) -> bytes:
    """A section around a value that is already encoded."""
    return b"\x00\x53" + bytes((code,)) + encoded


def unbatch(data: bytes, message_format: int) -> list[bytes]:
    """The messages of a transfer: one or, in a batch, as many as it has data sections.

    Raises:
        DecodeError: a batch is not made of data sections.
    """
    if message_format != BATCH_FORMAT:
        return [data]
    messages = [decode(data, part.value)[0] for part in split(data) if part.code == DATA]
    if not all(isinstance(message, bytes) for message in messages):
        raise DecodeError("a batch holds a data section without bytes")
    return messages


def encode_value_message(
    correlation_id: Value, application_properties: dict[str, Value], body: Value
) -> bytes:
    """A message of a value, as the request-response nodes `$cbs` and `$management` answer."""
    return b"".join(
        (
            section(PROPERTIES, encode([None] * 5 + [correlation_id])),
            section(APPLICATION_PROPERTIES, encode(application_properties)),
            section(VALUE, encode(body)),
        )
    )
