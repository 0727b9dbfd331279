"""Which settings does a process see? Those of `local.settings.json`, under the environment's.

As `func start` does it: `Values` become environment variables unless the environment has them
already, and `ConnectionStrings` become `ConnectionStrings:NAME`
(https://learn.microsoft.com/azure/azure-functions/functions-develop-local#local-settings-file).
"""

import json
import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from workers.ports.errors import SettingsError

FILE = "local.settings.json"
# How large a body the HTTP triggers take, in bytes, as the Functions host calls it.
BODY_LIMIT = "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT"


def read(folder: Path) -> dict[str, str]:
    """The settings of `folder`'s local.settings.json; none where there is no such file.

    Errors: `SettingsError`.
    """
    path = folder / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SettingsError(f"{FILE} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise SettingsError(f'{FILE} must be an object: {{"IsEncrypted": false, "Values": {{}}}}')
    if document.get("IsEncrypted"):
        raise SettingsError(f"{FILE} is encrypted: run `func settings decrypt` first")
    settings = {name: _text(name, value) for name, value in _section(document, "Values").items()}
    for name, value in _section(document, "ConnectionStrings").items():
        plain = value.get("ConnectionString") if isinstance(value, dict) else value
        settings[f"ConnectionStrings:{name}"] = _text(name, plain)
    return settings


def _section(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = document.get(name, {})
    if not isinstance(section, dict):
        raise SettingsError(f"{FILE}: {name} must be an object of texts")
    return section


def _text(name: str, value: Any) -> str:
    """Numbers and booleans are taken as .NET's configuration reads them from JSON."""
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, str | int | float):
        return str(value)
    raise SettingsError(f"{FILE}: {name} must be a text (write JSON inside a quoted string)")


def apply(folder: Path, environ: MutableMapping[str, str] = os.environ) -> None:
    """Put the file's settings into `environ`, which wins where both have one."""
    for name, value in read(folder).items():
        environ.setdefault(name, value)


def expand(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """`%NAME%` in a binding's attribute replaced by the setting, as the Functions host does it.

    Raises `SettingsError` where the setting is not there.
    """

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        try:
            return environ[name]
        except KeyError:
            raise SettingsError(
                f"'%{name}%' does not resolve to a value: set {name} in {FILE} or the environment"
            ) from None

    return re.sub(r"%([^%]+)%", value_of, text)
