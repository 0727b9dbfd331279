"""One client's connection: bytes to frames, the handshake, and what ends it."""

import asyncio
import logging
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol, cast
from uuid import uuid4

from ..codec import performatives as p
from ..codec.reading import DecodeError
from ..codec.values import Array, Symbol, Value
from .channel import HANDLE_MAX, Channel
from .context import Services
from .errors import ProtocolError
from .tokens import check_token

_log = logging.getLogger(__name__)

_MECHANISMS = Array([Symbol("ANONYMOUS"), Symbol("MSSBCBS"), Symbol("PLAIN"), Symbol("EXTERNAL")])
_CHANNEL_MAX = 255
_MAX_UNSENT = 1024 * 1024  # bytes of answers, beyond which they are written before others are made
_CLOSING_SECONDS = 10.0  # for a client to read what was written before the connection is closed
_SASL_OK = 0
_WINDOW = 2**31 - 1


class Phase(Enum):
    """What a connection expects next; without SASL it goes from HEADER to OPEN."""

    HEADER = auto()
    SASL = auto()
    AMQP_HEADER = auto()
    OPEN = auto()
    FRAMES = auto()
    CLOSED = auto()


class Listener(Services, Protocol):
    """What a connection needs of the server that accepted it.

    `now` gives milliseconds since the epoch, `key` signs tokens; `connections` are all that are
    open, and `answering` those with something to write at the end of the turn.
    """

    name: str
    key: str
    now: Callable[[], int]
    connections: "set[Connection]"
    answering: "set[Connection]"

    def wake(self) -> None:
        """Ask for a turn after what is being done now."""


class Connection(asyncio.Protocol):
    """What the client sent so far, how far the connection is, and the open channels."""

    def __init__(self, server: Listener) -> None:
        self.server = server
        self.authorized = False
        self.peer_max_frame = 512
        self._channels: dict[int, Channel] = {}
        self._phase = Phase.HEADER
        self._incoming, self._outgoing = bytearray(), bytearray()
        self._heartbeat: asyncio.TimerHandle | None = None
        self._heard = self._paused = self._held_back = False

    # ---------------------------------------------------------------- the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = cast(asyncio.Transport, transport)
        self.server.connections.add(self)
        seconds = self.server.limits.handshake_seconds
        self._watch = self.server.loop.call_later(seconds, self._check_alive)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: its consumers are no longer there."""
        self._phase = Phase.CLOSED
        self.server.connections.discard(self)
        self._watch.cancel()
        if self._heartbeat:
            self._heartbeat.cancel()
        for channel in self._channels.values():
            channel.leave()
        self._channels.clear()
        self.server.wake()

    def pause_writing(self) -> None:
        """The client does not read its answers: no more of its questions are heard till it does."""
        self._paused = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has read its answers: its questions are heard again."""
        self._paused = False
        self._transport.resume_reading()
        self._read()

    def data_received(self, data: bytes) -> None:
        """Work through what has arrived in whole."""
        self._heard = True
        self._incoming += data
        self._read()

    def _read(self) -> None:
        try:
            self._work()
        except ProtocolError as error:
            self._fail(error.condition, str(error))
        except DecodeError as error:
            self._fail("amqp:decode-error", str(error))
        except p.FramingError as error:
            self._fail("amqp:connection:framing-error", str(error))
        except Exception:  # noqa: BLE001 - the top of the loop over what a client sends
            # The last line of defence: whatever a client does, the others go on.
            _log.exception("a connection is closed for an error of the broker")
            self._fail("amqp:internal-error", "the broker failed to handle a frame")
        self.server.wake()

    def _check_alive(self) -> None:
        """Close a connection that stays silent, or does not get through the handshake."""
        if not self._heard or self._phase != Phase.FRAMES:
            self._fail("amqp:resource-limit-exceeded", "nothing was heard for too long")
            return
        self._heard = False
        seconds = 2 * self.server.limits.idle_ms / 1000
        self._watch = self.server.loop.call_later(seconds, self._check_alive)

    def _fail(self, condition: str, description: str) -> None:
        _log.info("closing a connection: %s: %s", condition, description)
        if self._phase == Phase.FRAMES:
            self.send(0, p.Close(p.error(condition, description)))
        self._close()

    def _close(self) -> None:
        """Close the connection once what was queued before is written, at the end of the turn."""
        self._phase = Phase.CLOSED
        self._incoming.clear()
        self._queue(b"")
        self._watch.cancel()
        self._watch = self.server.loop.call_later(_CLOSING_SECONDS, self._transport.abort)

    def abort(self) -> None:
        """Break the connection at once, as a failing network would."""
        self._phase = Phase.CLOSED
        self._outgoing.clear()
        self._transport.abort()

    # ---------------------------------------------------------------- sending

    def send(self, channel: int, performative: object, payload: bytes = b"") -> None:
        """Queue a frame for the end of the turn."""
        self._queue(p.frame(channel, p.encode_performative(performative) + payload))

    def _queue(self, data: bytes) -> None:
        self._outgoing += data
        self.server.answering.add(self)
        self.server.wake()

    def flush(self) -> None:
        """Write what is queued to the socket."""
        if self._outgoing and not self._transport.is_closing():
            self._transport.write(bytes(self._outgoing))
        self._outgoing.clear()
        if self._phase == Phase.CLOSED:
            self._transport.close()
        elif self._held_back and not self._paused:
            self.server.loop.call_soon(self._read)

    def _beat(self, seconds: float) -> None:
        self._queue(p.frame(0, b""))
        self._heartbeat = self.server.loop.call_later(seconds, self._beat, seconds)

    # ---------------------------------------------------------------- receiving

    def _work(self) -> None:
        position = 0
        while self._phase != Phase.CLOSED:
            self._held_back = self._paused or len(self._outgoing) > _MAX_UNSENT
            if self._held_back:
                break
            headers = (Phase.HEADER, Phase.AMQP_HEADER)
            size = self._header(position) if self._phase in headers else self._frame(position)
            if size == 0:
                break
            position += size
        del self._incoming[:position]

    def _header(self, position: int) -> int:
        header = bytes(self._incoming[position : position + 8])
        if len(header) < 8:
            return 0
        if header == p.SASL_HEADER and self._phase == Phase.HEADER:
            mechanisms = p.encode_performative(p.SaslMechanisms(_MECHANISMS))
            self._queue(p.SASL_HEADER + p.frame(0, mechanisms, p.SASL_FRAME))
            self._phase = Phase.SASL
        elif header == p.AMQP_HEADER:
            self._queue(p.AMQP_HEADER)
            self._phase = Phase.OPEN
        else:
            # AMQP 1.0, part 2, 2.2: answer with the header that would do, and close.
            self._queue(p.SASL_HEADER)
            self._close()
        return 8

    def _frame(self, position: int) -> int:
        frame = p.cut_frame(self._incoming, position, self.server.limits.max_frame)
        if frame is None:
            return 0
        if not frame.body:
            return frame.size
        performative, payload = p.decode_performative(frame.body)
        if (frame.kind == p.SASL_FRAME) != (self._phase == Phase.SASL):
            raise ProtocolError(
                "amqp:not-allowed", "a frame came before its place in the handshake"
            )
        if isinstance(performative, p.SaslInit):
            outcome = p.encode_performative(p.SaslOutcome(_SASL_OK))
            self._queue(p.frame(0, outcome, p.SASL_FRAME))
            self._phase = Phase.AMQP_HEADER
        elif isinstance(performative, p.Open) and self._phase == Phase.OPEN:
            self._open(performative)
        elif self._phase != Phase.FRAMES:
            raise ProtocolError("amqp:not-allowed", f"{type(performative).__name__} out of place")
        else:
            self._dispatch(frame.channel, performative, payload)
        return frame.size

    def _open(self, client: p.Open) -> None:
        limits = self.server.limits
        self.peer_max_frame = max(512, min(client.max_frame_size or 2**32, limits.max_frame))
        self.send(
            0,
            p.Open(self.server.name, None, limits.max_frame, _CHANNEL_MAX, limits.idle_ms),
        )
        self._phase = Phase.FRAMES
        if client.idle_timeout_ms:
            self._beat(max(client.idle_timeout_ms, 100) / 2000)

    def _dispatch(self, number: int, performative: p.Performative, payload: bytes) -> None:
        channel = self._channels.get(number)
        if isinstance(performative, p.Close):
            self.send(0, p.Close())
            self._close()
        elif isinstance(performative, p.Begin):
            self._begin(number, performative)
        elif isinstance(performative, p.End):
            if channel is not None:
                channel.leave()
                del self._channels[number]
            self.send(number, p.End())
        elif channel is not None:
            # The Python SDK sends a detach after the end of its session: nobody is there for it.
            channel.receive(performative, payload)

    def _begin(self, number: int, client: p.Begin) -> None:
        if number in self._channels or number > _CHANNEL_MAX:
            raise ProtocolError("amqp:not-allowed", f"channel {number} cannot be begun")
        channel = self._channels[number] = Channel(self, self.server, number, client)
        self.send(number, p.Begin(number, channel.next_outgoing, _WINDOW, _WINDOW, HANDLE_MAX))

    # ---------------------------------------------------------------- requests

    def authorize(self, token: str) -> None:
        """Let the client use the namespace from now on.

        Raises:
            UnauthorizedError: the token is of another kind, expired or signed with another key.
        """
        check_token(token, self.server.key, self.server.now())
        self.authorized = True

    def reply(self, channel: int, node: str, address: Value, data: bytes) -> None:
        """Send an encoded message to the client's receiver on a node that answers requests."""
        own_first = sorted(self._channels.items(), key=lambda item: item[0] != channel)
        links = [link for _, each in own_first for link in each.receivers(node)]
        named = (link for link in links if address is not None and link.target_address == address)
        receiver = next(named, links[0] if links else None)
        if receiver is not None:  # otherwise the client did not want to know
            receiver.send(uuid4().bytes, data)
