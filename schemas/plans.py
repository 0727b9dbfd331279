"""What planning a file comes to: shards, or why its job has to fail."""

from pydantic import BaseModel, ConfigDict, Field

from schemas.jobs import SCHEMA_VERSION, Reason


class Verdict(Reason):
    """`jobs/{job}/verdict.json`: why planning found that the job has to fail."""

    schema_version: int = SCHEMA_VERSION


class PlannedShard(BaseModel):
    """One line of `jobs/{job}/plan.jsonl`. Offsets and lengths are bytes of the input file."""

    model_config = ConfigDict(frozen=True)

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
