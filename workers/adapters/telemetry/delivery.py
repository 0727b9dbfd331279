"""Hands spans and metrics to exporters, in threads of theirs, and notes what is lost on the way."""

import logging
import time
from collections.abc import Sequence
from threading import Lock
from typing import Any, Final

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from workers.ports.errors import Outage

MOST_WAITING: Final = 2048
"""Spans that wait for their exporter, as the SDK's queue takes them; what is more is dropped."""
NOT_TAKEN: Final = "it did not take what was sent"

log = logging.getLogger(__name__)


class Delivery:
    """What is on its way. Spans are handed in by the event loop, and taken by another thread."""

    def __init__(self, *, spans: bool) -> None:
        self._spans = spans
        self.dropped = 0
        self._made = self._taken = 0
        self._outage = Outage(log, "the collector of telemetry")
        self._lock = Lock()

    def room(self) -> bool:
        """Whether one more span may wait; one that may not is dropped."""
        if not self._spans:
            return False
        if self._made - self._taken >= MOST_WAITING:
            self.dropped += 1
            return False
        self._made += 1
        return True

    def taken(self, spans: int) -> None:
        """Note that so many wait no more."""
        self._taken += spans

    def ended(self, delivered: bool, spans: int = 0) -> None:
        """Note what became of an export."""
        with self._lock:
            if delivered:
                self._outage.passed(time.monotonic())
            else:
                self.dropped += spans
                self._outage.failed(NOT_TAKEN, time.monotonic())


class CountedSpans(SpanExporter):
    """An exporter of spans whose losses are counted."""

    def __init__(self, exporter: SpanExporter, delivery: Delivery) -> None:
        self._exporter = exporter
        self._delivery = delivery

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export, in the thread of the queue."""
        self._delivery.taken(len(spans))
        delivered = False
        try:
            result = self._exporter.export(spans)
            delivered = result is SpanExportResult.SUCCESS
            return result
        finally:
            self._delivery.ended(delivered, len(spans))

    def shutdown(self) -> None:
        """Let the exporter end."""
        self._exporter.shutdown()


class CountedMetrics(MetricExporter):
    """An exporter of metrics whose trouble is told of."""

    def __init__(self, exporter: MetricExporter, delivery: Delivery) -> None:
        # What it prefers, the reader asks of whoever is given to it.
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._delivery = delivery

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Export, in the thread of the reader."""
        delivered = False
        try:
            result = self._exporter.export(metrics_data, timeout_millis, **kwargs)
            delivered = result is MetricExportResult.SUCCESS
            return result
        finally:
            self._delivery.ended(delivered)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Let the exporter send what it holds."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Let the exporter end."""
        self._exporter.shutdown(timeout_millis, **kwargs)
