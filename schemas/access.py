"""Who may use the doors under `/v1`: keys, each with a tenant, in the setting `API_KEYS`."""

from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.setting_json import setting_json
from schemas.tenants import DEFAULT_TENANT, TenantName
from schemas.wrong_values import wrong_values

KEY_PREFIX: Final = "pbk_"
"""What a key begins with, so that scanners of repositories know one."""


class ApiKey(BaseModel):
    """A key, of which its hash alone is known. Two may be live for one tenant, to change them."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description="told in logs")
    tenant: TenantName = DEFAULT_TENANT
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)] = Field(
        description="of the key, in hexadecimal"
    )
    expires: AwareDatetime | None = Field(default=None, description="with a zone; null: never")


class Entra(BaseModel):
    """Whose tokens of Microsoft Entra ID are taken, and for which tenants of the service."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: str = Field(pattern=r"^[0-9a-f-]{36}$", description="the Entra tenant's id")
    audience: Annotated[str, Field(min_length=1)] = Field(
        description="that tokens have to be for: the app registration's id, or its URI"
    )
    callers: dict[str, TenantName] = Field(
        description="the tenant of each caller, by object id (oid) or application id (appid, azp)"
    )
    authority: str = Field(
        default="https://login.microsoftonline.com", pattern=r"^https?://[A-Za-z0-9.:-]+$"
    )

    @property
    def issuers(self) -> tuple[str, str]:
        """Who has signed a token, as tokens of both versions say it."""
        return (
            f"{self.authority}/{self.directory}/v2.0",
            f"https://sts.windows.net/{self.directory}/",
        )

    @property
    def keys_url(self) -> str:
        """Where the keys are that tokens are signed with."""
        return f"{self.authority}/{self.directory}/discovery/v2.0/keys"


def parse_entra(text: str) -> Entra | None:
    """The setting `ENTRA`; None where it is empty. Raises ValueError."""
    if not text.strip():
        return None
    try:
        return Entra.model_validate_json(text)
    except ValidationError as error:
        first = wrong_values(error)[0]
        where = ".".join(map(str, first.loc))[:80]
        raise ValueError(
            f"ENTRA{f', {where}' if where else ''}: {first.words}; for example "
            '{"directory": "...", "audience": "api://...", "callers": {"object id": "tenant"}}'
        ) from None


_KEYS: Final = TypeAdapter(tuple[ApiKey, ...])


def parse_api_keys(text: str) -> tuple[ApiKey, ...]:
    """The keys of the setting `API_KEYS`. Raises ValueError, which quotes none of them."""
    raw = setting_json("API_KEYS", text)
    try:
        keys = _KEYS.validate_python(raw)
    except ValidationError as error:
        first = wrong_values(error)[0]
        at, *fields = first.loc or ("",)
        where = f"API_KEYS[{at}]" if isinstance(at, int) else "API_KEYS"
        field = f", field {str(fields[0])[:40]!r}" if fields else ""
        raise ValueError(
            f'{where}{field}: {first.words}; a key is {{"name": "...", "tenant": "...", '
            '"sha256": "64 hexadecimal digits", "expires": "2027-01-01T00:00:00Z"}'
        ) from None
    names = [key.name for key in keys]
    for at, name in enumerate(names):
        if name in names[:at]:
            raise ValueError(f"API_KEYS[{at}]: another key is named {name!r}: names must differ")
    return keys
