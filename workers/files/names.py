"""What is called how: ids that clients send, and the files and jobs that they mean."""

import re
from typing import Final, Literal, NamedTuple, cast

from schemas.openai import BATCH_PREFIX

JOB: Final = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{16}"
_BATCH: Final = re.compile(rf"{BATCH_PREFIX}(?P<job>{JOB})")
_FILE: Final = re.compile(
    rf"file-(?:(?P<key>[0-9]{{13}}-[0-9a-f]{{16}})|(?P<job>{JOB})(?:-(?P<part>output|errors))?)"
)
_UPLOAD: Final = re.compile(r"upload_(?P<key>[0-9]{13}-[0-9a-f]{16})")
_PART: Final = re.compile(r"part_(?P<block>[0-9a-f]{32})")
_CONTENT: Final = re.compile(r"[a-z0-9-]+/(?P<key>[0-9]{13}-[0-9a-f]{16})\.jsonl")

ResultPart = Literal["output", "errors"]


class FileId(NamedTuple):
    """What an id of a file means: an uploaded file's key, or a job's input or results."""

    key: str | None = None
    job: str | None = None
    part: ResultPart | None = None


def read_file_id(text: str) -> FileId | None:
    """What an id means; None where it is no file's. Only what this service writes is one."""
    match = _FILE.fullmatch(text)
    if match is None:
        return None
    part = cast("ResultPart | None", match["part"])
    return FileId(match["key"], match["job"], part)


def read_batch_id(text: str) -> str | None:
    """The job that an id of a batch means; None where it is no batch's."""
    match = _BATCH.fullmatch(text)
    return None if match is None else match["job"]


def batch_id(job: str) -> str:
    """The id of a job as a batch."""
    return f"{BATCH_PREFIX}{job}"


def file_id(key: str) -> str:
    """The id of an uploaded file."""
    return f"file-{key}"


def input_id(job: str, door: str, name: str) -> str:
    """The id of a job's input: the uploaded file's, or one made of the job's id."""
    match = _CONTENT.fullmatch(name) if door == "http" else None
    return file_id(match["key"] if match else job)


def upload_id(key: str) -> str:
    """The id of an upload, which has the key of the file that it becomes."""
    return f"upload_{key}"


def read_upload_id(text: str) -> str | None:
    """The key of an upload; None where the id is no upload's."""
    match = _UPLOAD.fullmatch(text)
    return None if match is None else match["key"]


def part_id(block: str) -> str:
    """The id of a part, which is a block of its upload's content."""
    return f"part_{block}"


def read_part_id(text: str) -> str | None:
    """The block that a part is; None where the id is no part's."""
    match = _PART.fullmatch(text)
    return None if match is None else match["block"]


def result_id(job: str, part: ResultPart) -> str:
    """The id of a result file."""
    return f"file-{job}-{part}"


def content_name(tenant: str, key: str) -> str:
    """The blob of an uploaded file's content. Its name says nothing of what the user called it."""
    return f"{tenant}/{key}.jsonl"


def shown_name(filename: str) -> str | None:
    """What users are told of a file by, as they named it: a line of at most 255 characters."""
    shown = "".join(each if each.isprintable() else "_" for each in filename.strip()[:255])
    return shown or None
