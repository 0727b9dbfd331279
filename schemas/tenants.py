"""Tenants: for whom jobs are run. The setting `TENANTS` knows them."""

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.setting_json import setting_json
from schemas.wrong_values import wrong_values

TenantName = Annotated[str, Field(pattern=r"^[a-z0-9](-?[a-z0-9]){0,62}$")]
DEFAULT_TENANT: Final = "default"
MOST_MONTH: Final = 9_000_000
"""The largest amount that the jobs of a month may cost together: with it a sum fits 64 bits."""

_DECIMAL: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?")


def _number(given: object) -> object:
    """An amount may be written as text too, as prices are."""
    return float(given) if isinstance(given, str) and _DECIMAL.fullmatch(given) else given


class Tenant(BaseModel):
    """What is agreed with a tenant."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    weight: float = Field(default=1.0, gt=0, description="of its jobs among all tenants'")
    max_cost_per_month: Annotated[float, BeforeValidator(_number)] | None = Field(
        default=None,
        gt=0,
        le=MOST_MONTH,
        description="in the currency of the deployments' prices: what the jobs that are made in a "
        "month may cost together: what each may cost is reserved",
    )


_TENANTS: Final = TypeAdapter(dict[TenantName, Tenant])


def only_default() -> Mapping[str, Tenant]:
    """The tenants where nobody has named any."""
    return {DEFAULT_TENANT: Tenant()}


def parse_tenants(text: str) -> Mapping[str, Tenant]:
    """The tenants of the setting `TENANTS`, and `default`. Raises ValueError."""
    raw = setting_json("TENANTS", text)
    try:
        return {**only_default(), **_TENANTS.validate_python(raw)}
    except ValidationError as error:
        first = wrong_values(error)[0]
        where = ", ".join(repr(part) for part in first.loc if part != "[key]")
        raise ValueError(
            f"TENANTS{f', {where}' if where else ''}: {first.words}; for example "
            '{"blue": {"weight": 2, "max_cost_per_month": 100}}'
        ) from None
