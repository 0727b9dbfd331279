"""The parts that make jobs of files, put together."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from workers.dispatch.dispatcher import Dispatcher
from workers.intake.doors import Doors
from workers.intake.drops import Drops
from workers.intake.estimates import Estimates
from workers.intake.estimating import QuotaEstimator
from workers.intake.intake import Intake
from workers.intake.nightly import Nightly
from workers.intake.plans import Plans
from workers.intake.verdicts import Preflight
from workers.jobs.index import JobIndex
from workers.jobs.months import MonthlyBudgets
from workers.jobs.outbox import Outbox
from workers.jobs.rejections import Rejections
from workers.jobs.store import JobStore
from workers.jobs.transitions import Transitions
from workers.ports.telemetry import Telemetry
from workers.quota.health import HealthBoard
from workers.settings import Settings
from workers.shards.calls import WEIGHT_OF_PRIORITY


@dataclass(frozen=True, slots=True)
class Entrance:
    """What a file meets on its way to a planned job."""

    index: JobIndex
    rejections: Rejections
    intake: Intake
    doors: Doors
    nightly: Nightly
    drops: Drops
    estimates: Estimates

    @classmethod
    def of(
        cls,
        store: JobStore,
        transitions: Transitions,
        outbox: Outbox,
        dispatcher: Dispatcher,
        board: HealthBoard,
        *,
        telemetry: Telemetry,
        settings: Settings,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> Self:
        """Make the parts over those that all share."""
        estimates = _estimates(store, dispatcher, board, settings, clock)
        index = JobIndex(store)
        rejections = Rejections(index, outbox, settings.tenants, clock=clock)
        intake = Intake(
            *(store, transitions, outbox, index, rejections),
            telemetry=telemetry,
            months=MonthlyBudgets(store, rng=rng),
            plans=Plans(store, dispatcher, estimates, settings, clock=clock, rng=rng),
            settings=settings,
            clock=clock,
        )
        doors = Doors(
            *(store, outbox, index, rejections, intake),
            telemetry=telemetry,
            settings=settings,
            clock=clock,
        )
        nightly = Nightly(store, doors, container=settings.nightly_container, clock=clock)
        drops = Drops(store, doors, clock=clock)
        return cls(index, rejections, intake, doors, nightly, drops, estimates)


def _estimates(
    store: JobStore,
    routes: Preflight,
    board: HealthBoard,
    settings: Settings,
    clock: Callable[[], float],
) -> Estimates:
    return Estimates(
        store,
        routes,
        QuotaEstimator(settings.deployments, settings.routes, settings.default_models),
        board,
        settings.tenants,
        weights=WEIGHT_OF_PRIORITY,
        hours=settings.priority_hours,
        clock=clock,
    )
