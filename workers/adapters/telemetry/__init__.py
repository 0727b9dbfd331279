"""Telemetry over OpenTelemetry. Nothing of it is imported before somebody wants it."""

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, Final

from workers.ports.telemetry import SILENT, Telemetry

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
CHOICE: Final = "TELEMETRY"
AZURE_MONITOR: Final = "azure-monitor"

log = logging.getLogger(__name__)


@asynccontextmanager
async def connect_telemetry(
    environment: Mapping[str, str], *, process: str, clock: Callable[[], float]
) -> AsyncIterator[Telemetry]:
    """Telemetry to where the environment says, or to nobody. `process` tells instances apart."""
    way = _way(environment)
    if way is None:
        yield SILENT
        return
    try:
        exporting, exporters = await asyncio.to_thread(_loaded, way)
        spans, metrics = exporters.exporters(environment)
        telling = exporting.Exporting.over(spans, metrics, process=process, clock=clock)
    except (ImportError, ValueError) as error:
        log.warning("[TELEMETRY_OFF] nobody is told how the service does: %s", error)
        yield SILENT
        return
    looking = asyncio.create_task(telling.attend(), name="telemetry", context=Context())
    try:
        yield telling.teller
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        await telling.close()


def _loaded(way: str) -> tuple[Any, Any]:
    """The modules that need OpenTelemetry, which take their time. Errors: `ImportError`."""
    try:
        exporting = importlib.import_module(f"{__name__}.exporting")
        return exporting, importlib.import_module(f"{__name__}.{way}")
    except StopIteration as error:
        raise ImportError("OpenTelemetry's entry points are lost: install it anew") from error


def _way(environment: Mapping[str, str]) -> str | None:
    """The module that has the exporters."""
    if environment.get(CHOICE) == AZURE_MONITOR:
        return "azure_monitor"
    return "otlp" if environment.get(ENDPOINT) else None
