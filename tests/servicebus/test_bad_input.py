"""Clients that break the rules: each gets its error, and no other connection notices."""

import asyncio
import logging
import random
import struct
import uuid
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.servicebus import Limits
from local.servicebus.broker.message import Message
from local.servicebus.codec import performatives as p
from local.servicebus.codec import sections
from local.servicebus.codec import values as v
from local.servicebus.codec.writing import encode, encode_entries

from .peer import HANDSHAKE, condition_of, peer, running
from .support import encoded, until

SCHEDULED = v.Symbol("x-opt-scheduled-enqueue-time")


@pytest.mark.parametrize(
    ("data", "condition"),
    [
        (struct.pack(">IBBH", 0, 2, 0, 0), "amqp:connection:framing-error"),
        (struct.pack(">IBBH", 2**30, 2, 0, 0), "amqp:connection:framing-error"),
        (struct.pack(">IBBH", 8, 200, 0, 0), "amqp:connection:framing-error"),
        (struct.pack(">IBBH", 8, 2, 7, 0), "amqp:connection:framing-error"),
        (p.frame(0, b"\xff\xff"), "amqp:decode-error"),
        (p.frame(0, encode("no performative")), "amqp:decode-error"),
        (p.frame(0, encode(v.Described(v.ULong(0x12), []))), "amqp:decode-error"),
        (p.frame(0, p.encode_performative(p.Open("again"))), None),
        (p.frame(0, p.encode_performative(p.Begin(None, 0, 1, 1))), "amqp:not-allowed"),
        (p.frame(999, p.encode_performative(p.Begin(None, 0, 1, 1))), "amqp:not-allowed"),
        (
            p.frame(0, p.encode_performative(p.SaslInit("PLAIN")), p.SASL_FRAME),
            "amqp:not-allowed",
        ),
    ],
)
async def test_a_broken_frame_ends_its_connection_only(data: bytes, condition: str | None) -> None:
    async with running() as server, peer(server) as other, peer(server) as bad:
        bad.raw(data)
        if condition is not None:
            close = await bad.expect(p.Close)
            assert condition_of(close.error) == condition
            assert await bad.closed()
        other.send(p.Flow(0, 100, 0, 100, echo=True))
        assert isinstance(await other.expect(p.Flow), p.Flow)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n", b"AMQP\x00\x00\x09\x01", b"\x16\x03\x01" * 3]
)
async def test_another_protocol_is_told_what_is_spoken_here(data: bytes) -> None:
    async with running() as server, peer(server, shaken=False) as stranger:
        stranger.raw(data)
        assert await stranger.reader.readexactly(8) == p.SASL_HEADER
        assert await stranger.closed()


async def test_a_connection_that_stays_silent_is_closed() -> None:
    limits = Limits(handshake_seconds=1, idle_ms=100)
    async with running(limits) as server:
        async with peer(server, shaken=False) as silent, peer(server) as idle:
            assert await silent.closed()
            close = await idle.expect(p.Close)
            assert condition_of(close.error) == "amqp:resource-limit-exceeded"
        await until(lambda: not server.connections)


async def test_without_a_token_nothing_is_reached() -> None:
    async with running() as server, peer(server) as stranger:
        for handle, (path, receiver) in enumerate(
            (("q", True), ("q", False), ("q/$management", False))
        ):
            reply = await stranger.attach(path, receiver=receiver, handle=handle)
            assert (reply.source, reply.target) == (None, None)
            detach = await stranger.expect(p.Detach)
            assert condition_of(detach.error) == "amqp:unauthorized-access"


async def test_a_message_that_is_none_is_refused_and_the_link_goes_on() -> None:
    async with running() as server, peer(server) as sender:
        await sender.authorize(server)
        await sender.attach("q", receiver=False)
        too_large = encoded(bytes(1000))
        expected = {
            b"\x01": "amqp:decode-error",
            sections.section(sections.HEADER, encode("no list")): "amqp:decode-error",
            too_large: "amqp:link:message-size-exceeded",
            encoded(b"good"): None,
        }
        for number, (data, condition) in enumerate(expected.items()):
            sender.send(p.Transfer(0, number, b"t", 0), data)
            disposition = await sender.expect(p.Disposition)
            assert disposition.first == number
            assert disposition.state is not None
            if condition is None:
                assert disposition.state.descriptor == p.ACCEPTED
            else:
                assert disposition.state.descriptor == p.REJECTED
                assert condition_of(disposition.state.value[0]) == condition
        assert len(server.broker.queue("q").messages) == 1


def message_with(code: int, value: v.Value) -> bytes:
    """A message with one section of this value before its body."""
    return sections.section(code, encode(value)) + sections.section(sections.DATA, encode(b"m"))


@pytest.mark.parametrize("path", ["q", "t"])
@pytest.mark.parametrize(
    "data",
    [
        message_with(sections.HEADER, [None, None, v.ULong(2**64 - 1)]),
        message_with(sections.MESSAGE_ANNOTATIONS, {SCHEDULED: v.ULong(2**64 - 1)}),
        message_with(sections.MESSAGE_ANNOTATIONS, {SCHEDULED: v.Timestamp(-1)}),
        message_with(sections.APPLICATION_PROPERTIES, ["no map"]),
    ],
)
async def test_what_the_broker_could_not_work_with_later_is_refused_at_once(
    data: bytes, path: str, tmp_path: Path
) -> None:
    """No time may be beyond what a clock and a database hold, nor dead-lettering fail."""
    async with running(data=tmp_path / "data.sqlite") as server, peer(server) as sender:
        await sender.authorize(server)
        await sender.attach(path, receiver=False)
        batch = b"".join(
            sections.section(sections.DATA, encode(one)) for one in (encoded(b"good"), data)
        )
        for number, (body, form, outcome) in enumerate(
            (
                (data, 0, p.REJECTED),
                (batch, sections.BATCH_FORMAT, p.REJECTED),
                (encoded(b"good"), 0, p.ACCEPTED),
            )
        ):
            sender.send(p.Transfer(0, number, b"t", form), body)
            disposition = await sender.expect(p.Disposition)
            assert disposition.state.descriptor == outcome
        kept = server.broker.queue("q" if path == "q" else "t/Subscriptions/s").messages
        assert len(kept) == 1
        assert not server.failed.done()


async def test_a_batch_to_a_topic_whose_properties_cannot_be_read_is_refused_whole() -> None:
    broken = encode("x")[:-1] + b"\xff"  # no UTF-8: only who decodes the value sees it
    bad = sections.section(
        sections.APPLICATION_PROPERTIES, encode_entries([encode("state") + broken])
    )
    async with running() as server, peer(server) as sender:
        await sender.authorize(server)
        await sender.attach("t", receiver=False)
        batch = b"".join(
            sections.section(sections.DATA, encode(one)) for one in (encoded(b"good"), bad)
        )
        sender.send(p.Transfer(0, 0, b"t", sections.BATCH_FORMAT), batch)
        disposition = await sender.expect(p.Disposition)
        assert condition_of(disposition.state.value[0]) == "amqp:decode-error"
        assert server.broker.queue("t/Subscriptions/s").messages == {}


async def test_a_client_that_does_not_read_is_not_served_without_end() -> None:
    async with running(Limits(max_message=256 * 1024)) as server, peer(server) as client:
        await client.authorize(server)
        for _ in range(8):
            server.broker.entity("q").accept(Message.parse(encoded(bytes(200_000))))
        await client.attach("q/$management", receiver=True, handle=0)
        await client.attach("q/$management", receiver=False, handle=1)
        client.send(p.Flow(None, 2**31 - 1, 0, 100, 0, 0, 2**31 - 1))
        operation = {"operation": "com.microsoft:peek-message"}
        body = {"from-sequence-number": 1, "message-count": 2**31 - 1}
        peek = sections.encode_value_message(None, operation, body)
        [connection] = server.connections
        request = p.encode_performative(p.Transfer(1, 0, b"t", 0)) + peek
        client.raw(p.frame(0, request) * 100)  # each is answered with a megabyte
        await until(lambda: connection._paused)
        assert connection._transport.get_write_buffer_size() < 5_000_000
        replies = [await client.expect(p.Transfer) for _ in range(100)]
        assert replies[0].more


async def test_a_batch_with_one_bad_message_is_refused_whole() -> None:
    async with running() as server, peer(server) as sender:
        await sender.authorize(server)
        await sender.attach("sessions", receiver=False)
        batch = b"".join(
            sections.section(sections.DATA, encode(message))
            for message in (encoded(b"1", session_id="S"), encoded(b"2"))
        )
        sender.send(p.Transfer(0, 0, b"t", sections.BATCH_FORMAT), batch)
        disposition = await sender.expect(p.Disposition)
        assert condition_of(disposition.state.value[0]) == "amqp:not-allowed"
        assert server.broker.queue("sessions").messages == {}


async def test_settling_the_unknown_loses_nothing() -> None:
    async with running() as server, peer(server) as receiver:
        await receiver.authorize(server)
        server.broker.entity("q").accept(Message.parse(encoded(b"m")))
        await receiver.attach("q", receiver=True)
        receiver.send(p.Disposition(True, 5, 5, False, p.outcome(p.ACCEPTED)))
        disposition = await receiver.expect(p.Disposition)
        assert condition_of(disposition.state.value[0]) == "com.microsoft:message-lock-lost"
        receiver.send(p.Disposition(True, 0, 2**32 - 1, False, p.outcome(p.ACCEPTED)))
        receiver.send(p.Flow(None, 100, 0, 100, 0, 0, 1))
        transfer = await receiver.expect(p.Transfer)
        receiver.send(p.Disposition(True, transfer.delivery_id, None, False, p.outcome(0x99)))
        disposition = await receiver.expect(p.Disposition)
        assert condition_of(disposition.state.value[0]) == "amqp:not-allowed"
        assert len(server.broker.queue("q").messages) == 1


async def test_a_handle_or_a_request_that_makes_no_sense() -> None:
    async with running() as server, peer(server) as client:
        await client.authorize(server)
        await client.attach("q/$management", receiver=True, handle=0)
        await client.attach("q/$management", receiver=False, handle=1)
        client.send(p.Flow(None, 100, 0, 100, 0, 0, 10))
        argument = (400, "com.microsoft:argument-error")
        abandon = {"disposition-status": "abandoned", "lock-tokens": []}
        too_large = {"messages": [{"message": encoded(bytes(1000))}]}
        requests: list[tuple[str, object, tuple[int, str]]] = [
            ("com.microsoft:peek-message", {}, argument),
            ("peek-message", {"from-sequence-number": 1, "message-count": -1}, argument),
            ("renew-lock", {"lock-tokens": ["no uuid"]}, argument),
            (
                "renew-lock",
                {"lock-tokens": [uuid.UUID(int=1)]},
                (410, "com.microsoft:message-lock-lost"),
            ),
            ("update-disposition", {"disposition-status": 1}, argument),
            ("update-disposition", abandon | {"properties-to-modify": "no map"}, argument),
            ("get-session-state", {"session-id": "S"}, (400, "amqp:not-allowed")),
            ("schedule-message", too_large, (413, "amqp:link:message-size-exceeded")),
            ("schedule-message", {"messages": [{"message": b"none"}]}, (400, "amqp:decode-error")),
            ("com.microsoft:add-rule", {}, (501, "amqp:not-implemented")),
            ("nonsense", "no map", argument),
        ]
        for number, (operation, body, expected) in enumerate(requests):
            data = sections.encode_value_message(None, {"operation": operation}, body)
            client.send(p.Transfer(1, number, b"t", 0), data)
            assert await client.expect_status() == expected, operation
        client.send(p.Transfer(77, 99, b"t", 0), b"nobody is there")
        client.send(p.Detach(77, True))
        client.send(p.Flow(0, 100, 0, 100, echo=True))
        assert isinstance(await client.expect(p.Flow), p.Flow)
        data = sections.section(sections.DATA, encode(b"no request"))
        client.send(p.Transfer(1, 50, b"t", 0), data)
        assert condition_of((await client.expect(p.Close)).error) == "amqp:decode-error"


async def test_a_link_may_not_take_the_handle_of_another() -> None:
    async with running() as server, peer(server) as client:
        await client.authorize(server)
        await client.attach("q", receiver=True)
        client.send(p.Attach("another", 0, True))
        assert condition_of((await client.expect(p.Close)).error) == "amqp:session:handle-in-use"
        await until(lambda: server.broker.queue("q").consumers == [])


async def test_a_session_has_no_more_links_than_it_was_told() -> None:
    async with running() as server, peer(server) as client:
        client.send(p.Attach("far", 256, True))
        close = await client.expect(p.Close)
        assert condition_of(close.error) == "amqp:connection:framing-error"


def corrupt(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def conversation() -> Iterable[bytes]:
    """What an honest client sends, frame by frame, after the handshake."""
    source, target = v.Described(v.ULong(p.SOURCE), ["q"]), v.Described(v.ULong(p.TARGET), ["q"])
    for performative, payload in (
        (p.Begin(None, 0, 1000, 1000), b""),
        (p.Attach("out", 0, True, 0, 1, source, target), b""),
        (p.Attach("in", 1, False, 0, 1, source, target, None, None, 0), b""),
        (p.Flow(None, 100, 0, 100, 0, 0, 10, None, True, True), b""),
        (p.Transfer(1, 0, b"tag", 0), encoded(b"m", message_id="a", colour="red")),
        (p.Disposition(True, 0, 5, False, p.outcome(p.ACCEPTED)), b""),
        (p.Detach(0, True), b""),
        (p.End(), b""),
    ):
        yield p.frame(0, p.encode_performative(performative) + payload)


@settings(max_examples=200, deadline=None)
@given(noise=st.binary(max_size=300), seed=st.integers(0, 2**32), shaken=st.booleans())
def test_no_bytes_crash_the_server_or_hang_a_connection(
    noise: bytes, seed: int, shaken: bool
) -> None:
    """Noise, or an honest conversation with some bytes changed; then an honest client is served.

    The server's last resort, closing a connection for an error of its own, counts as a crash.
    """
    crashes: list[logging.LogRecord] = []
    witness = logging.Handler(logging.ERROR)
    witness.emit = crashes.append  # type: ignore[assignment, method-assign]

    async def attack() -> None:
        rng = random.Random(seed)
        async with running(Limits(max_message=1000, handshake_seconds=10)) as server:
            async with peer(server, shaken=False) as bad:
                if shaken:
                    bad.raw(HANDSHAKE)
                    await until(lambda: bool(server.connections))
                    await bad.authorize(server)
                    for frame in conversation():
                        bad.raw(corrupt(frame, rng) if rng.random() < 0.4 else frame)
                bad.raw(noise)
                bad.writer.write_eof()
                assert await bad.closed()
            await until(lambda: not server.connections)
            assert server.broker.queue("q").consumers == []
            async with peer(server) as good:
                await good.authorize(server)
                await good.attach("q", receiver=False)
                good.send(p.Transfer(0, 0, b"t", 0), encoded(b"good"))
                disposition = await good.expect(p.Disposition)
                assert disposition.state.descriptor == p.ACCEPTED

    logging.getLogger("local.servicebus").addHandler(witness)
    try:
        asyncio.run(attack())
    finally:
        logging.getLogger("local.servicebus").removeHandler(witness)
    assert [record.exc_text or record.getMessage() for record in crashes] == []
