"""One message: what its sender wrote, and what the broker knows about it."""

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple
from uuid import UUID

from ..codec import sections
from ..codec.reading import DecodeError, decode, map_entries, skip
from ..codec.values import Int, Symbol, Timestamp, UInt, Value
from ..codec.writing import encode, encode_entries

# The properties that filters can ask about, as Service Bus names them, and the places of their
# fields in the properties section (AMQP 1.0, part 3, 3.2.4).
PROPERTY_FIELDS = {
    "MessageId": 0,
    "To": 2,
    "Label": 3,
    "ReplyTo": 4,
    "CorrelationId": 5,
    "ContentType": 6,
    "SessionId": 10,
    "ReplyToSessionId": 12,
}

_MAX_TTL_ON_WIRE_MS = 2**32 - 1
_LAST_TIME_MS = 253_402_300_799_999  # the end of the year 9999, as in .NET


class State(IntEnum):
    """Where a message stands, in the numbers of the annotation x-opt-message-state."""

    ACTIVE = 0
    DEFERRED = 1
    SCHEDULED = 2


class Facts(NamedTuple):
    """What a filter can ask about a message."""

    system: dict[str, Value]
    application: dict[str, Value]


class Message:
    """A message in an entity.

    Properties, application properties and body are kept as the bytes that the sender wrote, so
    that a receiver gets every type and value back as it was. All times are milliseconds since the
    epoch; 0 stands for never.
    """

    __slots__ = (
        "annotations",
        "application_properties",
        "body",
        "dead_letter_source",
        "delivery_count",
        "durable",
        "enqueued_ms",
        "enqueued_sequence",
        "expires_ms",
        "lock_token",
        "locked_until_ms",
        "message_id",
        "priority",
        "properties",
        "scheduled_ms",
        "sequence",
        "session_id",
        "state",
        "ttl_ms",
    )

    def __init__(self) -> None:
        self.durable: bool | None = None
        self.priority: int | None = None
        self.ttl_ms = 0
        self.annotations: dict[str, bytes] = {}
        self.properties = self.application_properties = self.body = b""
        self.message_id: bytes | None = None
        self.session_id: str | None = None

        self.state = State.ACTIVE
        self.sequence = self.enqueued_sequence = 0
        self.enqueued_ms = self.expires_ms = self.scheduled_ms = 0
        self.delivery_count = 0
        self.lock_token: UUID | None = None
        self.locked_until_ms = 0
        self.dead_letter_source: str | None = None

    @classmethod
    def parse(cls, data: bytes) -> "Message":
        """The message that a sender encoded.

        Raises:
            DecodeError: the bytes are no message.
        """
        message, body = cls(), []
        for part in sections.split(data):
            if part.code == sections.HEADER:
                message._read_header(decode(data, part.value)[0])
            elif part.code == sections.MESSAGE_ANNOTATIONS:
                message._read_annotations(data, part.value)
            elif part.code == sections.PROPERTIES:
                message.properties = data[part.start : part.end]
                message._read_properties(decode(data, part.value)[0])
            elif part.code == sections.APPLICATION_PROPERTIES:
                message.application_properties = data[part.start : part.end]
                for _ in map_entries(data, part.value):
                    pass  # that it is a map, before the broker has to add to it
            elif part.code != sections.DELIVERY_ANNOTATIONS:
                body.append(data[part.start : part.end])
        message.body = b"".join(body)
        return message

    def _read_header(self, header: Value) -> None:
        if not isinstance(header, list):
            raise DecodeError("a header is no list")
        self.durable, self.priority, ttl = ([*header, None, None, None])[:3]
        if not isinstance(ttl, UInt | None):
            raise DecodeError("a time to live is no uint")
        self.ttl_ms = ttl or 0

    def _read_annotations(self, data: bytes, position: int) -> None:
        for key, entry in map_entries(data, position):
            self.annotations[str(key)] = entry
            if key == "x-opt-scheduled-enqueue-time":
                scheduled = decode(entry, skip(entry, 0))[0]
                if not (scheduled is None or _is_time(scheduled)):
                    raise DecodeError("a scheduled time is no timestamp")
                self.scheduled_ms = scheduled or 0

    def _read_properties(self, properties: Value) -> None:
        if not isinstance(properties, list):
            raise DecodeError("a properties section is no list")
        if properties and properties[0] is not None:
            self.message_id = encode(properties[0])
        if len(properties) > 10 and properties[10] is not None:
            self.session_id = str(properties[10])

    def copy(self) -> "Message":
        """The same message for another subscription."""
        other = Message()
        for slot in self.__slots__:
            setattr(other, slot, getattr(self, slot))
        other.annotations = dict(self.annotations)
        return other

    def facts(self) -> Facts:
        """The properties that filters are evaluated on."""
        fields: list[Value] = []
        if self.properties:
            part = next(sections.split(self.properties))
            fields = decode(self.properties, part.value)[0]
        system = {
            name: fields[place] for name, place in PROPERTY_FIELDS.items() if place < len(fields)
        }
        application: dict[str, Value] = {}
        if self.application_properties:
            part = next(sections.split(self.application_properties))
            application = decode(self.application_properties, part.value)[0] or {}
        return Facts(system, application)

    def set_application_properties(self, changes: dict[str, Value]) -> None:
        """Add or replace application properties; the others keep their bytes."""
        entries: dict[str, bytes] = {}
        if self.application_properties:
            part = next(sections.split(self.application_properties))
            entries = {
                str(key): entry
                for key, entry in map_entries(self.application_properties, part.value)
            }
        for key, value in changes.items():
            entries[key] = encode(key) + encode(value)
        self.application_properties = sections.section(
            sections.APPLICATION_PROPERTIES, encode_entries(entries.values())
        )

    def content(self) -> bytes:
        """The message as its sender wrote it, for `parse` to read again."""
        return self._encode(None, self.annotations.values())

    def wire(self) -> bytes:
        """The message as a receiver gets it; with its lock if it has one."""
        own: dict[str, Value] = {
            "x-opt-enqueued-time": Timestamp(self.enqueued_ms),
            "x-opt-sequence-number": self.sequence,
            "x-opt-enqueue-sequence-number": self.enqueued_sequence,
            "x-opt-message-state": Int(self.state),
        }
        if self.lock_token is not None:
            own["x-opt-locked-until"] = Timestamp(self.locked_until_ms)
        if self.dead_letter_source is not None:
            own["x-opt-deadletter-source"] = self.dead_letter_source
        entries = [encode(Symbol(key)) + encode(value) for key, value in own.items()]
        theirs = (entry for key, entry in self.annotations.items() if key not in own)
        return self._encode(self.delivery_count, [*theirs, *entries])

    def _encode(self, delivery_count: int | None, annotations: Iterable[bytes]) -> bytes:
        ttl = UInt(self.ttl_ms) if 0 < self.ttl_ms <= _MAX_TTL_ON_WIRE_MS else None
        count = UInt(delivery_count) if delivery_count is not None else None
        header = encode([self.durable, self.priority, ttl, None, count])
        return b"".join(
            (
                sections.section(sections.HEADER, header),
                sections.section(sections.MESSAGE_ANNOTATIONS, encode_entries(annotations)),
                self.properties,
                self.application_properties,
                self.body,
            )
        )


def _is_time(value: Value) -> bool:
    return isinstance(value, int) and 0 <= value <= _LAST_TIME_MS
