"""What is remembered of how a job went: samples, a line each, at most 1 MB of them."""

from typing import Final

from pydantic import Field

from schemas.money import Amount
from schemas.results import CodeCount, WaitReason
from schemas.versions import SCHEMA_VERSION, Kept, Word

MOST_BYTES: Final = 1024 * 1024
"""What all samples of a job take at most, whatever its length and size (`pace.sample_due`)."""


class Sample(Kept):
    """A line of `jobs/{job}/samples`: how a job stood at a time, in sums since its start.

    Lines may be missing, and one may stand twice: what lies between two is their difference.
    Those of `jobs/{job}/series` are exact, and made of the receipts at the job's end.
    """

    schema_version: int = SCHEMA_VERSION
    at: float = Field(description="seconds since the epoch")
    succeeded: int = 0
    errors: int = Field(default=0, description="rows without an answer")
    running: int = Field(default=0, description="rows done in shards that are not")
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    refusals: int = Field(default=0, description="429s")
    cost: Amount | None = Field(
        default=None, description="by the tokens that endpoints told; null where no price is known"
    )
    waiting: WaitReason | Word | None = Field(default=None, description="what it waited for then")
    latency: tuple[float, ...] = Field(
        default=(),
        description="seconds in which half, 95 and 99 of 100 answers came, in the shard that was "
        "done then; empty where none was",
    )


class ErrorCount(CodeCount):
    """An entry of `GET /api/jobs/{id}/errors`."""

    code: str = Field(description="the error's; `other` are the rarest of more than 32")
    advice: str = Field(description="what to do about such rows")
