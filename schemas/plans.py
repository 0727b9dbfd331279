"""What planning a file comes to: shards, or why its job has to fail."""

from pydantic import BaseModel, ConfigDict, Field

from schemas.jobs import Reason
from schemas.versions import SCHEMA_VERSION, Kept


class LineError(BaseModel):
    """What is wrong with one line of a file. Its message may quote the file's own words."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str
    line: int | None = None


class Verdict(Reason):
    """`jobs/{job}/verdict.json`: why planning found that the job has to fail."""

    schema_version: int = SCHEMA_VERSION
    lines: tuple[LineError, ...] = Field(
        default=(),
        exclude_if=lambda lines: not lines,
        description="the first that are wrong, where that is why",
    )


class PlannedShard(Kept):
    """One line of `jobs/{job}/plan.jsonl`. Offsets and lengths are bytes of the input file."""

    schema_version: int = SCHEMA_VERSION
    shard: int
    offset: int
    length: int
    line: int = Field(description="number of the shard's first line in the file, from 1")
    rows: int
    gaps: bool = Field(default=False, description="whether blank lines lie between its rows")
    duplicates: tuple[int, int] = Field(
        default=(0, 0), description="first and count of its entries in `duplicates`"
    )
