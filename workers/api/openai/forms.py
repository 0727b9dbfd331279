"""What a body of multipart/form-data holds. The parser is python-multipart's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from workers.api.http import HttpRefusal

MOST_PARTS: Final = 16
MOST_FIELD_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class FormFile:
    """The file of a form. `data` lies in the body that it came in, where it can."""

    name: str
    data: memoryview


@dataclass(frozen=True, slots=True)
class Form:
    """A form's fields, and its files by the names of their fields."""

    fields: Mapping[str, str]
    files: Mapping[str, FormFile]


@dataclass(slots=True)
class _Part:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    data: memoryview | bytearray = field(default_factory=bytearray)


class _FormReading:
    """What the parser has told so far."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._name = bytearray()
        self._value = bytearray()

    def begin(self) -> None:
        if len(self.parts) >= MOST_PARTS:
            raise _malformed(f"a form has at most {MOST_PARTS} parts")
        self.parts.append(_Part())

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self.parts[-1].headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def piece(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[-1]
        if not part.data:
            # All there is, in most forms: it lies in the body, and is not copied.
            part.data = memoryview(data)[start:end]
            return
        if isinstance(part.data, memoryview):
            part.data = bytearray(part.data)
        # Not kept as slices: a body may be made of millions of half boundaries.
        part.data += memoryview(data)[start:end]

    def end(self) -> None:
        self.ended = True


def read_form(content_type: str, body: bytes) -> Form:
    """The form in a body. Raises HttpRefusal with 400."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise _malformed("the body has to be multipart/form-data with a boundary")
    reading = _FormReading()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reading.begin,
                "on_part_data": reading.piece,
                "on_header_field": reading.header_name,
                "on_header_value": reading.header_value,
                "on_header_end": reading.header_end,
                "on_end": reading.end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        # Not chained: the parser quotes what it met.
        raise _malformed("the body is not the form that its boundary says") from None
    if not reading.ended:
        raise _malformed("the body ends before its last boundary: send it again")
    return _form(reading.parts)


def _form(parts: list[_Part]) -> Form:
    fields: dict[str, str] = {}
    files: dict[str, FormFile] = {}
    for part in parts:
        kind, options = parse_options_header(part.headers.get(b"content-disposition"))
        name = _text(options.get(b"name", b""))
        if kind != b"form-data" or not name:
            raise _malformed("a part of the form has no name")
        if name in fields or name in files:
            raise _malformed(f"the form has {name[:40]!r} twice", name[:40])
        if b"filename" in options:
            # Browsers and httpx write a quotation mark as %22, and nothing else so.
            filename = _text(options[b"filename"]).replace("%22", '"')
            files[name] = FormFile(filename, memoryview(part.data))
            continue
        if len(part.data) > MOST_FIELD_BYTES:
            raise _malformed(f"the field {name[:40]!r} is too long", name[:40])
        fields[name] = _text(bytes(part.data))
    return Form(fields, files)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _malformed("a name or a field of the form is not UTF-8") from None


def _malformed(message: str, param: str | None = None) -> HttpRefusal:
    return HttpRefusal(400, "invalid_form", message, param=param)
