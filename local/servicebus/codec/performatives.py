"""The frames that two AMQP peers exchange, and the order of the fields in each.

The contract is part 2 ("Transport") and 5.3 (SASL) of the AMQP 1.0 specification. A frame is a
header of eight bytes (size, where the body starts, AMQP or SASL, channel) and a body: one
described list, the performative, and after a transfer the bytes of a message.

Who talks to whom: a *connection* (open, close) carries *sessions* (begin, end), which carry
*links* (attach, detach). A link has one direction. Its receiver grants credit (flow), its sender
spends one credit per message (transfer), and both agree on what became of it (disposition).
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from .reading import DecodeError, decode
from .values import Described, Symbol, UByte, UInt, ULong, UShort, Value
from .writing import NULL, encode, encode_list, writer

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
AMQP_FRAME, SASL_FRAME = 0, 1

# Descriptors of what stands inside performatives: the two ends of a link, errors, and the
# outcomes of a delivery.
ERROR, SOURCE, TARGET = 0x1D, 0x28, 0x29
ACCEPTED, REJECTED, RELEASED, MODIFIED = 0x24, 0x25, 0x26, 0x27

_FRAME_HEADER = struct.Struct(">IBBH")


class FramingError(ValueError):
    """The bytes are no frame; nothing that follows on the connection can be understood."""


class Open(NamedTuple):
    """The first frame of each side of a connection."""

    container_id: str
    hostname: str | None = None
    max_frame_size: int | None = None
    channel_max: int | None = None
    idle_timeout_ms: int | None = None
    outgoing_locales: Value = None
    incoming_locales: Value = None
    offered_capabilities: Value = None
    desired_capabilities: Value = None
    properties: dict[Value, Value] | None = None


class Begin(NamedTuple):
    """Opens a session; windows count transfers, not bytes."""

    remote_channel: int | None
    next_outgoing_id: int
    incoming_window: int
    outgoing_window: int
    handle_max: int | None = None
    offered_capabilities: Value = None
    desired_capabilities: Value = None
    properties: dict[Value, Value] | None = None


class Attach(NamedTuple):
    """Opens a link; a reply without source and target announces that it will be refused."""

    name: str
    handle: int
    is_receiver: bool
    snd_settle_mode: int | None = None
    rcv_settle_mode: int | None = None
    source: Described | None = None
    target: Described | None = None
    unsettled: dict[Value, Value] | None = None
    incomplete_unsettled: bool | None = None
    initial_delivery_count: int | None = None
    max_message_size: int | None = None
    offered_capabilities: Value = None
    desired_capabilities: Value = None
    properties: dict[Value, Value] | None = None


class Flow(NamedTuple):
    """The state of a session's windows and, with a handle, of a link's credit."""

    next_incoming_id: int | None
    incoming_window: int
    next_outgoing_id: int
    outgoing_window: int
    handle: int | None = None
    delivery_count: int | None = None
    link_credit: int | None = None
    available: int | None = None
    drain: bool | None = None
    echo: bool | None = None
    properties: dict[Value, Value] | None = None


class Transfer(NamedTuple):
    """A message or, with `more`, a part of one."""

    handle: int
    delivery_id: int | None = None
    delivery_tag: bytes | None = None
    message_format: int | None = None
    settled: bool | None = None
    more: bool | None = None
    rcv_settle_mode: int | None = None
    state: Described | None = None
    resume: bool | None = None
    aborted: bool | None = None
    batchable: bool | None = None


class Disposition(NamedTuple):
    """What became of the deliveries `first` to `last`."""

    is_receiver: bool
    first: int
    last: int | None = None
    settled: bool | None = None
    state: Described | None = None
    batchable: bool | None = None


class Detach(NamedTuple):
    """Ends a link."""

    handle: int
    closed: bool | None = None
    error: Described | None = None


class End(NamedTuple):
    """Ends a session."""

    error: Described | None = None


class Close(NamedTuple):
    """Ends the connection."""

    error: Described | None = None


class SaslMechanisms(NamedTuple):
    """The ways to authenticate that the server offers."""

    mechanisms: Value


class SaslInit(NamedTuple):
    """The way that the client chose."""

    mechanism: str
    initial_response: bytes | None = None
    hostname: str | None = None


class SaslOutcome(NamedTuple):
    """The server's answer to the client's credentials: code 0 lets it in."""

    code: int
    additional_data: bytes | None = None


Performative = (
    Open | Begin | Attach | Flow | Transfer | Disposition | Detach | End | Close | SaslInit
)

_ATTACH_FIELDS: tuple[type, ...] = (
    *(str, UInt, bool, UByte, UByte, Described, Described),
    *(dict, bool, UInt, ULong, object, object, dict),
)
# Each performative's descriptor and the AMQP type of each of its fields, in their order.
_LAYOUTS: dict[type, tuple[int, tuple[type, ...]]] = {
    Open: (0x10, (str, str, UInt, UShort, UInt, object, object, object, object, dict)),
    Begin: (0x11, (UShort, UInt, UInt, UInt, UInt, object, object, dict)),
    Attach: (0x12, _ATTACH_FIELDS),
    Flow: (0x13, (UInt,) * 8 + (bool, bool, dict)),
    Transfer: (
        0x14,
        (UInt, UInt, bytes, UInt, bool, bool, UByte, Described, bool, bool, bool),
    ),
    Disposition: (0x15, (bool, UInt, UInt, bool, Described, bool)),
    Detach: (0x16, (UInt, bool, Described)),
    End: (0x17, (Described,)),
    Close: (0x18, (Described,)),
    SaslMechanisms: (0x40, (object,)),
    SaslInit: (0x41, (Symbol, bytes, str)),
    SaslOutcome: (0x44, (UByte, bytes)),
}

_PYTHON_TYPES: dict[type, type] = {
    UByte: int, UShort: int, UInt: int, ULong: int, Symbol: str,
}  # fmt: skip
_WRITERS: dict[type, tuple[bytes, tuple[Callable[[Value], bytes], ...]]] = {
    kind: (
        b"\x00\x53" + bytes((code,)),
        tuple(encode if field is object else writer(field) for field in fields),
    )
    for kind, (code, fields) in _LAYOUTS.items()
}
_READERS: dict[int, tuple[Any, tuple[type, ...], int]] = {
    code: (
        kind,
        tuple(_PYTHON_TYPES.get(field, field) for field in fields),
        len(fields) - len(getattr(kind, "_field_defaults")),  # noqa: B009 - unknown to `type`
    )
    for kind, (code, fields) in _LAYOUTS.items()
}


def encode_performative(performative: Any) -> bytes:
    """The body of a frame.

    Every field is written, also a trailing null that AMQP lets a peer omit: the Python SDK finds
    fields by their position in what it received.
    """
    prefix, writers = _WRITERS[type(performative)]
    return prefix + encode_list(
        [
            NULL if value is None else write(value)
            for write, value in zip(writers, performative, strict=True)
        ]
    )


def decode_performative(body: bytes) -> tuple[Performative, bytes]:
    """The performative of a frame's body, and the message bytes that follow it.

    Raises:
        DecodeError: it is no performative, lacks a mandatory field or has one of a wrong type.
    """
    described, end = decode(body)
    if not isinstance(described, Described) or not isinstance(described.value, list):
        raise DecodeError("a frame does not begin with a described list")
    layout = _READERS.get(described.descriptor) if isinstance(described.descriptor, int) else None
    if layout is None:
        raise DecodeError(f"no performative has the descriptor {described.descriptor!r}")
    kind, types, mandatory = layout
    fields = described.value
    if len(fields) > len(types):
        raise DecodeError(f"{kind.__name__} has no {len(fields)} fields")
    fields += [None] * (len(types) - len(fields))
    for index, (value, expected) in enumerate(zip(fields, types, strict=True)):
        if value is None:
            # The first field of Begin and Flow is empty while the other side is not known yet.
            if index < mandatory and not (index == 0 and kind in (Begin, Flow)):
                raise DecodeError(f"{kind.__name__} lacks its field {index}")
        elif not isinstance(value, expected):
            raise DecodeError(f"{kind.__name__} has a {type(value).__name__} as field {index}")
    return kind(*fields), body[end:]


def frame(channel: int, body: bytes, kind: int = AMQP_FRAME) -> bytes:
    """A frame around a body; an empty body makes the frame that only says "still here"."""
    return _FRAME_HEADER.pack(len(body) + 8, 2, kind, channel) + body


class Frame(NamedTuple):
    """A frame that was cut from a stream: `size` bytes of it, header included."""

    size: int
    kind: int
    channel: int
    body: bytes


def cut_frame(data: bytes | bytearray, position: int, max_size: int) -> Frame | None:
    """The frame that begins at `position`; None while its end has not arrived.

    Raises:
        FramingError: the header is impossible or announces more than `max_size` bytes.
    """
    if len(data) - position < 8:
        return None
    size, offset, kind, channel = _FRAME_HEADER.unpack_from(data, position)
    if not 8 <= 4 * offset <= size <= max_size or kind not in (AMQP_FRAME, SASL_FRAME):
        raise FramingError(f"impossible frame: size {size}, offset {offset}, type {kind}")
    if len(data) - position < size:
        return None
    return Frame(size, kind, channel, bytes(data[position + 4 * offset : position + size]))


def error(condition: str, description: str) -> Described:
    """An AMQP error; the empty map of details is there because the Python SDK reads it."""
    return Described(ULong(ERROR), [Symbol(condition), description, {}])


def outcome(code: int, *fields: Value) -> Described:
    """What became of a delivery: ACCEPTED, REJECTED, RELEASED or MODIFIED."""
    return Described(ULong(code), list(fields))
