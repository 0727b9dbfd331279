"""How seconds are distributed, in a few hundred bytes: counts by buckets that grow by two percent.

Adding two sketches is exact, in any order, so that those of shards come to that of their job. A
quantile is off by one percent at most, and by half a millisecond below one.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, log
from typing import Final

Sketch = dict[int, int]
"""Counts by bucket: 0 is up to a millisecond, n up to 1.02 ** n of them (1,100: a month)."""

_GROWTH: Final = 1.02
_PER_LOG: Final = 1.0 / log(_GROWTH)
_LAST: Final = 1100
_SECOND: Final = 1000.0


def bucket_of(seconds: float) -> int:
    """The bucket of a time."""
    ms = seconds * _SECOND
    # A time at the edge of two buckets is not moved by what its logarithm lacks.
    return 0 if ms <= 1.0 else min(_LAST, ceil(log(ms) * _PER_LOG - 1e-9))


def coarse(bucket: int) -> int:
    """The bucket that stands for five: a sketch of such ones is a fifth as long, and off by five
    percent at most.
    """
    return bucket - bucket % 5 + 2 if bucket else 0


def sketch_of(times: Iterable[float]) -> Sketch:
    """The sketch of some times in seconds."""
    made: Sketch = {}
    for seconds in times:
        bucket = bucket_of(seconds)
        made[bucket] = made.get(bucket, 0) + 1
    return made


def merged(one: Mapping[int, int], other: Mapping[int, int]) -> Sketch:
    """Two sketches as one."""
    if not one or not other:
        return dict(one or other)
    return {each: one.get(each, 0) + other.get(each, 0) for each in sorted({*one, *other})}


def quantiles(sketch: Mapping[int, int], shares: Sequence[float]) -> tuple[float, ...]:
    """The times in seconds below which these shares of a sketch lie; an empty one has none.

    `shares` ascend, from above 0 to 1.
    """
    total = sum(sketch.values())
    if not total:
        return ()
    found: list[float] = []
    seen = 0
    for bucket in sorted(sketch):
        seen += sketch[bucket]
        while len(found) < len(shares) and seen >= shares[len(found)] * total - 1e-9:
            found.append(_middle(bucket))
    return tuple(found)


def _middle(bucket: int) -> float:
    """What is off from all times of a bucket by the same share at most."""
    if bucket <= 0:
        return 0.0005
    return 2.0 * _GROWTH ** min(bucket, _LAST) / (1.0 + _GROWTH) / _SECOND
