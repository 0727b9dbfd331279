"""What users remember of what they were answered, and what must hold of it.

A thing whose call was never answered may be there or not, and nothing is said of it.
"""

from dataclasses import dataclass, field
from typing import Literal

Standing = Literal["there", "perhaps", "gone"]

SLACK = 2.0
"""Seconds around an expiry in which a thing may be there or not."""


@dataclass(slots=True)
class KnownFile:
    """An uploaded file that was answered for."""

    id: str
    data: bytes
    standing: Standing = "there"
    expires: float | None = None

    def stands(self, now: float) -> Standing:
        """Whether it may be seen."""
        if self.standing == "gone" or self.expires is None or now < self.expires - SLACK:
            return self.standing
        return "perhaps" if now < self.expires + SLACK else "gone"


@dataclass(slots=True)
class KnownBatch:
    """A batch that was asked for once; it has an id where that was answered."""

    operation: str
    file: KnownFile
    id: str | None = None
    cancelled: bool = False
    results: Standing = "there"


@dataclass(slots=True)
class KnownUpload:
    """An upload that was begun. `file` is what it has become, as far as that was answered.

    A `spoiled` one has another md5 than its content. `cancelled` is "gone" where a cancel was
    granted; `asked` says that it may have been completed.
    """

    id: str
    data: bytes
    md5: str
    spoiled: bool
    begun: float
    parts: list[str] = field(default_factory=list)
    file: KnownFile | None = None
    cancelled: Standing = "there"
    asked: bool = False


@dataclass(slots=True)
class Records:
    """Of one tenant. `sent` are the contents that may have become files without an answer."""

    key: str
    files: list[KnownFile] = field(default_factory=list)
    batches: list[KnownBatch] = field(default_factory=list)
    uploads: list[KnownUpload] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def check(self, holds: object, told: str) -> None:
        """Take note of what does not hold."""
        if not holds:
            self.wrong.append(f"{self.key}: {told}")

    def file(self, file_id: str) -> KnownFile | None:
        """What is known of a file."""
        return next((each for each in self.files if each.id == file_id), None)
