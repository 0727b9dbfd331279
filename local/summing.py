"""What did telemetry say, in a few lines?"""

from collections import defaultdict
from collections.abc import Iterator

from local.collector import Collected, Point

SUMS = ("batch.jobs", "batch.rows", "batch.calls", "batch.shards.attempts", "batch.swap.conflicts")
TIMES = ("batch.queue.delay", "batch.call.wait", "gen_ai.client.inference.duration")


def summary(collected: Collected) -> Iterator[str]:
    """Spans by name with the seconds that they took, then sums and times by their attributes."""
    traces = {span.trace for span in collected.spans}
    yield f"{len(collected.spans)} spans in {len(traces)} traces, {len(collected.points)} points"
    seconds: dict[str, list[float]] = defaultdict(list)
    for span in collected.spans:
        seconds[span.name].append(span.ended - span.began)
    for name, took in sorted(seconds.items()):
        yield f"  {name:24} {len(took):6}   {sum(took) / len(took):9.3f} s each"
    for name in SUMS:
        for what, value in sorted(_latest(collected, name).items()):
            yield f"  {name:24} {value[0]:6.0f}   {what}"
    for name in TIMES:
        for what, (count, total) in sorted(_latest(collected, name).items()):
            yield f"  {name:24} {count:6.0f}   {total / max(count, 1):9.3f} s each   {what}"


def _latest(collected: Collected, name: str) -> dict[str, tuple[float, float]]:
    """The last word of each process, added up by attributes: the sum, or count and sum."""
    last: dict[tuple[str, str], Point] = {}
    for point in collected.points:
        if point.name == name:
            last[point.process, _named(point)] = point
    found: dict[str, tuple[float, float]] = {}
    for (_, what), point in last.items():
        count, total = found.get(what, (0.0, 0.0))
        more = point.value if point.count is None else point.count
        found[what] = (count + more, total + point.value)
    return found


def _named(point: Point) -> str:
    told = point.attributes.items()
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in told)
