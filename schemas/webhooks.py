"""Webhooks: who is told over HTTP that a job has ended. The setting `WEBHOOKS` says where.

The form is that of Standard Webhooks (https://www.standardwebhooks.com), as OpenAI sends them and
the `openai` package verifies them.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.secret_settings import no_secret
from schemas.setting_json import setting_json
from schemas.tenants import TenantName
from schemas.wrong_values import wrong_values

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what secrets begin with
LEAST_KEY_BYTES: Final = 24
MOST_KEY_BYTES: Final = 64
_LONGEST_URL: Final = 2048

WebhookType = Literal["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]


class WebhookData(BaseModel):
    """Which batch has ended."""

    model_config = ConfigDict(frozen=True)

    id: str


class WebhookEvent(BaseModel):
    """The body of a webhook: that a batch has ended, and how."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="the same at each delivery; also the header webhook-id")
    object: Literal["event"] = "event"
    created_at: int = Field(description="when the batch ended, in seconds since the epoch")
    type: WebhookType
    data: WebhookData


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a tenant is told, and the keys that the telling is signed with.

    `private`: the receiver may be in a private network or on this machine, and there without TLS.
    """

    url: str
    keys: tuple[bytes, ...] = field(repr=False)
    private: bool = False

    @property
    def secure(self) -> bool:
        """Whether the receiver is asked over TLS."""
        return urlsplit(self.url).scheme == "https"


class Reception(NamedTuple):
    """What a receiver made of a webhook: an HTTP status, or why there is none.

    `retry_after` are the seconds after which it wants to be asked again, where it says so.
    """

    status: int | None
    retry_after: float | None = None
    why: str = ""

    @property
    def taken(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def told(self) -> str:
        """What happened, for a log."""
        return self.why if self.status is None else f"it answers {self.status}"


class _Entry(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, allow_inf_nan=False
    )

    url: Annotated[str, Field(max_length=_LONGEST_URL)]
    secret_settings: Annotated[list[str], Field(min_length=1, max_length=2)]
    private: bool = False


_ENTRIES: Final = TypeAdapter(dict[TenantName, _Entry])


def parse_webhooks(text: str, environment: Mapping[str, str]) -> Mapping[str, Webhook]:
    """Each tenant's webhook of the setting `WEBHOOKS`, its secrets taken from an environment.

    Raises ValueError, which quotes neither addresses nor secrets.
    """
    raw = setting_json("WEBHOOKS", text)
    try:
        entries = _ENTRIES.validate_python(raw)
    except ValidationError as error:
        first = wrong_values(error)[0]
        where = ", ".join(repr(part)[:40] for part in first.loc if part != "[key]")
        raise ValueError(
            f"WEBHOOKS{f', {where}' if where else ''}: {first.words}; for example "
            '{"tenant": {"url": "https://...", "secret_settings": ["WEBHOOK_SECRET"]}}'
        ) from None
    return {tenant: _webhook(tenant, entry, environment) for tenant, entry in entries.items()}


def _webhook(tenant: str, entry: _Entry, environment: Mapping[str, str]) -> Webhook:
    if wrong := _wrong(entry):
        raise ValueError(f"WEBHOOKS, {tenant!r}, 'url': {wrong}")
    secrets = [environment.get(name, "") for name in entry.secret_settings]
    keys = [signing_key(secret.strip()) for secret in secrets]
    for at, (secret, key) in enumerate(zip(secrets, keys, strict=True)):
        if key is None:
            # The setting is not named: a secret may have been pasted in its place.
            raise ValueError(
                f"WEBHOOKS, {tenant!r}, 'secret_settings'[{at}]: the setting that it names "
                f"{no_secret(secret) or 'holds no secret'}; a secret is {SECRET_PREFIX!r} and the "
                f"base64 of {LEAST_KEY_BYTES} to {MOST_KEY_BYTES} bytes (phi3batch webhooks secret "
                "makes one)"
            )
    url = urlsplit(entry.url).geturl()  # without blanks around it, the scheme in small letters
    return Webhook(url, tuple(key for key in keys if key is not None), entry.private)


def _wrong(entry: _Entry) -> str | None:
    try:
        parts = urlsplit(entry.url)
        named = bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")  # as a look-up does: parts of 1 to 63 characters
    except ValueError:
        return "it is no address"
    if parts.scheme not in ("https", "http") or not named:
        return "it has to be https://HOST/PATH"
    if parts.scheme == "http" and not entry.private:
        return "it has to be https; http is for private networks ('private': true)"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return "it may have neither a user nor a fragment"
    return None


def signing_key(secret: str) -> bytes | None:
    """The key that a secret stands for; None where it is no secret."""
    if not secret.startswith(SECRET_PREFIX):
        return None
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if LEAST_KEY_BYTES <= len(key) <= MOST_KEY_BYTES else None


def secret_of(key: bytes) -> str:
    """A key as the secret that both sides know."""
    return SECRET_PREFIX + base64.b64encode(key).decode()
