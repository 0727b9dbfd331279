"""Looks at how the process stands, in its event loop: readers come in threads of their own."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Final

from workers.adapters.telemetry import names
from workers.adapters.telemetry.delivery import Delivery
from workers.adapters.telemetry.meters import NONE, Measure, Meters
from workers.adapters.telemetry.telling import TelemetryTeller
from workers.ports.telemetry import DeploymentReading, ProcessReading

LOOK_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


async def attend(teller: TelemetryTeller, meters: Meters, delivery: Delivery) -> None:
    """Keep what readers find fresh, until cancelled."""
    loop, worst, since = asyncio.get_running_loop(), 0.0, 0
    while True:
        due = loop.time() + LOOK_SECONDS
        await asyncio.sleep(LOOK_SECONDS)
        # The worst of a minute: readers come once in one, and a mean would hide it.
        worst, since = (max(worst, loop.time() - due), since + 1) if since < 60 else (0.0, 0)
        try:
            measures = [] if teller.read is None else list(_of_process(teller.read()))
            told: list[Measure] = [(names.LOOP_LAG, worst, NONE)]
            if delivery.dropped:
                told.append((names.DROPPED, delivery.dropped, NONE))
            meters.stands((*told, *measures))
        except Exception:
            log.exception("[READING_BUG] how the process stands could not be read")


def _of_process(reading: ProcessReading) -> Iterator[Measure]:
    yield names.SHARDS_ACTIVE, reading.shards, NONE
    if reading.ledger_conflicts:
        yield names.CONFLICTS, reading.ledger_conflicts, ((names.DOCUMENT, "quota"),)
    for each in reading.deployments:
        yield from _of_deployment(each)


def _of_deployment(reading: DeploymentReading) -> Iterator[Measure]:
    of = ((names.DEPLOYMENT, reading.name),)
    yield names.IN_FLIGHT, reading.in_flight, of
    yield names.WAITING, reading.waiting, of
    yield names.GUARD, reading.guard, of
    yield names.BREAKER, float(reading.breaker != "closed"), of
    yield names.INPUT_TOKENS, reading.input_tokens, of
    yield names.OUTPUT_TOKENS, reading.output_tokens, of
    yield names.ROUNDS_FAILED, reading.rounds_failed, of
    for quota in reading.quotas:
        limit = (*of, (names.LIMIT, quota.kind))
        yield names.QUOTA_LIMIT, quota.limit, limit
        yield names.QUOTA_GRANTED, quota.granted, limit
        yield names.QUOTA_HEADROOM, quota.headroom, limit
        yield names.QUOTA_USED, quota.used, limit
