"""How far the files of a container have been looked at."""

from pydantic import Field

from schemas.versions import SCHEMA_VERSION, Kept


class Walk(Kept):
    """`nightly/{container}.json`, `drops/{container}.json`: changed only by compare-and-swap.

    Times are seconds.
    """

    schema_version: int = SCHEMA_VERSION
    since: float = Field(
        default=0.0, description="files written before this, since the epoch, were looked at"
    )
    began: float | None = Field(default=None, description="when the walk that goes on now began")
    cursor: str = Field(default="", description="the name that it has come to")
    announced: int = Field(default=0, description="files that it has announced")
