"""What does host.json say? The few values that a local run has a use for.

https://learn.microsoft.com/azure/azure-functions/functions-host-json
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.host.loading import LoadError


@dataclass(frozen=True, slots=True)
class HostOptions:
    """host.json with Azure's defaults. Times are seconds; a timeout of None is unbounded."""

    function_timeout: float | None = 1800.0
    max_concurrent_calls: int = 16
    max_lock_renewal: float = 300.0
    blob_parallelism: int = 8
    route_prefix: str = "api"


def read(folder: Path) -> HostOptions:
    """`folder`'s host.json; defaults where there is none. Errors: `LoadError`."""
    try:
        document = json.loads((folder / "host.json").read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return HostOptions()
    except ValueError as error:
        raise LoadError(f"host.json is not JSON: {error}") from error
    if document.get("version") != "2.0":
        raise LoadError('host.json must have "version": "2.0"')
    return _options(document)


def _options(document: dict[str, Any]) -> HostOptions:
    extensions = document.get("extensions", {})
    service_bus = extensions.get("serviceBus", {})
    if not service_bus.get("autoCompleteMessages", True):
        raise LoadError("host.json: the local host needs serviceBus.autoCompleteMessages true")
    if service_bus.get("prefetchCount", 0):
        raise LoadError("host.json: the local host does not prefetch; prefetchCount must be 0")
    defaults = HostOptions()
    timeout = document.get("functionTimeout")
    return HostOptions(
        function_timeout=defaults.function_timeout if timeout is None else _bounded(timeout),
        max_concurrent_calls=service_bus.get("maxConcurrentCalls", defaults.max_concurrent_calls),
        max_lock_renewal=seconds(service_bus.get("maxAutoLockRenewalDuration", "00:05:00")),
        blob_parallelism=extensions.get("blobs", {}).get(
            "maxDegreeOfParallelism", defaults.blob_parallelism
        ),
        route_prefix=extensions.get("http", {}).get("routePrefix", defaults.route_prefix),
    )


def _bounded(timeout: str) -> float | None:
    return None if timeout == "-1" else seconds(timeout)


def seconds(timespan: str) -> float:
    """A .NET TimeSpan `[d.]hh:mm:ss[.fff]` in seconds. Errors: `LoadError`."""
    match = re.fullmatch(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2}(?:\.\d+)?)", timespan)
    if match is None:
        raise LoadError(f"host.json: {timespan!r} is not a time span like 00:30:00")
    days, hours, minutes, rest = match.groups()
    return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(rest)
