"""The settings `DEPLOYMENTS` and `ROUTES`: which endpoints may be called, how, and for which model.

`parse_deployments` and `parse_routes` raise ValueError with one line for each mistake, which names
the entry and the field. No message repeats a value of `url`, `headers` or `key_setting`: what was
pasted there by mistake may be a secret.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.hours import Hours
from schemas.money import HourlyPrice, PinnedPrice, Price
from schemas.setting_json import setting_json
from schemas.wrong_values import FORMS, did_you_mean, wrong_values

Task = Literal["chat", "completions", "embeddings", "image-embeddings"]
EndpointKind = Literal["model-inference", "openai", "azure-openai", "aml-score"]

TASKS_OF_KIND: dict[EndpointKind, tuple[Task, ...]] = {
    "model-inference": ("chat", "completions", "embeddings", "image-embeddings"),
    "openai": ("chat", "completions", "embeddings"),
    "azure-openai": ("chat", "completions", "embeddings"),
    "aml-score": ("chat",),
}

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_APPENDED = ("/chat/completions", "/completions", "/images/embeddings", "/embeddings")

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Deployment(BaseModel):
    """One endpoint and model with its quota and credentials. Absent limits mean unlimited.

    `url` is what the portal or the server shows: the base of a `model-inference` endpoint, of an
    `openai` server (usually ending in /v1), of an `azure-openai` resource, or the whole scoring
    URL of an `aml-score` endpoint. `scope` is the Entra scope where the kind's own does not fit.
    `context_length` is the tokens that the model reads at a time, of one prompt or input.
    `hours` are those of the day in which it may be asked, by the clock of `time_zone`.
    `price` is what its tokens cost: without one their cost is not known, and never 0.
    `allow_http` lets a key travel over plain http to another host.
    `reserve` is the part of the quota that is left to others at all times; with
    `yield_to_interactive` what the service tells of its limits shows when others ask, and batches
    give way to them. `max_inputs_per_request` bounds a packed embeddings call. `timeout` is seconds
    for one call as a whole.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    kind: EndpointKind
    url: str
    model: str = Field(min_length=1)
    auth: Literal["key", "entra", "none"] = "key"
    key_setting: str | None = Field(
        default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$", repr=False
    )
    tasks: tuple[Task, ...] = ()
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    requests_per_day: int | None = Field(default=None, gt=0)
    reserve: float = Field(default=0.0, ge=0, lt=1, allow_inf_nan=False)
    yield_to_interactive: bool = False
    max_tokens_per_request: int | None = Field(default=None, gt=0)
    context_length: int | None = Field(default=None, gt=0)
    max_inputs_per_request: int | None = Field(default=None, gt=0)
    max_concurrency: int | None = Field(default=None, gt=0)
    weight: Positive = 1.0
    scope: str | None = Field(default=None, pattern=r"^(https|api)://[A-Za-z0-9./-]+/\.default$")
    api_version: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,40}$")
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    allow_http: bool = False
    price: Price | None = None
    hours: str | None = None
    time_zone: str | None = None
    timeout: float = Field(default=120.0, gt=0, le=180)

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = _split(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http or https URL")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not carry a user or password: use auth and key_setting")
        if parts.query or parts.fragment:
            raise ValueError("must end before '?': the version belongs into api_version")
        return url.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _sendable_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not name or not all(char.isalnum() or char in "-_" for char in name):
                raise ValueError("has a name that is no HTTP header's")
            if not (value.isascii() and value.isprintable()):
                raise ValueError("has a value with characters that HTTP does not carry")
            if name.lower() in ("authorization", "api-key"):
                raise ValueError("must not carry the key: use auth and key_setting")
        return headers

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.auth == "key" and not self.key_setting:
            raise ValueError("auth 'key' needs key_setting, the name of the setting with the key")
        if self.auth != "key" and self.key_setting:
            raise ValueError(f"key_setting is not used with auth {self.auth!r}: drop one of them")
        if self.scope and self.auth != "entra":
            raise ValueError(f"scope is not used with auth {self.auth!r}: drop it or use 'entra'")
        if (self.reserve or self.yield_to_interactive) and not self.is_limited:
            raise ValueError("reserve and yield_to_interactive need a quota: tell its limits")
        if (self.hours is None) is not (self.time_zone is None):
            raise ValueError("hours: give both hours and the time_zone by whose clock they are")
        unable = [task for task in self.tasks if task not in TASKS_OF_KIND[self.kind]]
        if unable:
            raise ValueError(f"tasks: kind {self.kind!r} cannot do {', '.join(unable)}")
        parts = _split(self.url)
        if parts.scheme != "https" and parts.hostname not in LOOPBACK:
            if self.auth == "entra":
                raise ValueError("url: auth 'entra' needs https")
            if self.auth == "key" and not self.allow_http:
                raise ValueError(
                    "url: auth 'key' would send the key unencrypted: use https, or allow_http "
                    "where the way to the host is private"
                )
        too_long = self.kind != "aml-score" and parts.path.endswith(_APPENDED)
        if too_long or (self.kind == "azure-openai" and "/openai" in parts.path):
            raise ValueError(f"url: kind {self.kind!r} appends the path itself: give the base only")
        return self

    @model_validator(mode="after")
    def _real_hours(self) -> Self:
        _ = self.open_hours
        return self

    @property
    def open_hours(self) -> Hours | None:
        """The hours in which it may be asked; None where they are all."""
        if self.hours is None or self.time_zone is None:
            return None
        return Hours(hours=self.hours, time_zone=self.time_zone)

    @property
    def is_limited(self) -> bool:
        """Whether it has a quota, which then is kept in a ledger."""
        limits = (self.requests_per_minute, self.tokens_per_minute, self.requests_per_day)
        return limits != (None, None, None)

    @property
    def batch_requests_per_minute(self) -> float | None:
        """What batches may use of the requests a minute."""
        whole = self.requests_per_minute
        return None if whole is None else whole * (1.0 - self.reserve)

    @property
    def batch_tokens_per_minute(self) -> float | None:
        """What batches may use of the tokens a minute."""
        whole = self.tokens_per_minute
        return None if whole is None else whole * (1.0 - self.reserve)

    @property
    def batch_requests_per_day(self) -> int | None:
        """What batches may use of the requests of a day."""
        whole = self.requests_per_day
        return None if whole is None else max(1, int(whole * (1.0 - self.reserve)))

    @property
    def serves(self) -> tuple[Task, ...]:
        """The tasks this deployment does: those named, else all that its kind can do."""
        return self.tasks or TASKS_OF_KIND[self.kind]


def parse_deployments(text: str) -> tuple[Deployment, ...]:
    """The setting DEPLOYMENTS, a JSON list of at least one deployment. Errors: ValueError."""
    entries = setting_json("DEPLOYMENTS", text)
    if not isinstance(entries, list) or not entries:
        raise ValueError("DEPLOYMENTS must be a JSON list of at least one deployment")
    deployments: list[Deployment] = []
    mistakes: list[str] = []
    for at, entry in enumerate(entries):
        try:
            deployments.append(Deployment.model_validate(entry))
        except ValidationError as error:
            mistakes += _mistakes(f"DEPLOYMENTS[{at}]{_called(entry)}", error)
    for name, times in Counter(d.name for d in deployments).items():
        if times > 1:
            mistakes.append(f"DEPLOYMENTS: {times} entries are named {name!r}: names must differ")
    currencies = sorted({each.price.currency for each in deployments if each.price})
    if len(currencies) > 1:
        mistakes.append(f"DEPLOYMENTS: prices are in {' and '.join(currencies)}: choose one")
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return tuple(deployments)


def prices_of(deployments: Iterable[Deployment]) -> dict[str, PinnedPrice]:
    """The prices of tokens by deployment, as a job keeps them."""
    told = {each.name: each.price.pinned for each in deployments if each.price is not None}
    return {name: price for name, price in told.items() if price is not None}


def hourly_prices_of(deployments: Iterable[Deployment]) -> dict[str, HourlyPrice]:
    """What an hour of them takes, by deployment, likewise."""
    told = {each.name: each.price.pinned_hourly for each in deployments if each.price is not None}
    return {name: price for name, price in told.items() if price is not None}


def parse_routes(text: str, deployments: Iterable[Deployment]) -> dict[str, tuple[str, ...]]:
    """The optional setting ROUTES, `{"model": ["deployment", ...]}`. Errors: ValueError.

    A route says which deployments answer rows that ask for a model, whatever models those serve;
    it is the only way to mix models. A model without a route goes to the deployments of that name.
    """
    routes = setting_json("ROUTES", text) if text.strip() else {}
    if not isinstance(routes, dict):
        raise ValueError('ROUTES must be a JSON object, {"model": ["deployment", ...]}')
    known = [deployment.name for deployment in deployments]
    mistakes: list[str] = []
    for model, names in routes.items():
        here = f"ROUTES, model {model!r}"
        if not (isinstance(names, list) and names and all(isinstance(n, str) for n in names)):
            mistakes.append(f"{here}: must be a list of at least one deployment's name")
            continue
        if len(set(names)) < len(names):
            mistakes.append(f"{here}: names a deployment twice")
        mistakes += [
            f"{here}: no deployment is named {name!r}{did_you_mean(name, known)}"
            for name in names
            if name not in known
        ]
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return {model: tuple(names) for model, names in routes.items()}


def names_by_model(
    deployments: Sequence[Deployment], routes: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """The names of the deployments by the model that rows ask for.

    A route goes before the deployments of a model, and those before the one of that name.
    """
    models: dict[str, tuple[str, ...]] = {}
    for each in deployments:
        models[each.model] = (*models.get(each.model, ()), each.name)
    given = {model: tuple(names) for model, names in routes.items()}
    return {each.name: (each.name,) for each in deployments} | models | given


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port, (parts.hostname or "").encode("idna")  # both raise late, at a first call
    except ValueError:
        raise ValueError("must be an http or https URL") from None
    if any(char.isspace() for char in url):
        raise ValueError("must not contain spaces")
    return parts


def _called(entry: Any) -> str:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return f" ({name!r})" if isinstance(name, str) else ""


def _mistakes(where: str, error: ValidationError) -> list[str]:
    lines = []
    for item in wrong_values(error):
        text = item.words
        if not item.loc:
            lines.append(f"{where}: {text}")
            continue
        depth = 1 if item.loc[0] == "headers" else None
        field = ".".join(str(part) for part in item.loc[:depth])
        if item.kind == "extra_forbidden" and item.loc[0] == "price":
            text = f"is no field of a price: {', '.join(Price.model_fields)}"
        elif item.kind == "extra_forbidden":
            text = f"is not a field of a deployment{did_you_mean(field, Deployment.model_fields)}"
        elif field == "key_setting":
            text = FORMS[field]
        lines.append(f"{where}, field {field!r}: {text}")
    return lines
