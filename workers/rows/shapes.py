"""What usual rows look like: types by which msgspec reads a line and checks it at once.

A field has here the values that are usual, all of which `read_row` takes as they are: those that
the models of `schemas.requests` check are held to no less, and to the others any value is right.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

import orjson
from msgspec import UNSET, Meta, Struct, UnsetType, to_builtins
from msgspec.json import Decoder

from schemas.requests import LONGEST_ID, deeper_than

_LARGEST: Final = 2**53
# Far less than what `read_row` refuses.
_DEEPEST: Final = 50
_Silent = UnsetType | None
_Text = Annotated[str, Meta(min_length=1)]
_Whole = Annotated[int, Meta(ge=1, le=_LARGEST)]
# Of a number that is at least 1 and whole there is one way to write it.
_Id = Annotated[str, Meta(min_length=1, max_length=LONGEST_ID)] | _Whole
_Integer = Annotated[int, Meta(ge=-_LARGEST, le=_LARGEST)]
_Number = _Integer | Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]
_Positive = Annotated[int, Meta(ge=0, le=_LARGEST)] | Annotated[float, Meta(ge=0, le=_LARGEST)]
_Part = Annotated[int, Meta(ge=0, le=1)] | Annotated[float, Meta(ge=0, le=1)]


class _Nested(dict[str, Any]):
    """An object of any form; orjson reads it as the same one."""


class _Body(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """What a row asks for.

    `sizing` are the fields by which the length of its answer goes.
    """

    sizing: ClassVar[tuple[str, ...]] = ()

    model: _Text | UnsetType = UNSET
    user: str | _Silent = UNSET

    @staticmethod
    def bodies(rows: list[Any]) -> list[Any]:
        """What rows ask for: the same objects, or what they hold."""
        return rows

    @staticmethod
    def weighing(bodies: Iterable[Any]) -> list[Any]:
        """Those that may be given more than one answer in words alone."""
        return []

    def asked(self) -> dict[str, Any]:
        """The body that `read_row` makes of it, but for what the job's options add."""
        asked: dict[str, Any] = to_builtins(self)
        return asked


class _Generation(_Body):
    sizing: ClassVar = ("max_tokens", "max_completion_tokens", "n", "logprobs", "top_logprobs")

    max_tokens: _Whole | _Silent = UNSET
    max_completion_tokens: _Whole | _Silent = UNSET
    temperature: _Positive | _Silent = UNSET
    top_p: _Part | _Silent = UNSET
    seed: _Integer | _Silent = UNSET
    stop: str | list[str] | _Silent = UNSET
    presence_penalty: _Number | _Silent = UNSET
    frequency_penalty: _Number | _Silent = UNSET
    repetition_penalty: _Number | _Silent = UNSET
    top_k: _Integer | _Silent = UNSET
    min_p: _Number | _Silent = UNSET
    n: Annotated[int, Meta(ge=1, le=128)] | _Silent = UNSET
    logprobs: bool | _Silent = UNSET
    top_logprobs: _Integer | _Silent = UNSET
    stream: bool | _Silent = UNSET
    response_format: _Nested | _Silent = UNSET

    @staticmethod
    def weighing(bodies: Iterable[Any]) -> list[Any]:
        return [body for body in bodies if body.n or body.logprobs]


class _Turn(Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: _Text


class _Chat(_Generation, kw_only=True):
    messages: Annotated[list[_Turn], Meta(min_length=1)]

    @staticmethod
    def blank(bodies: Iterable[Any]) -> list[Any]:
        """Those that hold a text of nothing but blanks."""
        return [body for body in bodies for turn in body.messages if turn.content.isspace()]


class _Prompt(_Generation, kw_only=True):
    prompt: _Text
    custom_id: _Id = ""
    id: _Id = ""
    prompt_id: _Id = ""

    def asked(self) -> dict[str, Any]:
        asked = _unnamed(self)
        asked["messages"] = [{"role": "user", "content": asked.pop("prompt")}]
        return asked

    @staticmethod
    def blank(bodies: Iterable[Any]) -> list[Any]:
        return [body for body in bodies if body.prompt.isspace()]


class _Embedding(_Body, kw_only=True):
    sizing: ClassVar = ("dimensions", "encoding_format")

    input: _Text
    dimensions: _Whole | _Silent = UNSET
    encoding_format: str | _Silent = UNSET
    input_type: str | _Silent = UNSET

    @staticmethod
    def blank(bodies: Iterable[Any]) -> list[Any]:
        return [body for body in bodies if body.input.isspace()]


class _BareChat(_Chat, kw_only=True):
    custom_id: _Id = ""
    id: _Id = ""
    prompt_id: _Id = ""

    def asked(self) -> dict[str, Any]:
        return _unnamed(self)


class _BareEmbedding(_Embedding, kw_only=True):
    custom_id: _Id = ""
    id: _Id = ""
    prompt_id: _Id = ""

    def asked(self) -> dict[str, Any]:
        return _unnamed(self)


def _unnamed(body: _Body) -> dict[str, Any]:
    """What a row asks for that has its ids beside it."""
    asked: dict[str, Any] = to_builtins(body)
    del asked["custom_id"], asked["id"], asked["prompt_id"]
    return asked


class _BatchRow(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    custom_id: _Id = ""
    id: _Id = ""
    prompt_id: _Id = ""
    method: Literal["POST"] = "POST"

    @staticmethod
    def bodies(rows: list[Any]) -> list[Any]:
        return [row.body for row in rows]


class _ChatRow(_BatchRow, kw_only=True):
    url: Literal["/v1/chat/completions", "/chat/completions"]
    body: _Chat


class _EmbeddingRow(_BatchRow, kw_only=True):
    url: Literal["/v1/embeddings", "/embeddings"]
    body: _Embedding


UsualBody = _Chat | _Prompt | _Embedding
UsualRow = _ChatRow | _EmbeddingRow | _BareChat | _Prompt | _BareEmbedding
# Each shape with a field that it has in every row, and with the least that its rows say, beside
# what a job with a cap may want to have said.
SHAPES: Final[Sequence[tuple[type[UsualRow], bytes, bytes]]] = (
    (
        _ChatRow,
        b'"messages"',
        b'{"url":"/chat/completions","body":{%b"messages":[{"role":"user","content":"?"}]}}',
    ),
    (_Prompt, b'"prompt"', b'{%b"prompt":"?"}'),
    (_BareChat, b'"messages"', b'{%b"messages":[{"role":"user","content":"?"}]}'),
    (_EmbeddingRow, b'"input"', b'{"url":"/embeddings","body":{%b"input":"?"}}'),
    (_BareEmbedding, b'"input"', b'{%b"input":"?"}'),
)
LIMIT: Final = b'"max_tokens":1,'


def decoder(shape: type[UsualRow]) -> Decoder[UsualRow]:
    """Reads lines as rows of a shape. Raises ValueError or RecursionError for any other."""
    return Decoder(shape, dec_hook=_nested)


def _nested(_: type, value: Any) -> _Nested:
    if type(value) is not dict or deeper_than(value, _DEEPEST):
        raise ValueError
    # Beyond 64 bits it takes an integer for another number.
    orjson.dumps(value)
    return _Nested(value)
