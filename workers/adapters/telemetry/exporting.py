"""What OpenTelemetry needs of a process: providers, threads that export, and an end."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from threading import Thread
from typing import Final, Self

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from schemas.versions import RELEASE
from workers.adapters.telemetry.delivery import (
    MOST_WAITING,
    CountedMetrics,
    CountedSpans,
    Delivery,
)
from workers.adapters.telemetry.meters import Meters
from workers.adapters.telemetry.names import SERVICE
from workers.adapters.telemetry.readings import attend
from workers.adapters.telemetry.spans import GivenIds, Spans
from workers.adapters.telemetry.telling import TelemetryTeller

FLUSH_SECONDS: Final = 2.0
"""Seconds for which the end of a process waits for what is not exported yet."""
# The SDK says of each export that it failed, and what the collector answered: `Delivery` says once.
_SDK_LOG: Final = "opentelemetry"


class Exporting:
    """The teller of one process, and the threads that export what it tells."""

    def __init__(
        self,
        processor: SpanProcessor | None,
        reader: MetricReader | None,
        delivery: Delivery,
        *,
        process: str,
        clock: Callable[[], float],
    ) -> None:
        ids, resource = GivenIds(), _resource(process)
        # At the exit they would wait for as long as a collector does not answer. What is told of is
        # chosen by job and shard, so that all processes agree: no sampler of the environment's.
        self._tracing = TracerProvider(
            ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=ids
        )
        if processor is not None:
            self._tracing.add_span_processor(processor)
        readers = [] if reader is None else [reader]
        self._metering = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        self.delivery = delivery
        self._meters = Meters(self._metering)
        spans = Spans(self._tracing, ids, delivery)
        self.teller = TelemetryTeller(spans, self._meters, clock, self._flush)

    @classmethod
    def over(
        cls,
        spans: SpanExporter | None,
        metrics: MetricExporter | None,
        *,
        process: str,
        clock: Callable[[], float],
    ) -> Self:
        """A teller whose exporters run in threads of their own."""
        logging.getLogger(_SDK_LOG).setLevel(logging.CRITICAL)
        delivery = Delivery(spans=spans is not None)
        processor = reader = None
        if spans is not None:
            counted = CountedSpans(spans, delivery)
            processor = BatchSpanProcessor(counted, max_queue_size=MOST_WAITING)
        if metrics is not None:
            reader = PeriodicExportingMetricReader(CountedMetrics(metrics, delivery))
        return cls(processor, reader, delivery, process=process, clock=clock)

    async def attend(self) -> None:
        """Look how the process stands, until cancelled."""
        await attend(self.teller, self._meters, self.delivery)

    async def _flush(self) -> None:
        await _for_a_while(self._tracing.force_flush, self._metering.force_flush)

    async def close(self) -> None:
        """Export what there is, and end the threads."""
        await _for_a_while(self._tracing.shutdown, self._metering.shutdown)


def _resource(process: str) -> Resource:
    own = Resource.create({"service.version": RELEASE, "service.instance.id": process})
    if str(own.attributes["service.name"]).startswith("unknown_service"):
        return own.merge(Resource({"service.name": SERVICE}))
    return own


async def _for_a_while(*works: Callable[[], object]) -> None:
    """Do what may wait for a collector. A thread that is left waiting ends with the process."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    left = [*works]

    def do(work: Callable[[], object]) -> None:
        work()
        left.remove(work)
        with contextlib.suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(lambda: None if left else done.set())

    for work in works:
        Thread(target=do, args=(work,), name="end of telemetry", daemon=True).start()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FLUSH_SECONDS):
            await done.wait()
