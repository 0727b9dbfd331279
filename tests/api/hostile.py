"""Requests that nobody should send: each is wrong for certain, in a way of its own."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from workers.api.openai.operations import ROUTES

SECRET = "a prompt that no log may hold"
LONG = "x" * 2000
IDS = (
    *(
        "..",
        ".",
        "%2e%2e",
        "..%2F..%2Fstate",
        "..\\..",
        "%00",
        "\x00",
        "\u202e",
        "é",
        "'; DROP",
        LONG,
    ),
    *("file-", "batch_", "upload_", "file-1", "batch_20261125T220000Z-0123456789abcdeF"),
    *("file-8235000000000-0123456789abcdef%0A", "file-8235000000000-0123456789abcdef\n"),
    *("file-8235000000000-0123456789abcdef", "upload_8235000000000-0123456789abcdef"),
    *("batch_20261125T220000Z-0123456789abcdef", "file-20261125T220000Z-0123456789abcdef-output"),
    *("FILE-8235000000000-0123456789abcdef", "file-８２３５０００００００００-0123456789abcdef"),
)
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    + json.dumps({"prompt": SECRET}).encode()
    + b"\r\n--B--\r\n"
)
FORM_TYPE = "multipart/form-data; boundary=B"
BATCH = {
    "input_file_id": "file-8235000000000-0123456789abcdef",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
    "metadata": {"about": SECRET},
}


@dataclass
class Request:
    """A request as a host hands it on, but for the key."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def hostile(rng: Random) -> Request:
    """One of them."""
    made = rng.choice(KINDS)(rng)
    made.path = rng.choice(("/v1", "/openai", "/openai/v1")) + made.path
    return made


def _stranger(rng: Random) -> Request:
    route = rng.choice([route for route in ROUTES if "<id>" in route.path.pattern])
    path = route.path.pattern.replace("(?P<id>[^/]+)", rng.choice(IDS))
    path = path.replace("(?P<action>cancel|pause|resume)", rng.choice(("cancel", "pause")))
    body = b'{"part_ids": []}' if "complete" in path else FORM.replace(b'"file"', b'"data"')
    return Request(route.method, path, {}, {"content-type": FORM_TYPE}, body)


def _nowhere(rng: Random) -> Request:
    parts = [
        rng.choice(("files", "batches", "%2e%2e", "..", "", "uploads", LONG, "\udcff", "v1"))
        for _ in range(rng.randint(4, 7))
    ]
    return Request(rng.choice(("GET", "POST", "DELETE", "PUT")), "/" + "/".join(parts))


def _method(rng: Random) -> Request:
    path = rng.choice(("/files", "/batches", "/models", "/uploads"))
    return Request(rng.choice(("PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE")), path)


def _form(rng: Random) -> Request:
    body, kind = FORM, FORM_TYPE
    match rng.randrange(8):
        case 0:
            body = body[: rng.randint(0, len(body) - 6)]
        case 1:
            kind = rng.choice(("multipart/form-data; boundary=C", "multipart/form-data", "", LONG))
        case 2:
            body = bytes(rng.getrandbits(8) for _ in range(rng.randint(0, 300)))
        case 3:
            body = body.replace(
                b'name="file"', rng.choice((b"", b'name="purpose"', b'name="\xff"'))
            )
        case 4:
            body = body.replace(b"batch", rng.choice((b"\xff\xfe", b"party", b"b" * 9000, b"")))
        case 5:
            body = body.replace(b"\r\n\r\n", b"\r\n" + b"X-Much: y\r\n" * 50 + b"\r\n")
        case 6:
            body = body.replace(
                b"Content-Disposition", rng.choice((b"Content Disposition", b":", b"X"))
            )
        case _:
            extra = b'--B\r\nContent-Disposition: form-data; name="expires_after[seconds]"\r\n\r\n'
            body = extra + rng.choice((b"-1", b"1e9", b"9" * 30, b"x")) + b"\r\n" + body
    return Request("POST", "/files", {}, {"content-type": kind}, body)


def _nested(depth: int) -> bytes:
    return b'{"metadata":' * depth + b"1" + b"}" * depth


def _json(rng: Random) -> Request:
    text = json.dumps(BATCH)
    wrong: list[Any] = [None, 7, [], {}, True, "x" * 600, {"a": {"b": []}}, "\u0000", 1e308]
    changed: dict[str, Any] = {**BATCH, rng.choice([*BATCH, "phi3"]): rng.choice(wrong)}
    body = rng.choice(
        (
            text[: rng.randint(0, len(text) - 1)].encode(),
            text.encode("utf-16"),
            text.replace(SECRET, "é").encode("latin-1"),
            _nested(rng.choice((33, 2000, 100_000))),
            b"[" * 100_000,
            f"[{text}]".encode(),
            json.dumps(BATCH | {rng.choice(("stream", "__proto__", "Endpoint")): 1}).encode(),
            # The file is of nobody, so this is no batch either.
            json.dumps(changed).encode(),
            text.replace('"24h"', rng.choice(("NaN", "Infinity", "1e999", '"0s"'))).encode(),
        )
    )
    path = rng.choice(("/batches", "/uploads"))
    return Request("POST", path, {}, {"content-type": "application/json"}, body)


def _query(rng: Random) -> Request:
    name = rng.choice(("limit", "after", "order", "x", "__proto__", "limit[]"))
    value = rng.choice(("-1", "1e3", "٣", " 1", "99999999999", "", "\x00", LONG, "..%2f"))
    return Request("GET", rng.choice(("/batches", "/files")), {name: value})


def _length(rng: Random) -> Request:
    length = rng.choice((str(2**40), "9" * 40, str(200 * 1024 * 1024)))
    headers = {"content-type": FORM_TYPE, "content-length": length}
    return Request("POST", rng.choice(("/files", "/batches")), {}, headers, FORM)


def _key(rng: Random) -> Request:
    key = rng.choice(
        ("", "Bearer", "Bearer ", "Basic YXBw", f"Bearer {LONG}", "Bearer \udcff", "app")
    )
    return Request("GET", "/files", {}, {"authorization": key})


KINDS: tuple[Callable[[Random], Request], ...] = (
    *(_stranger, _nowhere, _method, _form, _json, _query, _length, _key),
)


def is_refusal(code: int, told: Mapping[str, Any]) -> bool:
    """Whether an answer is an error in the form of the OpenAI API, and the caller's fault."""
    error = told.get("error")
    return (
        400 <= code < 500
        and isinstance(error, dict)
        and set(error) == {"message", "type", "param", "code"}
        and isinstance(error["message"], str)
        and error["type"] == "invalid_request_error"
    )
