"""What a job was reckoned to take before anything was asked, to be held against what it took."""

from operator import not_
from typing import NamedTuple

from pydantic import Field

from schemas.money import Amount
from schemas.versions import SCHEMA_VERSION, Kept


class TokenRange(NamedTuple):
    """Tokens at least and at most."""

    least: int
    most: int


class EstimatedCost(Kept):
    """What a job costs at least and at most, at the prices that were pinned with it."""

    currency: str
    least: Amount
    most: Amount


class QuotaBound(Kept):
    """The requests that the same deployments may answer, and what the quotas of those need."""

    deployments: tuple[str, ...]
    requests: int
    seconds: float = Field(
        description="that their quotas of a minute need at least, with `max_tokens` reserved for "
        "each answer that has one"
    )


class JobEstimate(Kept):
    """`jobs/{job}/estimate.json`: made when the file was planned. Ranges are least and most."""

    schema_version: int = SCHEMA_VERSION
    rows: int = Field(description="that can be asked")
    prompt_tokens: TokenRange
    completion_tokens: TokenRange
    seconds: tuple[float, float] | None = Field(
        default=None,
        description="from its start: by its quotas alone, and in their hours as they were shared "
        "then; null where none bounds it, or their hours never meet",
    )
    bounds: tuple[QuotaBound, ...] = Field(
        default=(), exclude_if=not_, description="those of the requests that a quota bounds"
    )
    cost: EstimatedCost | None = Field(default=None, description="null where a price is not known")
    may_cost: Amount | None = Field(
        default=None,
        exclude_if=lambda cost: cost is None,
        description="the most that one call for each row can be billed for: what a job reserves in "
        "its tenant's month where it names no max_cost",
    )
