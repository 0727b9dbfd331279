"""HTTP as bytes, spoiled in ways that no client can be made to send, and how it is answered."""

import asyncio
import json
from collections.abc import Callable
from random import Random

from tests.api.hostile import FORM, FORM_TYPE, is_refusal

DEADLINE_SECONDS = 30.0
Headers = list[tuple[str, str]]
# Without its last boundary: whatever becomes of the headers, it is no file.
_CUT = FORM[: -len(b"\r\n--B--\r\n")]
_TYPES = (FORM_TYPE, "multipart/form-data; boundary=C", "application/json", "text/plain")
_PATHS = ("/v1/files", "/v1/batches", "/v1/uploads", "/openai/files", "/v1/nowhere")


def spoiled(rng: Random, host: str, key: str) -> tuple[bytes, bool]:
    """A request that is wrong for certain, with a key that is right; whether it has an end."""
    kind = rng.choice(KINDS)
    headers = [("Host", host), ("Authorization", f"Bearer {key}"), ("Connection", "close")]
    return kind(rng, headers), kind is not _unfinished


def _bytes(headers: Headers, body: bytes, line: str) -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{line}\r\n{head}\r\n".encode("latin-1") + body


def _post(rng: Random, headers: Headers, body: bytes = _CUT) -> bytes:
    return _bytes(headers, body, f"POST {rng.choice(_PATHS)} HTTP/1.1")


def _twice(rng: Random, headers: Headers) -> bytes:
    """Headers of which HTTP allows one, two times."""
    more = [
        ("Content-Length", str(len(_CUT))),
        *(("Content-Type", rng.choice(_TYPES)) for _ in range(2)),
        (rng.choice(("Host", "Content-Type", "Transfer-Encoding")), "other"),
    ]
    rng.shuffle(more)
    return _post(rng, [*headers, *more])


def _repeated(rng: Random, headers: Headers) -> bytes:
    """Headers that the server takes twice, and the doors have to make sense of."""
    names = ("Authorization", "api-key", "Idempotency-Key", "x-stainless-retry-count", "client-ip")
    values = ("", "Bearer wrong", "Basic YXBw", "1", "-1", "\xff", "x" * 3000)
    more = [(rng.choice(names), rng.choice(values)) for _ in range(rng.randint(2, 8))]
    more += [("Content-Type", FORM_TYPE), ("Content-Length", str(len(_CUT)))]
    more += headers
    rng.shuffle(more)
    return _post(rng, more)


def _two_lengths(rng: Random, headers: Headers) -> bytes:
    lengths = [str(len(_CUT)), rng.choice(("0", "7", str(len(_CUT) + 9), "-1", "x"))]
    rng.shuffle(lengths)
    more = [("Content-Type", FORM_TYPE), *(("Content-Length", each) for each in lengths)]
    return _post(rng, headers + more)


def _wrong_length(rng: Random, headers: Headers) -> bytes:
    length = rng.choice(
        ("-1", "+5", "1e3", "0x10", "5, 5", "5 5", "", "٣".encode().decode("latin-1"))
    )
    return _post(rng, [*headers, ("Content-Type", FORM_TYPE), ("Content-Length", length)])


def _too_short(rng: Random, headers: Headers) -> bytes:
    """What is behind the body's end is no request."""
    length = str(rng.randint(0, len(_CUT) - 1))
    return _post(rng, [*headers, ("Content-Type", FORM_TYPE), ("Content-Length", length)])


def _unfinished(rng: Random, headers: Headers) -> bytes:
    """The caller hangs up before the body's end."""
    length = ("Content-Length", str(len(_CUT) + rng.choice((1, 100, 10**6))))
    in_chunks = ("Transfer-Encoding", "chunked")
    more = [("Content-Type", FORM_TYPE), rng.choice((length, in_chunks))]
    return _post(rng, headers + more, _CUT if length in more else b"ffff\r\n" + _CUT)


def _chunks(rng: Random, headers: Headers) -> bytes:
    """A body in chunks, which Functions' host loses, with a length beside it or chunks awry."""
    whole = f"{len(_CUT):x}\r\n".encode() + _CUT + b"\r\n0\r\n\r\n"
    body = rng.choice((whole, b"zz\r\n" + _CUT, b"-5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n"))
    if rng.random() < 0.3:
        chunked = ("Transfer-Encoding", "chunked")
        return _post(rng, [*headers, ("Content-Type", FORM_TYPE), chunked], whole)
    coding = rng.choice(("chunked", "gzip", "chunked, chunked", "identity", "chunked, gzip"))
    more = [("Content-Type", FORM_TYPE), ("Transfer-Encoding", coding)]
    if rng.random() < 0.5:
        more.append(("Content-Length", str(len(body))))
    return _post(rng, headers + more, body)


def _awry_header(rng: Random, headers: Headers) -> bytes:
    wrong = rng.choice(
        (
            "no colon",
            " folded: x",
            "Name : x",
            "N\x00me: x",
            "X: a\x00b",
            ": x",
            "X\xff: y",
            "(x): y",
        )
    )
    told = _bytes([*headers, ("Content-Length", "0")], b"", "POST /v1/batches HTTP/1.1")
    return told.replace(b"\r\n", b"\r\n" + wrong.encode("latin-1") + b"\r\n", 1)


def _awry_line(rng: Random, headers: Headers) -> bytes:
    line = rng.choice(
        (
            "GET /v1/nowhere HTTP/9.9",
            "GET /v1/nowhere",
            "GET  /v1/nowhere HTTP/1.1",
            "G\x00T /v1/files HTTP/1.1",
            "get /v1/nowhere HTTP/1.1",
            "GET http://[::1/v1/nowhere HTTP/1.1",
            "GET http://elsewhere.invalid/v1/nowhere HTTP/1.1",
            "GET /v1/\xff\xfe HTTP/1.1",
            "GET /v1/no\x0bwhere HTTP/1.1",
            "GET v1/nowhere HTTP/1.1",
            "CONNECT elsewhere.invalid:443 HTTP/1.1",
            "\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        )
    )
    return _bytes(headers, b"", line)


KINDS: tuple[Callable[[Random, Headers], bytes], ...] = (
    *(_twice, _repeated, _repeated, _two_lengths, _wrong_length, _too_short, _unfinished, _chunks),
    *(_awry_header, _awry_line),
)


async def answers_to(data: bytes, host: str, port: int, *, ends: bool) -> bytes:
    """All that is answered before the server hangs up; where data have no end, the caller does."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(data)
            if not ends:
                writer.write_eof()
            return await reader.read()
        except ConnectionError:
            return b""  # it has hung up while there was more to send
        finally:
            writer.close()


def wrong_with(answer: bytes) -> str | None:
    """What is wrong with an answer, if anything is: each is a refusal, in JSON where it is ours.

    What no server can understand may be left without an answer.
    """
    if not answer:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *headers = head.decode("latin-1").split("\r\n")
    status = int(line.split(" ")[1])
    ours = any(each.lower().startswith("x-request-id:") for each in headers)
    if not 400 <= status < 500:
        return f"it is answered {status}"
    length = next(int(each[15:]) for each in headers if each.lower().startswith("content-length:"))
    if ours and not is_refusal(status, json.loads(body[:length])):
        return f"it is answered {body[:200]!r}"
    return None
