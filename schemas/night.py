"""How far the nightly files have been looked at."""

from pydantic import BaseModel, ConfigDict, Field

from schemas.jobs import SCHEMA_VERSION


class Night(BaseModel):
    """`nightly/{container}.json`: changed only by compare-and-swap. Times are seconds."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = SCHEMA_VERSION
    since: float = Field(
        default=0.0, description="files written before this, since the epoch, were announced"
    )
    began: float | None = Field(default=None, description="when the walk that goes on now began")
    cursor: str = Field(default="", description="the name that it has come to")
    announced: int = Field(default=0, description="files that it has announced")
