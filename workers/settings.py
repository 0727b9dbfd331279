"""The settings: what they are called, what they default to, and what is wrong with them."""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.access import ApiKey, Entra, parse_api_keys, parse_entra
from schemas.deployments import (
    Deployment,
    Task,
    parse_deployments,
    parse_routes,
    prices_of,
)
from schemas.hours import Hours, parse_hours
from schemas.jobs import Priority, window_seconds
from schemas.secret_settings import no_secret, unresolved
from schemas.tenants import Tenant, only_default, parse_tenants
from schemas.webhooks import Webhook, parse_webhooks
from schemas.wrong_values import wrong_values
from workers.ports.errors import SettingsError

Container = Annotated[str, Field(pattern=r"^[a-z0-9](-?[a-z0-9]){2,62}$")]


class Settings(BaseModel):
    """One process's settings, read once from the environment (Azure: app settings)."""

    model_config = ConfigDict(frozen=True)

    deployments: tuple[Deployment, ...]
    routes: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    tenants: Mapping[str, Tenant] = Field(default_factory=only_default)
    api_keys: tuple[ApiKey, ...] = ()
    entra: Entra | None = None
    webhooks: Mapping[str, Webhook] = Field(default_factory=dict)
    priority_hours: Mapping[str, Hours] = Field(default_factory=dict)
    input_containers: tuple[Container, ...] = ("prompts", "nightly", "inputs")
    nightly_container: Container = "nightly"
    files_container: Container = "files"
    results_container: Container = "results"
    state_container: Container = "state"
    max_line_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, le=64 * 1024 * 1024)
    max_file_bytes: int = Field(default=10 * 1024**3, ge=1)
    completion_window: str = "24h"
    shard_seconds: float = Field(default=120.0, gt=0, le=300)
    journal_seconds: float = Field(default=3.0, gt=0, le=60)
    environment_proxies: bool = False
    downloads: Literal["auto", "redirect", "body"] = "auto"
    telemetry: Literal["", "azure-monitor"] = ""

    @property
    def all_input_containers(self) -> tuple[str, ...]:
        """The containers that files may come from: two of them need no second mention."""
        own = (self.nightly_container, self.files_container)
        return tuple(dict.fromkeys((*self.input_containers, *own)))

    @cached_property
    def default_models(self) -> Mapping[Task, str]:
        """The model of a row that names none: where only one model does its task."""
        models: dict[Task, set[str]] = {}
        for deployment in self.deployments:
            for task in deployment.serves:
                models.setdefault(task, set()).add(deployment.model)
        return {task: names.pop() for task, names in models.items() if len(names) == 1}


_NAMES = {
    "INPUT_CONTAINERS": "input_containers",
    "NIGHTLY_CONTAINER": "nightly_container",
    "FILES_CONTAINER": "files_container",
    "RESULTS_CONTAINER": "results_container",
    "STATE_CONTAINER": "state_container",
    "MAX_LINE_BYTES": "max_line_bytes",
    "MAX_FILE_BYTES": "max_file_bytes",
    "COMPLETION_WINDOW": "completion_window",
    "SHARD_SECONDS": "shard_seconds",
    "JOURNAL_SECONDS": "journal_seconds",
    "ENVIRONMENT_PROXIES": "environment_proxies",
    "DOWNLOADS": "downloads",
    "TELEMETRY": "telemetry",
}


_JSON = ("DEPLOYMENTS", "ROUTES", "TENANTS", "API_KEYS", "ENTRA", "WEBHOOKS", "PRIORITY_HOURS")


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings in an environment. Raises SettingsError that names setting and remedy."""
    for name in (*_JSON, *_NAMES):
        if wrong := unresolved(environment.get(name, "")):
            raise SettingsError(f"setting {name} {wrong}")
    values: dict[str, Any] = {
        field: environment[name] for name, field in _NAMES.items() if environment.get(name)
    }
    if "input_containers" in values:
        values["input_containers"] = tuple(
            part.strip() for part in values["input_containers"].split(",") if part.strip()
        )
    try:
        values["deployments"] = parse_deployments(environment.get("DEPLOYMENTS") or "[]")
        values["tenants"] = parse_tenants(environment.get("TENANTS") or "{}")
        values["api_keys"] = parse_api_keys(environment.get("API_KEYS") or "[]")
        values["entra"] = parse_entra(environment.get("ENTRA") or "")
        values["webhooks"] = parse_webhooks(environment.get("WEBHOOKS") or "{}", environment)
        hours = environment.get("PRIORITY_HOURS") or "{}"
        values["priority_hours"] = parse_hours("PRIORITY_HOURS", hours, get_args(Priority))
        values["routes"] = parse_routes(environment.get("ROUTES") or "{}", values["deployments"])
        settings = Settings.model_validate(values)
    except ValidationError as error:
        names = {field: name for name, field in _NAMES.items()}
        first = wrong_values(error)[0]
        name = names.get(str(first.loc[0]), str(first.loc[0]))
        raise SettingsError(f"setting {name}: {first.words}") from None
    except (ValueError, json.JSONDecodeError) as error:
        raise SettingsError(str(error)) from None
    try:
        window_seconds(settings.completion_window)
    except ValueError as error:
        raise SettingsError(f"setting COMPLETION_WINDOW: {error}") from None
    _refuse_loops(settings)
    _refuse_strangers(settings)
    _refuse_caps_without_price(settings)
    _refuse_missing_keys(settings, environment)
    return settings


def _refuse_loops(settings: Settings) -> None:
    own = {settings.results_container, settings.state_container}
    if looped := own.intersection(settings.all_input_containers):
        raise SettingsError(
            f"container {looped.pop()!r} is both for input and for the service's own blobs: "
            "its results would become jobs; choose different containers"
        )
    if len(own) == 1:
        raise SettingsError(
            f"container {own.pop()!r} is both for results and for state: a file's name could "
            "make its results look like documents of the service; choose different containers"
        )


def _refuse_strangers(settings: Settings) -> None:
    named = [
        (f"API_KEYS[{at}] ({key.name!r})", key.tenant) for at, key in enumerate(settings.api_keys)
    ]
    callers = settings.entra.callers if settings.entra else {}
    named += [(f"ENTRA, callers.{caller}", tenant) for caller, tenant in callers.items()]
    named += [(f"WEBHOOKS, {tenant!r}", tenant) for tenant in settings.webhooks]
    for where, tenant in named:
        if tenant not in settings.tenants:
            known = ", ".join(settings.tenants)
            raise SettingsError(f"{where}: tenant {tenant!r} is not known; TENANTS knows: {known}")


def _refuse_caps_without_price(settings: Settings) -> None:
    # Each job of such a tenant would fail: nothing bounds what its calls cost.
    if prices_of(settings.deployments):
        return
    for name, tenant in settings.tenants.items():
        if tenant.max_cost_per_month is not None:
            raise SettingsError(
                f"TENANTS, {name!r}: max_cost_per_month caps what calls cost, and no deployment "
                "has a price of input and output: give one its price in DEPLOYMENTS, such as "
                '{"input": "0.13", "output": "0.52", "currency": "USD"}'
            )


def _refuse_missing_keys(settings: Settings, environment: Mapping[str, str]) -> None:
    # The setting is not named: a key may have been pasted in its place.
    missing = [
        f"DEPLOYMENTS[{at}] ({each.name!r}), field 'key_setting': the setting that it names {what}"
        for at, each in enumerate(settings.deployments)
        if each.key_setting and (what := no_secret(environment.get(each.key_setting, "")))
    ]
    if missing:
        raise SettingsError("\n".join(missing))
