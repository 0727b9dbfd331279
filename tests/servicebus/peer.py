"""A client that speaks AMQP frame by frame, so that a test can say anything."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from local.servicebus import Limits, Server, serve
from local.servicebus.broker.message import Message
from local.servicebus.codec import performatives as p
from local.servicebus.codec import values as v

from .support import namespace, queue, subscription, topic

CONFIG = namespace(
    queue("q"),
    queue("sessions", RequiresSession=True),
    topics=(topic("t", subscription("s")),),
)
LIMITS = Limits(max_message=1000, handshake_seconds=15)
HANDSHAKE = b"".join(
    (
        p.SASL_HEADER,
        p.frame(0, p.encode_performative(p.SaslInit("ANONYMOUS")), p.SASL_FRAME),
        p.AMQP_HEADER,
        p.frame(0, p.encode_performative(p.Open("test"))),
    )
)


class Peer:
    """A client that sends whatever it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, performative: object, payload: bytes = b"", channel: int = 0) -> None:
        self.raw(p.frame(channel, p.encode_performative(performative) + payload))

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    async def shake_hands(self) -> None:
        self.raw(HANDSHAKE)
        async with asyncio.timeout(15):
            await self.reader.readexactly(8)
            await self._frame()
            await self._frame()
            await self.reader.readexactly(8)
            assert isinstance(await self.next(), p.Open)
            self.send(p.Begin(None, 0, 1000, 1000))
            assert isinstance(await self.next(), p.Begin)

    async def attach(self, path: str, *, receiver: bool, handle: int = 0) -> p.Attach:
        source = v.Described(v.ULong(p.SOURCE), [path if receiver else None])
        target = v.Described(v.ULong(p.TARGET), [None if receiver else path])
        self.send(p.Attach(f"link-{handle}", handle, receiver, 0, 1, source, target, None, None, 0))
        reply: p.Attach = await self.expect(p.Attach)
        return reply

    async def authorize(self, server: Server) -> None:
        """Use the token of a client that knows the key."""
        for connection in server.connections:
            connection.authorized = True

    async def next(self) -> Any:
        return p.decode_performative(await self._frame())[0]

    async def expect(self, kind: Any) -> Any:
        """The next frame of a kind; flows and heartbeats may come before it."""
        async with asyncio.timeout(15):
            while True:
                body = await self._frame()
                if body and isinstance(found := p.decode_performative(body)[0], kind):
                    return found

    async def expect_status(self) -> tuple[int, str]:
        """The status and the error condition of the next reply of a management node."""
        async with asyncio.timeout(15):
            while True:
                body = await self._frame()
                if body and isinstance((found := p.decode_performative(body))[0], p.Transfer):
                    said = Message.parse(found[1]).facts().application
                    return said["statusCode"], said["errorCondition"]

    async def _frame(self) -> bytes:
        header = await self.reader.readexactly(8)
        size = struct.unpack(">I", header[:4])[0]
        return await self.reader.readexactly(size - 8)

    async def closed(self) -> bool:
        """Whether the server closes the connection in time."""
        async with asyncio.timeout(15):
            while await self.reader.read(65536):
                pass
        return True


@asynccontextmanager
async def peer(server: Server, *, shaken: bool = True) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    one = Peer(reader, writer)
    try:
        if shaken:
            await one.shake_hands()
        yield one
    finally:
        writer.close()


@asynccontextmanager
async def running(limits: Limits = LIMITS, data: Path | None = None) -> AsyncIterator[Server]:
    async with serve(CONFIG, limits=limits, data=data) as server:
        yield server


def condition_of(error: v.Described | None) -> str:
    assert error is not None
    return str(error.value[0])
