"""How does a deployment stand, in numbers that somebody watches?"""

from collections.abc import Iterator

from workers.dispatch.lane import Lane
from workers.ports.telemetry import DeploymentReading, QuotaReading


def reading(lane: Lane, waiting: int, now: float) -> DeploymentReading:
    """A lane at one moment; `waiting` are the calls that wait for it or for those beside it."""
    return DeploymentReading(
        name=lane.name,
        breaker=lane.breaker.state,
        guard=lane.guard.limit,
        in_flight=lane.in_flight,
        waiting=waiting,
        input_tokens=lane.input_tokens,
        output_tokens=lane.output_tokens,
        rounds_failed=lane.allowance.rounds_failed,
        quotas=tuple(_quotas(lane, now)),
    )


def _quotas(lane: Lane, now: float) -> Iterator[QuotaReading]:
    mine, quota = lane.allowance, lane.allowance.quota
    granted = mine.granted(now)
    if limit := quota.requests_per_minute:
        room = mine.headroom("requests")
        yield QuotaReading("requests", limit, limit * granted, room, lane.calls)
    if limit := quota.tokens_per_minute:
        room = mine.headroom("tokens")
        yield QuotaReading("tokens", limit, limit * granted, room, lane.tokens_used)
