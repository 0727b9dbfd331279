"""Forms: what is in them, and what is refused in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.api.http import HttpRefusal
from workers.api.openai.forms import Form, read_form

TYPE = "multipart/form-data; boundary=B"


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--B\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def form(*parts: bytes) -> Form:
    return read_form(TYPE, b"".join(parts) + b"--B--\r\n")


@given(
    data=st.one_of(
        st.binary(), st.lists(st.sampled_from([b"\r\n", b"--B", b"-", b"x"])).map(b"".join)
    )
)
def test_bytes_arrive_as_they_were_sent(data: bytes) -> None:
    if b"\r\n--B" in b"\r\n" + data:
        return  # that is the boundary itself
    read = form(part("purpose", b"batch"), part("file", data, "é%22.jsonl"))
    assert read.fields == {"purpose": "batch"}
    assert (read.files["file"].name, bytes(read.files["file"].data)) == ('é".jsonl', data)


def test_a_file_is_not_copied_out_of_its_body() -> None:
    # A part has up to 100 MiB, and the host holds it more than once already.
    body = part("data", b"x" * 100_000, "upload") + b"--B--\r\n"
    assert read_form(TYPE, body).files["data"].data.obj is body


@pytest.mark.parametrize(
    ("content_type", "body", "said"),
    [
        ("application/json", b"{}", "has to be multipart/form-data"),
        ("multipart/form-data", b"", "has to be multipart/form-data"),
        ("multipart/form-data; boundary=" + "x" * 500, b"", "is not the form"),
        (TYPE, b"", "ends before its last boundary"),
        (TYPE, part("a", b"b"), "ends before its last boundary"),
        (TYPE, b"nothing of the kind", "is not the form"),
        (TYPE, part("a", b"b") * 2 + b"--B--", "has 'a' twice"),
        (TYPE, b"".join(part(str(n), b"") for n in range(17)) + b"--B--", "at most 16 parts"),
        (TYPE, part("a", b"b" * 5000) + b"--B--", "'a' is too long"),
        (TYPE, part("a", b"\xff") + b"--B--", "not UTF-8"),
        (TYPE, b"--B\r\nX: y\r\n\r\nz\r\n--B--", "has no name"),
    ],
)
def test_what_is_no_form_is_told_so(content_type: str, body: bytes, said: str) -> None:
    with pytest.raises(HttpRefusal) as refused:
        read_form(content_type, body)
    assert refused.value.status == 400
    assert said in str(refused.value)
