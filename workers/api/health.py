"""What the service reaches and what waits for it: for probes and alerts, so in a few calls."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final, NamedTuple, TypeVar

from schemas.health import DeploymentStatus, HealthWord, Reached, ServiceHealth
from workers.api.deployments import DeploymentsApi
from workers.api.http import JsonReply
from workers.jobs.outbox import JOBS
from workers.jobs.store import JobStore
from workers.ports import Bus
from workers.ports.errors import StorageError, Unavailable

DEADLINE_SECONDS: Final = 5.0
MOST_COUNTED: Final = 1000
"""Open jobs that are looked at, a page of a listing. Their names sort by age, nearly."""
MOST_WORDS: Final = 8
"""Processes whose words of a deployment are read: the newest, and a breaker's change is new."""

Found = TypeVar("Found")


class _Waiting(NamedTuple):
    jobs: int
    oldest_wait: float | None


class HealthApi:
    """Looks at storage, bus and deployments at the same time, with a short deadline for each."""

    def __init__(
        self,
        store: JobStore,
        bus: Bus,
        deployments: DeploymentsApi,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._bus = bus
        self._deployments = deployments
        self._clock = clock

    async def tell(self) -> JsonReply:
        """200, or 503 where storage or bus cannot be reached."""
        async with asyncio.TaskGroup() as group:
            marked = group.create_task(_reached(self._open()))
            words = group.create_task(_reached(self._deployments.statuses(MOST_WORDS)))
            peeked = group.create_task(_reached(self._bus.reach(JOBS)))
        opened, listed = marked.result()
        told, read = words.result()
        storage, bus = (read if listed.reached else listed), peeked.result()[1]
        deployments = self._deployments.unknown() if told is None else told
        health = ServiceHealth(
            status=_status(storage.reached and bus.reached, deployments),
            storage=storage,
            bus=bus,
            deployments=deployments,
            open_jobs=None if opened is None else opened.jobs,
            oldest_wait_seconds=None if opened is None else opened.oldest_wait,
        )
        code = 503 if health.status == "unavailable" else 200
        return JsonReply(code, health.model_dump(mode="json"), {"Cache-Control": "no-store"})

    async def _open(self) -> _Waiting:
        count, oldest = 0, self._clock()
        async with aclosing(self._store.open_jobs(page=MOST_COUNTED)) as jobs:
            async for _, marked in jobs:
                count, oldest = count + 1, min(oldest, marked)
                if count == MOST_COUNTED:
                    break
        return _Waiting(count, round(self._clock() - oldest, 1) if count else None)


def _status(reached: bool, deployments: tuple[DeploymentStatus, ...]) -> HealthWord:
    if not reached:
        return "unavailable"
    ill = any(each.breaker in ("open", "probing") or each.failing for each in deployments)
    return "degraded" if ill else "ok"


async def _reached(look: Awaitable[Found]) -> tuple[Found | None, Reached]:
    """What a look finds, and whether it found anything."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await look, Reached()
    except TimeoutError:
        return None, Reached(reached=False, message=f"no answer within {DEADLINE_SECONDS:g} s")
    except (Unavailable, StorageError) as error:
        return None, Reached(reached=False, message=str(error))
