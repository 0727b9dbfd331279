"""What calls cost. Inside, money is whole millionths of a currency's unit; no float touches it."""

from decimal import Decimal
from operator import not_
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from schemas.versions import Kept
from schemas.wrong_values import AMOUNT_FORM

MILLION: Final = 1_000_000

Amount = Annotated[str, Field(pattern=r"^[0-9]{1,15}(\.[0-9]{1,6})?$")]
"""An amount of money as it is written: digits, and up to six behind a point."""


MOST_AMOUNT: Final = 10**15 * MILLION - 1
"""Millionths in the largest amount that can be written."""

MOST_CAP: Final = MILLION
"""The largest amount that a cap may be: beyond it a sum in the state would not fit 64 bits."""

_CAP_FORM: Final = "has to be an amount such as 12.50, in the currency of DEPLOYMENTS"


def _capped(given: Any) -> Any:
    """A cap as all amounts are told, of a text or a number in JSON."""
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise ValueError(_CAP_FORM)
    try:
        value = Decimal(str(given))
    except ArithmeticError:
        raise ValueError(_CAP_FORM) from None
    if not value.is_finite() or not 0 < value <= MOST_CAP or value != round(value, 6):
        raise ValueError(
            f"has to be more than 0 and at most {MOST_CAP:,}, with six digits behind the point"
        )
    return amount(int(value * MILLION))


CapAmount = Annotated[
    Amount, BeforeValidator(_capped, json_schema_input_type=Amount | Annotated[float, Field(gt=0)])
]
"""The most that something may cost: an amount, or a number."""


def micros(amount: str) -> int:
    """Millionths in an amount."""
    whole, _, part = amount.partition(".")
    return int(whole) * MILLION + int(part.ljust(6, "0"))


def amount(of_micros: int) -> str:
    """Millionths as an amount, with six digits behind the point."""
    return f"{of_micros // MILLION}.{of_micros % MILLION:06d}"


class Price(BaseModel):
    """What a deployment takes for a million tokens, in decimal strings."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    input: Amount | None = None
    output: Amount | None = None
    per_hour: Amount | None = Field(
        default=None, description="of a deployment that is rented: shown, and not part of any cost"
    )
    currency: str = Field(pattern=r"^[A-Z]{3}$")

    @field_validator("input", "output", "per_hour", mode="before")
    @classmethod
    def _as_text(cls, given: Any) -> Any:
        # A number in JSON is a float to many who write it, and 0.1 is none.
        if given is not None and not isinstance(given, str):
            raise ValueError(AMOUNT_FORM)
        return given

    @model_validator(mode="after")
    def _told(self) -> Self:
        if (self.input is None) is not (self.output is None):
            raise ValueError("price: give both input and output, for a million tokens each")
        if self.input is None and self.per_hour is None:
            raise ValueError("price: give input and output, or per_hour")
        return self

    @property
    def pinned(self) -> "PinnedPrice | None":
        """The price of tokens as a job keeps it; None where it costs by the hour alone."""
        if self.input is None or self.output is None:
            return None
        return PinnedPrice(
            input=micros(self.input), output=micros(self.output), currency=self.currency
        )

    @property
    def pinned_hourly(self) -> "HourlyPrice | None":
        """The price of an hour as a job keeps it; None where it has none."""
        if self.per_hour is None:
            return None
        return HourlyPrice(per_hour=micros(self.per_hour), currency=self.currency)


class HourlyPrice(Kept):
    """What an hour of a rented deployment took when the job was made: shown, and not allocated."""

    per_hour: int = Field(description="1500000 is 1.50, in millionths of the currency's unit")
    currency: str


class PinnedPrice(Kept):
    """What a million tokens took when the job was made, in millionths of the currency's unit."""

    input: int = Field(description="of prompts: 130000 is 0.13 for a million tokens")
    output: int = Field(description="of answers: 520000 is 0.52 for a million tokens")
    currency: str

    def of(self, prompt: int, completion: int) -> int:
        """What tokens cost, in millionths of a millionth."""
        return prompt * self.input + completion * self.output


class Cost(Kept):
    """What calls cost, at the prices that were pinned with their job."""

    currency: str
    counted: Amount = Field(description="by the tokens that endpoints told")
    at_most: Amount | None = Field(
        default=None,
        description="with all calls that may have been billed; null where no bound is known: until "
        "the job has ended, where calls had no price or their rows no `max_tokens`, and after "
        "`crashes`; a job with a `max_cost` always has one",
    )
    unmetered_calls: int = Field(
        default=0, description="that may have been billed, and whose tokens are not known"
    )
    unpriced_calls: int = Field(
        default=0,
        description="answered or billed by deployments without a price; of a shard that is being "
        "asked one, where it is certain that there was any",
    )
    crashes: int = Field(
        default=0,
        exclude_if=not_,
        description="attempts that a worker left without an end: what it asked last is not known",
    )


class CostRange(BaseModel):
    """What an estimate comes to, at the present prices of what may answer."""

    model_config = ConfigDict(frozen=True)

    currency: str
    least: Amount
    most: Amount


class CostSum(BaseModel):
    """An entry of `GET /api/costs`: the jobs of a month that have one value in common."""

    model_config = ConfigDict(frozen=True)

    by: str = Field(description="`tenant`, or a name of the jobs' metadata")
    value: str | None = Field(description="null: jobs that do not say")
    jobs: int
    unpriced_jobs: int = Field(description="of which no price is known")
    prompt_tokens: int
    completion_tokens: int
    costs: tuple[Cost, ...] = Field(description="one for each currency")
