"""What is asked about a file before it is sent, and told: the bodies of `POST /api/estimate`.

Ranges are least and most.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from schemas.deployments import Task
from schemas.estimates import TokenRange
from schemas.jobs import Priority
from schemas.money import Amount, CapAmount, CostRange

MOST_ASKED: Final = 10**15
"""The most requests of a group, and the most tokens of its prompts or answers."""


def _ends(given: Any) -> Any:
    """Tokens as they are given: a number, or a list of the least and the most."""
    ends = given if isinstance(given, list | tuple) else (given, given)
    plain = len(ends) == 2 and all(type(each) in (int, float) for each in ends)
    if not plain or not 0 <= ends[0] <= ends[1] <= MOST_ASKED:
        raise ValueError("has to be a number from 0 to 10^15, or a list of the least and the most")
    return given if ends is not given else (float(ends[0]), float(ends[1]))


_Tokens = Annotated[float, Field(ge=0, le=MOST_ASKED)]
_TokenEnds = Annotated[
    float | tuple[float, float],
    BeforeValidator(_ends, json_schema_input_type=_Tokens | tuple[_Tokens, _Tokens]),
]


def _pair(given: Any) -> Any:
    # Strict fields take no list for a tuple.
    return tuple(given) if isinstance(given, list) else given


_Pledge = Annotated[int, Field(ge=0, le=MOST_ASKED)]


class _EstimateBody(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class EstimateGroup(_EstimateBody):
    """Requests of one task and model, and the tokens that all of them are reckoned to have."""

    model: str | None = Field(default=None, description="null: the one that the service takes")
    task: Task
    requests: Annotated[int, Field(ge=1, le=MOST_ASKED)]
    prompt_tokens: _TokenEnds = Field(description="one number, or the least and the most")
    answer_tokens: _TokenEnds = Field(description="one number, or the least and the most")
    pledged_tokens: Annotated[tuple[_Pledge, _Pledge] | None, BeforeValidator(_pair)] = Field(
        default=None,
        description="of all prompts and of all answers, for which a cap has to have room before "
        "calls are made; null: not known, and any prompt may be an image",
    )

    def tokens(self, end: int) -> tuple[float, float]:
        """Tokens of prompts and of answers, at least (0) or at most (1)."""
        prompts, answers = (
            each if isinstance(each, tuple) else (each, each)
            for each in (self.prompt_tokens, self.answer_tokens)
        )
        return prompts[end], answers[end]


class EstimateCreate(_EstimateBody):
    """The body of `POST /api/estimate` and `POST /v1/estimate`."""

    requests: Annotated[list[EstimateGroup], Field(min_length=1, max_length=256)]
    priority: Priority = Field(default="normal", description="of the job that would be made")
    max_cost: CapAmount | None = Field(default=None, description="the job's option")
    max_total_tokens: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        default=None, description="the job's option"
    )


Fits = Literal["yes", "no", "perhaps"]


class CapFit(BaseModel):
    """A cap, and whether what a file takes fits it, by its estimate. A cap holds in any case."""

    model_config = ConfigDict(frozen=True)

    cap: Literal["max_cost", "max_total_tokens", "max_cost_per_month"]
    limit: Amount | int = Field(description="an amount, or tokens")
    left: Amount | int | None = Field(
        description="of it for one more job; null where the tenant's month cannot be read"
    )
    fits: Fits = Field(
        description="yes: the most that calls may be pledged for does; no: not even the least "
        "does; perhaps: what lies between, or what nobody knows. In a month it is "
        "what the job reserves that has to fit"
    )
    reason: str | None = Field(
        default=None,
        exclude_if=lambda reason: reason is None,
        description="why a job with this cap would fail whatever it takes",
    )


class Estimate(BaseModel):
    """What a file would take. What deployments really let through is not in it.

    When a file is planned its estimate.json is reckoned by the same. `unserved` are groups that no
    deployment would answer.
    """

    model_config = ConfigDict(frozen=True)

    object: Literal["estimate"] = "estimate"
    requests: int
    prompt_tokens: TokenRange
    completion_tokens: TokenRange = Field(description="the groups' `answer_tokens`")
    seconds: float | None = Field(
        description="that the quotas need at least; null where none bounds it"
    )
    seconds_shared: float | None = Field(
        default=None,
        description="that they need at most, from now on: in their hours, with what this day has "
        "left, and as they are shared with other jobs now",
    )
    job_seconds: tuple[float, float] | None = Field(
        default=None,
        description="of a job from its start, as `seconds` of estimate.json: at most a tenth of "
        "what the quotas allow in a minute is not used, and what begins and ends it takes half a "
        "minute",
    )
    closed_seconds: float | None = Field(
        default=0.0,
        description="from now on, in which nothing that may answer is open: its hours; null where "
        "what may answer a group is never open in the hours of the priority: then no time is told "
        "but `seconds`",
    )
    unserved: tuple[EstimateGroup, ...] = ()
    cost: CostRange | None = Field(
        default=None,
        description="of the fewest tokens at the cheapest of what may answer each group, and of "
        "the most at the dearest; null where one of those has no price",
    )
    caps: tuple[CapFit, ...] = Field(
        default=(), description="those that were asked about, and that of the tenant's month"
    )
