"""What to do about rows that ended with an error, by its code."""

from collections.abc import Mapping
from typing import Final, get_args

from schemas.history import ErrorCount
from schemas.jobs import Ending
from schemas.results import CodeCount
from workers.rows.reasons import ADVICE, CRASHED, DUPLICATE, default_reason
from workers.rows.writing import OTHER

_USUAL: Final = "what is wrong, and what to do, stands in the message of each such line"
_OF_CODE: Final[Mapping[str, str]] = {
    **ADVICE,
    CRASHED.code: CRASHED.message,
    "duplicate_custom_id": DUPLICATE,
    "budget_exceeded": "the job's cap left no room for them: drop errors.jsonl again with a new "
    "max_cost or max_total_tokens; a lower max_tokens makes room for more",
    OTHER: "the rarest codes, counted together: look at errors.jsonl",
    **{reason.code: reason.message for reason in map(default_reason, get_args(Ending))},
}


def advised(codes: Mapping[str, CodeCount]) -> tuple[ErrorCount, ...]:
    """Rows by code with what to do, the most frequent first."""
    ordered = sorted(codes.items(), key=lambda each: (-each[1].rows, each[0]))
    return tuple(
        ErrorCount(
            **{**count.model_dump(), "code": code, "advice": _OF_CODE.get(code) or _USUAL},
        )
        for code, count in ordered
    )
