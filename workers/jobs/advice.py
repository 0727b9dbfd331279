"""What to do about rows that ended with an error, by its code."""

from collections.abc import Mapping
from typing import Final, get_args

from schemas.history import ErrorCount
from schemas.jobs import Ending
from schemas.results import CodeCount
from workers.rows.reasons import ADVICE, CRASHED, DUPLICATE, default_reason
from workers.rows.writing import OTHER

_USUAL: Final = "what is wrong, and what to do, stands in the message of each such line"
_WHOLE: Final = "the whole job failed for this: its reason says what to do"
_OF_CODE: Final[Mapping[str, str]] = {
    **ADVICE,
    CRASHED.code: CRASHED.message,
    "duplicate_custom_id": DUPLICATE,
    "budget_exceeded": "the job's cap left no room for them: drop errors.jsonl again with a new "
    "max_cost or max_total_tokens; a lower max_tokens makes room for more",
    OTHER: "the rarest codes, counted together: look at errors.jsonl",
    **{reason.code: reason.message for reason in map(default_reason, get_args(Ending))},
}


def advised(
    codes: Mapping[str, CodeCount], *, failed_for: str | None = None
) -> tuple[ErrorCount, ...]:
    """Rows by code with what to do, the most frequent first.

    Where the job failed as a whole for such a code, its reason says that.
    """
    ordered = sorted(codes.items(), key=lambda each: (-each[1].rows, each[0]))
    return tuple(
        ErrorCount(
            **{**count.model_dump(), "code": code, "advice": _advice(code, failed_for)},
        )
        for code, count in ordered
    )


def _advice(code: str, failed_for: str | None) -> str:
    return _WHOLE if code == failed_for else _OF_CODE.get(code) or _USUAL
