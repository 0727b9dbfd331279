"""Sums, gauges and histograms. Sums are plain numbers that the reader looks at when it comes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider

from workers.adapters.telemetry.names import GAUGES, SECONDS, SERVICE, SUMS

Attributes = tuple[tuple[str, str], ...]
Measure = tuple[str, float, Attributes]
NONE: Final[Attributes] = ()


class Meters:
    """All instruments. Readers come in threads of their own: they are given copies."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(SERVICE)
        self._sums: dict[str, dict[Attributes, float]] = {name: {} for name in SUMS}
        self._measured: Sequence[Measure] = ()
        self._histograms = {
            name: meter.create_histogram(name, "s", explicit_bucket_boundaries_advisory=ends)
            for name, ends in SECONDS.items()
        }
        for name, unit in SUMS.items():
            meter.create_observable_counter(name, [partial(self._read_sum, name)], unit)
        for name, unit in GAUGES.items():
            meter.create_observable_gauge(name, [partial(self._read_gauge, name)], unit)

    def add(self, name: str, number: float = 1, attributes: Attributes = NONE) -> None:
        """Count more of something."""
        sums = self._sums[name]
        sums[attributes] = sums.get(attributes, 0) + number

    def stands(self, measures: Iterable[Measure]) -> None:
        """Note how everything stands: gauges, and sums that others keep."""
        measured = tuple(measures)
        for name, value, attributes in measured:
            if name in SUMS:
                self._sums[name][attributes] = value
        self._measured = tuple(each for each in measured if each[0] in GAUGES)

    def record(
        self, name: str, seconds: float, attributes: Mapping[str, str], within: Context
    ) -> None:
        """Record a time; within the context of a span that is kept, with it as an example."""
        self._histograms[name].record(seconds, attributes, within)

    def _read_sum(self, name: str, _: CallbackOptions) -> Iterator[Observation]:
        for attributes, value in list(self._sums[name].items()):
            yield Observation(value, dict(attributes))

    def _read_gauge(self, name: str, _: CallbackOptions) -> Iterator[Observation]:
        for measured, value, attributes in self._measured:
            if measured == name:
                yield Observation(value, dict(attributes))
