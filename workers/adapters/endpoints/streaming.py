"""What do the pieces of a streamed completion make together, and did it end? No I/O.

Server-sent events as the WHATWG HTML standard defines them, with the chunks of the OpenAI API.
A stream is whole when `[DONE]` came, or when each choice that was asked for has a finish_reason:
some servers send no `[DONE]`. Anything else was cut off.
"""

from collections.abc import Iterator
from typing import Any

import orjson

_LONGEST_LINE = 4 * 1024 * 1024
_JOINED = ("content", "refusal", "reasoning_content", "reasoning")
_NOT_OF_THE_WHOLE = frozenset({"choices", "object", "obfuscation"})


class Malformed(Exception):
    """The stream is not one of completion chunks."""


class EventLines:
    """A parser of server-sent events: bytes go in, the `data` of each event comes out."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of the events that this piece completes. Raises `Malformed` at a huge line."""
        lines = (self._rest + piece).splitlines(keepends=True)
        self._rest = b""
        if lines and not lines[-1].endswith(b"\n"):
            self._rest = lines.pop()
            if len(self._rest) > _LONGEST_LINE:
                raise Malformed
        for line in lines:
            yield from self._line(line.rstrip(b"\r\n"))

    def flush(self) -> Iterator[bytes]:
        """The data of a last event that no empty line followed."""
        rest, self._rest = self._rest, b""
        yield from self._line(rest)
        yield from self._line(b"")

    def _line(self, line: bytes) -> Iterator[bytes]:
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif not line and self._data:
            data, self._data = b"\n".join(self._data), []
            yield data


class Fold:
    """Chunks of one completion, folded into the answer that would have come in one piece.

    `expected` is how many choices were asked for.
    """

    def __init__(self, expected: int = 1) -> None:
        self._expected = expected
        self._events = EventLines()
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._done = False
        self.error: dict[str, Any] | None = None

    def feed(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises `Malformed` where they are no chunks of a completion.
        """
        for data in self._events.feed(piece):
            self._event(data)

    def close(self) -> None:
        """The bytes have ended in an orderly way. An event cut in half is left out."""
        for data in self._events.flush():
            try:
                self._event(data)
            except Malformed:
                return

    @property
    def whole(self) -> bool:
        """Whether the completion came to its end."""
        ended = sum(bool(each.get("finish_reason")) for each in self._choices.values())
        return bool(self._choices) and (
            self._done or ended >= max(self._expected, len(self._choices))
        )

    def body(self) -> dict[str, Any]:
        """The folded answer, `chat.completion` or `text_completion`."""
        choices = [_plain(self._choices[index]) for index in sorted(self._choices)]
        chat = any("message" in each for each in choices)
        kind = "chat.completion" if chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices}

    def _event(self, data: bytes) -> None:
        if data.strip() == b"[DONE]":
            self._done = True
            return
        if self._done or self.error is not None:
            return
        try:
            chunk = orjson.loads(data)
        except ValueError:
            raise Malformed from None
        if not isinstance(chunk, dict):
            raise Malformed
        if "error" in chunk and not chunk.get("choices"):
            self.error = chunk
            return
        self._chunk(chunk)

    def _chunk(self, chunk: dict[str, Any]) -> None:
        for name, value in chunk.items():
            if name not in _NOT_OF_THE_WHOLE and value not in (None, ""):
                self._head[name] = value
        choices = chunk.get("choices") or []
        if not isinstance(choices, list):
            raise Malformed
        for piece in choices:
            if not isinstance(piece, dict):
                raise Malformed
            index = piece.get("index", 0)
            if type(index) is not int:
                raise Malformed
            _add(self._choices.setdefault(index, {"index": index}), piece)


class _Pieces(list[str]):
    """A text that is still coming, told from lists that servers send."""


def _add(choice: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        if name == "delta" and isinstance(value, dict):
            _add_delta(choice.setdefault("message", {"role": "assistant", "content": None}), value)
        elif name == "text" and isinstance(value, str):
            _join(choice, name, value)
        elif name == "logprobs":
            _add_logprobs(choice, value)
        elif name not in ("index", "delta", "message", "text") and value is not None:
            choice[name] = value
    choice.setdefault("finish_reason", None)


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            for call in value if isinstance(value, list) else ():
                _add_tool_call(message.setdefault(name, {}), call)
        elif name in _JOINED and isinstance(value, str):
            _join(message, name, value)
        elif name in _JOINED and isinstance(value, list):
            _extend(message, name, value)
        elif value not in (None, ""):
            message[name] = value


def _join(into: dict[str, Any], name: str, text: str) -> None:
    known = into.get(name)
    if isinstance(known, _Pieces):
        known.append(text)
    elif isinstance(known, list):
        raise Malformed  # texts and lists of parts, in one answer
    else:
        into[name] = _Pieces([text])


def _extend(into: dict[str, Any], name: str, entries: list[Any]) -> None:
    known = into.get(name)
    if isinstance(known, _Pieces) and not any(known):
        known = None  # an empty text opens many streams
    if known is not None and (isinstance(known, _Pieces) or not isinstance(known, list)):
        raise Malformed
    into[name] = [*(known or []), *entries]


def _add_tool_call(calls: dict[int, dict[str, Any]], piece: Any) -> None:
    if not isinstance(piece, dict) or type(piece.get("index", 0)) is not int:
        raise Malformed
    call = calls.setdefault(piece.get("index", 0), {})
    for name, value in piece.items():
        if name == "function":
            function = call.setdefault(name, {"name": "", "arguments": ""})
            for part in ("name", "arguments") if isinstance(value, dict) else ():
                text = value.get(part) or ""
                if not isinstance(text, str):
                    raise Malformed
                function[part] += text
        elif name != "index" and value not in (None, ""):
            call[name] = value


def _add_logprobs(choice: dict[str, Any], value: Any) -> None:
    """Token lists grow; both the chat form and the older one are objects of lists."""
    known = choice.setdefault("logprobs", None)
    if not isinstance(value, dict):
        return
    if known is None:
        known = choice["logprobs"] = {}
    for name, entries in value.items():
        if isinstance(entries, list):
            _extend(known, name, entries)
        else:
            known.setdefault(name, entries)


def _plain(choice: dict[str, Any]) -> dict[str, Any]:
    """Pieces become texts; tool calls become a list."""
    plain = {name: _text(value) for name, value in choice.items()}
    if "message" in plain:
        message = {name: _text(value) for name, value in plain["message"].items()}
        if "tool_calls" in message:
            calls = message["tool_calls"]
            message["tool_calls"] = [calls[index] for index in sorted(calls)]
        plain["message"] = message
    return plain


def _text(value: Any) -> Any:
    return "".join(value) if isinstance(value, _Pieces) else value
