"""The operations on deployments over HTTP: how they are, and "try again now"."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from schemas.deployments import Deployment
from schemas.health import BreakerState, DeploymentHealth, DeploymentStatus
from schemas.hours import Hours
from schemas.jobs import JobState
from workers.api.http import HttpRefusal, JsonReply
from workers.jobs import helping, lifecycle
from workers.jobs.events import iso
from workers.jobs.store import JobStore
from workers.jobs.transitions import Transitions
from workers.ports.errors import NewerVersion, Unreadable
from workers.ports.together import all_of
from workers.quota.health import HealthBoard

_WORST: Final[Sequence[BreakerState]] = ("open", "probing", "closed")


class DeploymentsApi:
    """How the processes find each deployment, and a way to have one tried that is out of order."""

    def __init__(
        self,
        deployments: Sequence[Deployment],
        board: HealthBoard,
        store: JobStore,
        transitions: Transitions,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._deployments: Mapping[str, Deployment] = {each.name: each for each in deployments}
        self._board = board
        self._store = store
        self._transitions = transitions
        self._clock = clock

    async def list(self) -> JsonReply:
        """Every deployment of the settings, in their order."""
        told = [each.model_dump(mode="json") for each in await self.statuses()]
        return JsonReply(200, {"object": "list", "data": told, "has_more": False})

    async def statuses(self, most: int | None = None) -> tuple[DeploymentStatus, ...]:
        """How each deployment is; of each, the newest `most` words count."""
        known = self._deployments.values()
        return tuple(await all_of(lambda deployment: self._status(deployment, most), known))

    def unknown(self) -> tuple[DeploymentStatus, ...]:
        """Each deployment, where nobody can say how it is."""
        return tuple(summed(each, (), self._clock()) for each in self._deployments.values())

    async def probe(self, name: str) -> JsonReply:
        """Let open breakers take a call now, and bring the rows back that wait for this one.

        Without the latter the next call would come when the shards do that were handed back.
        """
        deployment = self._deployments.get(name)
        if deployment is None:
            known = ", ".join(self._deployments)
            message = f"there is no such deployment; known: {known}"
            raise HttpRefusal(404, "unknown_deployment", message, param="name")
        await self._board.ask_probe(name, self._clock())
        async for job_id, _ in self._store.open_jobs():
            # Those are a later version's to bring back, or nobody's.
            with suppress(NewerVersion, Unreadable):
                await self._bring_back(job_id, name)
        return JsonReply(202, (await self._status(deployment)).model_dump(mode="json"))

    async def _bring_back(self, job_id: str, deployment: str) -> None:
        job, held = await self._store.job(job_id), await self._store.state(job_id)
        if job is None or held is None or not _waits_for(held.state, deployment):
            return

        def tried(state: JobState | None, repeated: bool) -> lifecycle.Change:
            if state is None or not (repeated or _waits_for(state, deployment)):
                return lifecycle.NOTHING
            return helping.retry(state, repeated=repeated, now=self._clock())

        await self._transitions.take(job, tried)

    async def _status(self, deployment: Deployment, most: int | None = None) -> DeploymentStatus:
        now = self._clock()
        told = _with_hours(
            summed(deployment, await self._board.told(deployment.name, now, most), now),
            deployment.open_hours,
            now,
        )
        if deployment.requests_per_minute is None and deployment.tokens_per_minute is None:
            return told
        granted = await self._board.granted(deployment.name, now)
        if granted is None:
            return told
        held, used = granted
        return told.model_copy(update={"granted": round(held, 3), "headroom": round(used, 3)})


def summed(
    deployment: Deployment, told: Sequence[DeploymentHealth], now: float
) -> DeploymentStatus:
    """What all processes found together: the worst breaker, and until when it stays open."""
    worst = next((state for state in _WORST if any(each.breaker == state for each in told)), None)
    speaking = max(
        (each for each in told if each.breaker == worst and worst != "closed"),
        key=lambda each: each.until or 0.0,
        default=None,
    )
    until = speaking.until if speaking else None
    return DeploymentStatus(
        name=deployment.name,
        model=deployment.model,
        kind=deployment.kind,
        requests_per_minute=deployment.requests_per_minute,
        tokens_per_minute=deployment.tokens_per_minute,
        price=deployment.price,
        processes=len(told),
        breaker=worst,
        message=speaking.message if speaking else None,
        # A word may be older than that: then the next call probes.
        until=None if until is None or until <= now else iso(until),
        in_flight=sum(each.in_flight for each in told),
        guard=sum(limits) if (limits := [each.guard for each in told if each.guard]) else None,
        calls=sum(each.calls for each in told),
        tokens=sum(each.tokens for each in told),
        requests_used=_together((each.requests_used, each.calls - each.refusals) for each in told),
        tokens_used=_together((each.tokens_used, each.tokens) for each in told),
        refusals=sum(each.refusals for each in told),
        failing=tuple(sorted({name for each in told for name in each.failing})),
    )


def _together(told: Iterable[tuple[float | None, int]]) -> float | None:
    """The sum of what processes tell that they use; None where none of them does.

    Each reckons a minute from some seconds: that is no more than it has ever used.
    """
    known = [min(used, ever) for used, ever in told if used is not None]
    return sum(known) if known else None


def _with_hours(told: DeploymentStatus, hours: Hours | None, now: float) -> DeploymentStatus:
    if hours is None:
        return told
    is_open, until = hours.standing(now)
    opens = None if is_open else iso(until)
    return told.model_copy(update={"hours": str(hours), "opens": opens})


def _waits_for(state: JobState, deployment: str) -> bool:
    waiting = state.waiting
    return waiting is not None and (waiting.reason, waiting.deployment) == ("outage", deployment)
