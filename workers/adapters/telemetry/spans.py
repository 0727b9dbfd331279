"""How are spans told of once they are over, at the place where they belong?"""

from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from workers.adapters.telemetry.delivery import Delivery
from workers.adapters.telemetry.names import ERROR, SERVICE
from workers.adapters.telemetry.traces import Place

Value = str | int | float
INTERNAL, CLIENT = SpanKind.INTERNAL, SpanKind.CLIENT
CONSUMER, PRODUCER = SpanKind.CONSUMER, SpanKind.PRODUCER
_NANOSECONDS: Final = 1_000_000_000


class GivenIds(RandomIdGenerator):
    """The ids that the next span is to have, where they are given; else ids of chance."""

    def __init__(self) -> None:
        self.next: Place | None = None

    def generate_trace_id(self) -> int:
        """The trace of a span without a parent."""
        return self.next.trace if self.next else super().generate_trace_id()

    def generate_span_id(self) -> int:
        """A span's own id."""
        return self.next.span if self.next and self.next.span else super().generate_span_id()


class Spans:
    """Spans that are over. None is open between two calls, so none is left open by a crash."""

    def __init__(self, provider: TracerProvider, ids: GivenIds, delivery: Delivery) -> None:
        self._tracer = provider.get_tracer(SERVICE)
        self._ids = ids
        self._delivery = delivery

    def tell(
        self,
        name: str,
        kind: SpanKind,
        times: tuple[float, float],
        attributes: Mapping[str, Value],
        *,
        parent: Place | None = None,
        own: Place | None = None,
    ) -> None:
        """Tell of a span that began and ended at `times`. Without `own` its id is one of chance."""
        if not self._delivery.room():
            return
        self._ids.next = own
        try:
            span = self._tracer.start_span(
                name,
                context_of(parent),
                kind,
                attributes,
                start_time=round(times[0] * _NANOSECONDS),
            )
        finally:
            self._ids.next = None
        if ERROR in attributes:
            span.set_status(Status(StatusCode.ERROR))
        span.end(round(max(times) * _NANOSECONDS))


def context_of(place: Place | None) -> Context:
    """What is told of together with a span: never what happens to be current."""
    if place is None:
        return Context()
    told = SpanContext(place.trace, place.span, is_remote=True, trace_flags=TraceFlags(1))
    return set_span_in_context(NonRecordingSpan(told), Context())
