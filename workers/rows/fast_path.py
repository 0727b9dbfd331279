"""The rows that most files consist of, read as fast as a scan of a large file needs it.

Plain chats in batch rows. msgspec reads and checks them in a sixth of the time that orjson and the
models take. What it accepts, `read_row` accepts as the same request; whatever else there is ends
the run, for `read_row` to judge.
"""

from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder

_LARGEST = 2**53


class _ChatTurn(Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str, Meta(min_length=1)]


class _Body(Struct, forbid_unknown_fields=True, gc=False):
    model: Annotated[str, Meta(min_length=1)]
    messages: Annotated[list[_ChatTurn], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1, le=_LARGEST)] = 1
    temperature: Annotated[float, Meta(ge=0, le=_LARGEST)] = 0.0


class _Row(Struct, forbid_unknown_fields=True, gc=False):
    """A batch row whose body is a plain chat that names its model."""

    custom_id: Annotated[str, Meta(min_length=1, max_length=512)]
    url: Literal["/v1/chat/completions", "/chat/completions"]
    body: _Body
    method: Literal["POST"] = "POST"


_decode = Decoder(_Row).decode


class Usual(NamedTuple):
    """What a scan keeps of usual rows that follow each other, row by row."""

    custom_ids: list[str]
    models: list[str]


def read_usual(lines: Iterable[bytes]) -> Usual:
    """The usual rows with which lines begin. The next one, which is none, is used up as well."""
    usual = Usual([], [])
    note_id, note_model = usual.custom_ids.append, usual.models.append
    try:
        for line in lines:
            row = _decode(line)
            body = row.body
            for turn in body.messages:
                if turn.content.isspace():
                    return usual
            note_id(row.custom_id)
            note_model(body.model)
    except (DecodeError, UnicodeDecodeError):
        return usual
    return usual
