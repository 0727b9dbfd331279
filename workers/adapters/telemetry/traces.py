"""Which trace a job has, which spans are its own, and which shards are looked at.

All of it follows from ids, so that every process and every attempt comes to the same: a job's span
is told of by whoever closes it, hours after others have named it as their parent.
"""

import hashlib
from typing import Final, NamedTuple

from schemas.jobs import TRACEPARENT

MOST_SHARDS: Final = 1000
"""Shards of a job whose attempts have spans, about; of the others those alone that end badly."""
SAMPLED: Final = 1


class Place(NamedTuple):
    """Where a span is: its trace and itself, as numbers."""

    trace: int
    span: int


def _number(text: str, bits: int) -> int:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[: bits // 8], "big") or 1


def read(traceparent: str | None) -> tuple[Place, bool] | None:
    """A place in a traceparent, and whether its sender keeps the span; None for what is none."""
    if traceparent is None or not TRACEPARENT.fullmatch(traceparent):
        return None
    _, trace, span, flags = traceparent.split("-")
    place = Place(int(trace, 16), int(span, 16))
    return (place, bool(int(flags, 16) & SAMPLED)) if all(place) else None


def written(place: Place) -> str:
    """A place as a traceparent, whose span is kept."""
    return f"00-{place.trace:032x}-{place.span:016x}-01"


def of_job(job: str, asked: str | None) -> Place:
    """A job's own span: in the trace of whoever asked for it, or in one of its own."""
    told = read(asked)
    return Place(told[0].trace if told else _number(f"trace {job}", 128), _number(f"job {job}", 64))


def parent(asked: str | None) -> Place | None:
    """The span of whoever asked, if it is kept: one that is not would leave its parts orphans."""
    told = read(asked)
    return told[0] if told and told[1] else None


def of_attempt(attempt: str) -> int:
    """The span of an attempt, whose name is a UUID."""
    return int(attempt.replace("-", "")[:16], 16) or 1


def looked_at(job: str, shard: int, shards: int) -> bool:
    """Whether all attempts at a shard have spans."""
    return _number(f"{job} {shard}", 32) * max(shards, 1) < MOST_SHARDS * 2**32
