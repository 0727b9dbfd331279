"""What is stored of files that came over HTTP, and of what is to be forgotten at a time."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.messages import JobId
from schemas.tenants import TenantName
from schemas.versions import Kept

# No earlier release knows these documents.
FILES_VERSION = 2
_LATEST_MS = 9_999_999_999_999

FileKey = Annotated[str, Field(pattern=r"^[0-9]{13}-[0-9a-f]{16}$")]
"""13 digits of inverted milliseconds and 16 of chance: keys sort newest first."""


class _FileDocument(Kept):
    schema_version: int = FILES_VERSION


class FileRecord(_FileDocument):
    """`files/{tenant}/{key}`: a file that was uploaded; it stands while the file can be named.

    Its content is another blob, in the container of the setting `FILES_CONTAINER`.
    """

    key: FileKey
    tenant: TenantName
    filename: str
    purpose: str
    bytes: int
    etag: str = Field(description="of the content")
    created: float = Field(description="seconds since the epoch")
    expires: float | None = Field(default=None, description="seconds since the epoch")


class UploadRecord(_FileDocument):
    """`uploads/{tenant}/{key}`: an upload, whose key is that of the file that it becomes."""

    key: FileKey
    tenant: TenantName
    filename: str
    purpose: str
    bytes: int = Field(description="that the parts have to come to")
    created: float = Field(description="seconds since the epoch")
    expires: float = Field(description="seconds since the epoch")
    kept: float | None = Field(default=None, description="seconds for which the file is kept")
    state: Literal["pending", "completed", "cancelled"] = "pending"
    blocks: tuple[str, ...] = Field(default=(), description="of which the file is made, in order")
    md5: str | None = Field(default=None, description="that the file has to have, in hexadecimal")


class Creation(_FileDocument):
    """`creations/{tenant}/{digest}`: which job the latest request of its kind has made.

    The digest is that of an Idempotency-Key, or of an API key's name and the request.
    """

    job: JobId
    request: str = Field(description="SHA-256 of the body")
    nonce: str = Field(description="what tells the job from others of the same file and options")
    created: float = Field(description="seconds since the epoch")


DueKind = Literal["file", "content", "output", "errors", "creation", "upload"]


class Due(_FileDocument):
    """`due/{13 digits of ms}-{digest}`: what is to be forgotten at a time, the earliest first."""

    kind: DueKind
    tenant: TenantName
    name: str = Field(description="a file's key, a job's id, or a creation's digest")
    at: float = Field(description="seconds since the epoch")


def file_key(created: float, chance: int) -> str:
    """The key of a file made at a time (seconds since the epoch), with 64 bits of chance."""
    return f"{_LATEST_MS - round(created * 1000):013d}-{chance:016x}"


def due_name(due: Due) -> str:
    """The name of a document below `due/`, the same for the same thing at the same time."""
    return f"{round(due.at * 1000):013d}-{due.kind}-{due.tenant}-{due.name}"
