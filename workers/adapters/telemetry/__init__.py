"""Telemetry over OpenTelemetry. Nothing of it is imported before somebody wants it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from workers.ports.telemetry import SILENT, Telemetry

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"


@asynccontextmanager
async def connect_telemetry(
    environment: Mapping[str, str], *, process: str, clock: Callable[[], float]
) -> AsyncIterator[Telemetry]:
    """Telemetry to where the environment says, or to nobody. `process` tells instances apart."""
    if not environment.get(ENDPOINT):
        yield SILENT
        return
    # Here and not above: hosts index function_app with whatever they have installed themselves.
    from workers.adapters.telemetry.otlp import Exporting  # noqa: PLC0415

    exporting = Exporting.over_otlp(environment, process=process, clock=clock)
    looking = asyncio.create_task(exporting.attend(), name="telemetry")
    try:
        yield exporting.teller
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        await exporting.close()
