"""To a collector that takes OTLP over HTTP, as the standard's own settings describe it."""

from collections.abc import Mapping
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace.export import SpanExporter

EXPORT_SECONDS: Final = 5.0
"""Seconds for one export with all its tries; the next ones wait meanwhile, and nobody else does."""


def exporters(environment: Mapping[str, str]) -> tuple[SpanExporter | None, MetricExporter | None]:
    """Exporters of spans and of metrics; the setting `none` switches one off."""
    spans = environment.get("OTEL_TRACES_EXPORTER") != "none"
    metrics = environment.get("OTEL_METRICS_EXPORTER") != "none"
    return (
        OTLPSpanExporter(timeout=EXPORT_SECONDS) if spans else None,
        OTLPMetricExporter(timeout=EXPORT_SECONDS) if metrics else None,
    )
