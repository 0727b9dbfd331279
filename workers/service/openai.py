"""The parts of the doors under `/v1` and `/openai`, put together."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from workers.api.acting import JobActions
from workers.api.openai.batches import BatchesApi
from workers.api.openai.creating import BatchCreator
from workers.api.openai.door import OpenAiDoor
from workers.api.openai.files import FilesApi
from workers.api.openai.uploads import UploadsApi
from workers.files.store import FileStore
from workers.intake.doors import Doors
from workers.intake.estimates import Estimates
from workers.intake.intake import Intake
from workers.jobs.index import JobIndex
from workers.jobs.outbox import Outbox
from workers.jobs.store import JobStore
from workers.ports import SignedTokens, Transfers
from workers.settings import Settings


@dataclass(frozen=True, slots=True)
class Jobs:
    """The parts of a process that its doors over HTTP share."""

    store: JobStore
    index: JobIndex
    doors: Doors
    intake: Intake
    actions: JobActions
    outbox: Outbox
    estimates: Estimates


def openai_door(
    jobs: Jobs,
    files: FileStore,
    transfers: Transfers,
    tokens: SignedTokens | None,
    settings: Settings,
    *,
    clock: Callable[[], float],
    rng: random.Random,
) -> OpenAiDoor:
    """Make the door over the parts that all doors share."""
    files_api = FilesApi(files, jobs.store, transfers, settings=settings, clock=clock, rng=rng)
    creator = BatchCreator(
        *(files_api, files, jobs.store, jobs.index, jobs.intake),
        doors=jobs.doors,
        clock=clock,
        rng=rng,
    )
    batches = BatchesApi(creator, jobs.store, jobs.index, jobs.actions, jobs.outbox, clock=clock)
    uploads = UploadsApi(files_api, files, transfers, clock=clock, rng=rng)
    return OpenAiDoor(
        *(files_api, uploads, batches),
        estimates=jobs.estimates,
        settings=settings,
        tokens=tokens,
        clock=clock,
        rng=rng,
    )
