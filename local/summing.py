"""What did telemetry say, in a few lines?"""

from collections import Counter
from collections.abc import Iterator

from local.collector import Collected, Point

SUMS = ("batch.jobs", "batch.rows", "batch.calls", "batch.shards.attempts", "batch.swap.conflicts")
TIMES = ("batch.queue.delay", "batch.call.wait", "gen_ai.client.inference.duration")


def summary(collected: Collected) -> Iterator[str]:
    """Spans by name with the seconds that they took, then sums and times by their attributes."""
    spans = sum(number for number, _ in collected.took.values())
    yield f"{spans} spans, {collected.points} points"
    for name, (number, seconds) in sorted(collected.took.items()):
        yield f"  {name:24} {number:6}   {seconds / number:9.3f} s each"
    for name in SUMS:
        for what, value in sorted(_latest(collected, name).items()):
            yield f"  {name:24} {value[0]:6.0f}   {what}"
    for name in TIMES:
        for what, (count, total) in sorted(_latest(collected, name).items()):
            yield f"  {name:24} {count:6.0f}   {total / max(count, 1):9.3f} s each   {what}"


def _latest(collected: Collected, name: str) -> dict[str, tuple[float, float]]:
    """The last word of each process, added up by attributes: the sum, or count and sum."""
    found: dict[str, tuple[float, float]] = {}
    for point in collected.told(name):
        what = _named(point)
        count, total = found.get(what, (0.0, 0.0))
        more = point.value if point.count is None else point.count
        found[what] = (count + more, total + point.value)
    return found


def _named(point: Point) -> str:
    """Its attributes by the ends of their names, as long as it takes to tell them apart."""
    ends = Counter(name.rpartition(".")[2] for name in point.attributes)
    told = []
    for name, value in point.attributes.items():
        end = name.rpartition(".")[2]
        told.append(f"{end if ends[end] == 1 else '.'.join(name.split('.')[-2:])} {value}")
    return ", ".join(told)
