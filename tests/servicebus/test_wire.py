"""What passes over a connection, frame by frame, where the SDKs give no choice."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from local.servicebus.broker.message import Message
from local.servicebus.codec import performatives as p

from .peer import HANDSHAKE, condition_of, peer, running
from .support import encoded, until


async def test_a_message_may_come_in_parts_or_be_given_up() -> None:
    async with running() as server, peer(server) as sender:
        await sender.authorize(server)
        await sender.attach("q", receiver=False)
        sender.send(p.Transfer(0, 0, b"t", 0, more=True), b"never finished")
        sender.send(p.Transfer(0, aborted=True))
        data = encoded(b"in parts")
        sender.send(p.Transfer(0, 1, b"t", 0, more=True), data[:5])
        sender.send(p.Transfer(0, more=True), data[5:9])
        sender.send(p.Transfer(0), data[9:])
        disposition = await sender.expect(p.Disposition)
        assert (disposition.first, disposition.state.descriptor) == (1, p.ACCEPTED)
        # No message larger than allowed is ever collected, however many parts it comes in.
        for _ in range(50):
            sender.send(p.Transfer(0, 2, b"t", 0, more=True), bytes(500))
        sender.send(p.Transfer(0), b"")
        disposition = await sender.expect(p.Disposition)
        assert condition_of(disposition.state.value[0]) == "amqp:link:message-size-exceeded"


async def test_a_small_frame_size_and_window_are_kept() -> None:
    async with running() as server, peer(server) as receiver:
        await receiver.authorize(server)
        for connection in server.connections:
            connection.peer_max_frame = 512
        body = bytes(range(200)) * 4
        server.broker.entity("q").accept(Message.parse(encoded(body)))
        await receiver.attach("q", receiver=True)
        receiver.send(p.Flow(None, 1, 0, 100, 0, 0, 10))
        first = await receiver.expect(p.Transfer)
        assert first.more
        assert first.delivery_tag is not None
        second = await receiver.expect(p.Transfer)
        assert second.delivery_id is None


async def test_drain_uses_the_credit_that_it_can_and_drops_the_rest() -> None:
    async with running() as server, peer(server) as receiver:
        await receiver.authorize(server)
        for body in (b"1", b"2"):
            server.broker.entity("q").accept(Message.parse(encoded(body)))
        await receiver.attach("q", receiver=True)
        receiver.send(p.Flow(None, 100, 0, 100, 0, 0, 5, None, True))
        numbers = [(await receiver.expect(p.Transfer)).delivery_id for _ in range(2)]
        assert numbers[1] == numbers[0] + 1
        flow = await receiver.expect(p.Flow)
        assert (flow.link_credit, flow.delivery_count, flow.drain) == (0, 5, True)
        server.broker.entity("q").accept(Message.parse(encoded(b"3")))
        server.wake()
        receiver.send(p.Flow(None, 100, 0, 100, 0, 5, 0, echo=True))
        flow = await receiver.expect(p.Flow)
        assert (flow.link_credit, flow.delivery_count) == (0, 5)
        receiver.send(p.Flow(None, 100, 0, 100, 0, 5, 1))
        assert await receiver.expect(p.Transfer)


async def test_delivery_numbers_mean_nothing_on_another_connection() -> None:
    async with running() as server:
        numbers = []
        for _ in range(2):
            async with peer(server) as receiver:
                await receiver.authorize(server)
                server.broker.entity("q").accept(Message.parse(encoded(b"m")))
                await receiver.attach("q", receiver=True)
                receiver.send(p.Flow(None, 100, 0, 100, 0, 0, 1))
                numbers.append((await receiver.expect(p.Transfer)).delivery_id)
        assert abs(numbers[0] - numbers[1]) > 1


async def test_several_deliveries_are_settled_at_once() -> None:
    async with running() as server, peer(server) as receiver:
        await receiver.authorize(server)
        for _ in range(3):
            server.broker.entity("q").accept(Message.parse(encoded(b"m")))
        await receiver.attach("q", receiver=True)
        receiver.send(p.Flow(None, 100, 0, 100, 0, 0, 3))
        first, _, last = [(await receiver.expect(p.Transfer)).delivery_id for _ in range(3)]
        receiver.send(p.Disposition(True, first, last, False, p.outcome(p.ACCEPTED)))
        confirmed = [(await receiver.expect(p.Disposition)).first for _ in range(3)]
        assert confirmed == [first, first + 1, last]
        assert server.broker.queue("q").messages == {}


async def test_a_client_that_wants_to_hear_something_does() -> None:
    async with running() as server, peer(server, shaken=False) as client:
        client.raw(HANDSHAKE[: HANDSHAKE.index(p.AMQP_HEADER)])
        client.raw(p.AMQP_HEADER)
        client.send(p.Open("test", idle_timeout_ms=100))
        async with asyncio.timeout(5):
            while p.frame(0, b"") not in await client.reader.read(65536):
                pass


async def test_a_client_closes_its_link_its_session_and_its_connection() -> None:
    async with running() as server, peer(server) as client:
        await client.authorize(server)
        await client.attach("q", receiver=True)
        client.send(p.Detach(0, True))
        assert (await client.expect(p.Detach)).closed
        assert server.broker.queue("q").consumers == []
        client.send(p.End())
        assert await client.expect(p.End) == p.End()
        client.send(p.Close())
        assert await client.expect(p.Close) == p.Close()
        assert await client.closed()


async def test_an_answer_is_written_after_the_commit_also_on_a_closing_connection(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data.sqlite"
    async with running(data=data) as server, peer(server) as sender:
        await sender.authorize(server)
        await sender.attach("q", receiver=False)
        sender.send(p.Transfer(0, 0, b"t", 0), encoded(b"m"))
        sender.raw(b"\x00" * 8)
        disposition = await sender.expect(p.Disposition)
        assert disposition.state.descriptor == p.ACCEPTED
        assert condition_of((await sender.expect(p.Close)).error).endswith("framing-error")
    with sqlite3.connect(data) as database:
        assert database.execute("SELECT count(*) FROM message").fetchone() == (1,)


async def send_to_a_broken_store(data: Path) -> None:
    async with running(data=data) as server, peer(server) as sender:
        await sender.authorize(server)
        await sender.attach("q", receiver=False)
        assert server._store is not None
        server._store._database.close()
        sender.send(p.Transfer(0, 0, b"t", 0), encoded(b"m"))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await sender.expect(p.Disposition)
        assert isinstance(server.failed.exception(), sqlite3.Error)


async def test_what_cannot_be_stored_is_not_acknowledged(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error):
        await send_to_a_broken_store(tmp_path / "data.sqlite")


async def test_nothing_happens_after_the_end(tmp_path: Path) -> None:
    """A test's event loop lives on after its broker: no timer may find the store closed."""
    async with running(data=tmp_path / "data.sqlite") as server:
        server.broker.entity("q").accept(Message.parse(encoded(b"m", ttl_ms=200)))
        server.wake()
        await until(lambda: server._timer is not None)
    due = server.broker.next_due()
    assert due is not None
    await until(lambda: server.now() > due + 50)
    assert len(server.broker.queue("q").messages) == 1
    assert not server.failed.done()
