"""To Application Insights, with the identity that the host uses too."""

import logging
import os
from collections.abc import Mapping
from typing import Any, Final

from azure.identity import ManagedIdentityCredential
from azure.monitor.opentelemetry.exporter import (
    AzureMonitorMetricExporter,
    AzureMonitorTraceExporter,
)
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace.export import SpanExporter

CONNECTION: Final = "APPLICATIONINSIGHTS_CONNECTION_STRING"
AUTHENTICATION: Final = "APPLICATIONINSIGHTS_AUTHENTICATION_STRING"
EXPORT_SECONDS: Final = 5
_LOG: Final = "azure.monitor"


def exporters(environment: Mapping[str, str]) -> tuple[SpanExporter, MetricExporter]:
    """Exporters of spans and of metrics. Errors: `ValueError`, for a setting that is none."""
    logging.getLogger(_LOG).setLevel(logging.CRITICAL)  # `Delivery` says it once
    # It would tell Microsoft of the exporter itself, and keep what is not taken on the disk.
    os.environ.setdefault("APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL", "true")
    given: dict[str, Any] = {
        "connection_string": environment.get(CONNECTION, ""),
        "credential": _credential(environment.get(AUTHENTICATION, "")),
        "disable_offline_storage": True,
        "timeout": EXPORT_SECONDS,
        "retry_total": 1,
    }
    return AzureMonitorTraceExporter(**given), AzureMonitorMetricExporter(**given)


def _credential(authentication: str) -> ManagedIdentityCredential | None:
    """The identity in a text such as `ClientId=...;Authorization=AAD`."""
    told = dict(part.split("=", 1) for part in authentication.split(";") if "=" in part)
    if told.get("Authorization") != "AAD":
        return None
    return ManagedIdentityCredential(client_id=told.get("ClientId"))
