"""What a job leaves behind: output rows, error rows, the manifest."""

from dataclasses import dataclass
from typing import Literal

from schemas.outcomes import OutcomeKind

WaitReason = Literal["quota", "concurrency", "throttled", "outage", "day"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call made for a row. Times are seconds; `waited` is the time before it was admitted."""

    deployment: str
    kind: OutcomeKind
    status: int | None
    waited: float
    waited_for: WaitReason | None
    seconds: float
    tokens: int
    billed: bool
