"""AMQP as bytes: every value comes back as it was, and no bytes do harm."""

import struct
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.servicebus.broker.message import Message
from local.servicebus.codec import performatives as p
from local.servicebus.codec import sections
from local.servicebus.codec import values as v
from local.servicebus.codec.reading import DecodeError, decode, map_entries, skip
from local.servicebus.codec.writing import encode, encode_entries


def integers(bits: int, *, signed: bool = False) -> st.SearchStrategy[int]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.integers(low, high)


TEXT = st.text(st.characters(codec="utf-8"), max_size=300)
ASCII = st.text(st.characters(codec="ascii"), max_size=300)
HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    integers(64, signed=True),
    integers(8).map(v.UByte),
    integers(16).map(v.UShort),
    integers(32).map(v.UInt),
    integers(64).map(v.ULong),
    integers(8, signed=True).map(v.Byte),
    integers(16, signed=True).map(v.Short),
    integers(32, signed=True).map(v.Int),
    integers(64, signed=True).map(v.Timestamp),
    st.floats(allow_nan=False),
    st.floats(allow_nan=False, width=32).map(v.Float),
    st.sampled_from([4, 8, 16])
    .flatmap(lambda size: st.binary(min_size=size, max_size=size))
    .map(v.Decimal),
    st.characters(codec="utf-8").map(v.Char),
    st.uuids(),
    st.binary(max_size=300),
    TEXT,
    ASCII.map(v.Symbol),
)
ARRAYS = st.one_of(
    st.lists(integers(32).map(v.UInt)),
    st.lists(integers(64, signed=True)),
    st.lists(st.uuids()),
    st.lists(TEXT),
    st.lists(ASCII.map(v.Symbol)),
    st.lists(st.booleans()),
    st.lists(st.binary(max_size=20)),
    st.lists(integers(64, signed=True).map(v.Timestamp)),
    st.lists(st.none(), max_size=16),  # more of what has no content is refused, see below
    st.lists(st.binary(min_size=8, max_size=8).map(v.Decimal)),
    st.lists(st.lists(HASHABLE, max_size=3), max_size=3),
    st.lists(st.dictionaries(HASHABLE, HASHABLE, max_size=3), max_size=3),
    st.lists(st.lists(st.uuids(), max_size=3).map(v.Array), max_size=3),
    st.lists(TEXT.map(lambda text: v.Described(v.Symbol("colour"), text)), max_size=3),
).map(v.Array)
VALUES = st.recursive(
    HASHABLE | ARRAYS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.dictionaries(HASHABLE, inner, max_size=6),
        st.builds(v.Described, HASHABLE, inner),
    ),
    max_leaves=12,
)


def typed(value: Any) -> Any:
    """A value with its types made comparable: UInt(1) is not 1."""
    match value:
        case v.Described():
            return (v.Described, typed(value.descriptor), typed(value.value))
        case list():
            return (type(value), [typed(item) for item in value])
        case dict():
            return (dict, [(typed(key), typed(item)) for key, item in value.items()])
        case _:
            return (type(value), value)


@given(VALUES)
def test_a_value_comes_back_with_its_types(value: Any) -> None:
    data = encode(value)
    assert typed(decode(data)[0]) == typed(value)
    assert decode(data)[1] == skip(data, 0) == len(data)


@given(VALUES, st.data())
def test_no_value_is_read_from_a_part_of_its_bytes(value: Any, data: st.DataObject) -> None:
    encoded = encode(value)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(DecodeError):
        decode(encoded[:cut])


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_value_or_an_error(data: bytes) -> None:
    for read in (decode, skip, lambda b, q: list(map_entries(b, q))):
        try:
            read(data, 0)
        except DecodeError:
            continue


@given(VALUES, st.data())
def test_corrupted_bytes_are_a_value_or_an_error(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(encoded))
    except DecodeError:
        pass
    else:
        assert skip(bytes(encoded), 0) <= len(encoded)


@pytest.mark.parametrize(
    "data",
    [
        b"\xf0\x00\x00\x00\x05\xff\xff\xff\xff\x40",  # an array of 2^32 - 1 nulls
        b"\xf0\x00\x00\x00\x05\x00\x00\x10\x00\x40",  # of 4096: a frame holds 100,000 such arrays
        b"\xd0\x00\x00\x00\x04\xff\xff\xff\xff",  # a list of as many elements
        b"\xb0\xff\xff\xff\xff",  # a binary of 4 GiB
        b"\xc1\x03\x02\xc0\x00",  # a map whose key is a list
        b"\xc1\x02\x01\x40",  # a map with half an entry
        b"\xa1\x01\xff",  # a string that is not UTF-8
        b"\x73\x00\x00\xd8\x00",  # half of a surrogate pair
        b"\x73\xff\xff\xff\xff",  # a character beyond Unicode
        b"\x00" * 100_000,  # a description of a description...
        b"\xc0\xff" * 50_000,  # a list in a list...
        b"\x3f",  # no constructor
        b"",
    ],
)
def test_hostile_bytes_are_refused_without_being_believed(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data)


def test_the_examples_of_the_specification() -> None:
    # Part 1, figures 1.1 and 1.3: an annotated string, and the book of a described list.
    url = b"\x00\xa1\x03URL\xa1\x1ehttp://example.org/hello-world"
    assert decode(url)[0] == v.Described("URL", "http://example.org/hello-world")
    book = (
        b"\x00\xa3\x11example:book:list\xc0\x40\x03\xa1\x15AMQP for & by Dummies"
        b"\xe0\x25\x02\xa1\x0eRob J. Godfrey\x13Rafael H. Schloming\x40"
    )
    authors = v.Array(["Rob J. Godfrey", "Rafael H. Schloming"])
    assert decode(book)[0] == v.Described(
        v.Symbol("example:book:list"), ["AMQP for & by Dummies", authors, None]
    )


def test_an_encoded_value_of_no_amqp_type_is_an_error() -> None:
    with pytest.raises(TypeError, match="complex"):
        encode(1j)
    with pytest.raises(struct.error):
        encode(v.UByte(256))


def tuples(kind: Any, *fields: st.SearchStrategy[Any]) -> st.SearchStrategy[p.Performative]:
    return st.tuples(*fields).map(lambda values: kind(*values))


PERFORMATIVES = st.one_of(
    tuples(p.Open, TEXT, st.none() | TEXT, integers(32), integers(16), integers(32)),
    tuples(p.Begin, st.none() | integers(16), integers(32), integers(32), integers(32)),
    tuples(p.Attach, TEXT, integers(32), st.booleans(), integers(8), integers(8)),
    tuples(p.Flow, st.none() | integers(32), integers(32), integers(32), integers(32)),
    tuples(p.Transfer, integers(32), integers(32), st.binary(max_size=32), integers(32)),
    tuples(p.Disposition, st.booleans(), integers(32), integers(32), st.booleans()),
    tuples(p.Detach, integers(32), st.booleans(), st.just(p.error("amqp:x", "why"))),
    tuples(p.End),
    tuples(p.Close),
)


@given(PERFORMATIVES, st.binary(max_size=50), integers(16))
def test_a_frame_comes_back(performative: p.Performative, payload: bytes, channel: int) -> None:
    data = p.frame(channel, p.encode_performative(performative) + payload)
    frame = p.cut_frame(data + b"more", 0, 2**20)
    assert frame is not None
    assert (frame.size, frame.kind, frame.channel) == (len(data), p.AMQP_FRAME, channel)
    assert p.decode_performative(frame.body) == (performative, payload)
    assert all(p.cut_frame(data[:size], 0, 2**20) is None for size in range(len(data)))


@given(st.binary(min_size=8, max_size=64))
def test_arbitrary_bytes_are_a_frame_an_error_or_not_enough(data: bytes) -> None:
    try:
        frame = p.cut_frame(data, 0, 2**20)
    except p.FramingError:
        return
    assert frame is None or 8 <= frame.size <= len(data)


@given(VALUES)
def test_arbitrary_values_are_a_performative_or_an_error(value: Any) -> None:
    try:
        performative, _ = p.decode_performative(encode(value))
    except DecodeError:
        return
    assert isinstance(performative, tuple)


def test_a_performative_of_the_wrong_shape_is_refused() -> None:
    for fields in ([], ["no number"], [1, 2, 3, 4], None):
        with pytest.raises(DecodeError):
            p.decode_performative(encode(v.Described(v.ULong(0x16), fields)))
    with pytest.raises(p.FramingError):
        p.cut_frame(struct.pack(">IBBH", 2**21, 2, 0, 0), 0, 2**20)
    with pytest.raises(p.FramingError):
        p.cut_frame(struct.pack(">IBBH", 0, 2, 0, 0), 0, 2**20)


@given(
    body=st.binary(max_size=400),
    application=st.dictionaries(TEXT, HASHABLE, max_size=4),
    annotations=st.dictionaries(ASCII.map(v.Symbol), HASHABLE, max_size=3),
    message_id=st.none() | TEXT | st.uuids() | integers(64).map(v.ULong),
)
def test_a_message_reaches_its_receiver_as_it_was(
    body: bytes, application: dict[str, Any], annotations: dict[str, Any], message_id: Any
) -> None:
    annotations = {key: value for key, value in annotations.items() if not key.startswith("x-opt")}
    parts = [
        sections.section(sections.MESSAGE_ANNOTATIONS, encode(annotations)),
        sections.section(sections.PROPERTIES, encode([message_id, b"user"])),
        sections.section(sections.APPLICATION_PROPERTIES, encode(application)),
        sections.section(sections.DATA, encode(body)),
    ]
    message = Message.parse(b"".join(parts))
    message.set_application_properties({"DeadLetterReason": "because"})
    wire = message.wire()
    received = {part.code: part for part in sections.split(wire)}
    read = {code: decode(wire, part.value)[0] for code, part in received.items()}
    assert read[sections.DATA] == body
    assert typed(read[sections.PROPERTIES]) == typed([message_id, b"user"])
    expected = {**application, "DeadLetterReason": "because"}
    assert typed(read[sections.APPLICATION_PROPERTIES]) == typed(expected)
    assert annotations.items() <= read[sections.MESSAGE_ANNOTATIONS].items()
    assert Message.parse(message.content()).wire() == wire


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        message = Message.parse(data)
    except DecodeError:
        return
    assert isinstance(message.wire(), bytes)


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_a_batch_is_its_messages(bodies: list[bytes]) -> None:
    data = b"".join(sections.section(sections.DATA, encode(body)) for body in bodies)
    assert sections.unbatch(data, sections.BATCH_FORMAT) == bodies
    assert sections.unbatch(data, 0) == [data]


@given(st.dictionaries(HASHABLE, HASHABLE, max_size=5))
def test_a_map_is_its_entries(mapping: dict[Any, Any]) -> None:
    entries = dict(map_entries(encode(mapping), 0))
    assert typed(decode(encode_entries(entries.values()))[0]) == typed(mapping)


def test_values_that_python_takes_for_equal_stay_apart() -> None:
    descriptions = {v.Described("d", 1), v.Described("d", 2), v.Described("d", 1)}
    assert len(descriptions) == 2
    assert repr(v.Described("d", uuid.UUID(int=0))).startswith("Described('d'")
