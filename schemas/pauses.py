"""When a job was paused, and when it went on."""

from typing import Literal

from pydantic import Field

from schemas.versions import Kept, Word


class PauseChange(Kept):
    """That a job was paused, or that one that was went on."""

    at: float = Field(description="seconds since the epoch")
    paused: bool
    reason: Literal["budget"] | Word | None = Field(
        default=None, description="what it waits for, where nobody has paused it by hand"
    )
