"""What a job's status is told of its shards while they are out."""

import asyncio
from collections.abc import Callable, Collection

from schemas.jobs import Job, JobState, Waiting
from workers.jobs import lifecycle
from workers.jobs.lifecycle import Progress
from workers.jobs.transitions import Transitions
from workers.shards.attempt import Attempt


class Reports:
    """The class tells it. Each method raises `Unavailable` or `StorageError` where it cannot."""

    def __init__(self, transitions: Transitions, clock: Callable[[], float]) -> None:
        self._transitions = transitions
        self._clock = clock

    async def progress(
        self, job: Job, attempts: Collection[Attempt], seen: JobState | None = None
    ) -> None:
        """Let the job's status count what is done in shards of this process.

        Where its state was `seen` a moment ago, it is told once in a while; else at once.
        `attempts` are looked at again at each try: others may have ended, and told more, meanwhile.
        """

        def reported(state: JobState | None, _repeated: bool) -> lifecycle.Change:
            if state is None:
                return lifecycle.NOTHING
            done = _done(job, attempts)
            return lifecycle.report(state, done, self._clock(), at_once=seen is None)

        if seen is None or reported(seen, False).state is not None:
            await self._transitions.take(job, reported)

    async def waiting(self, job: Job, waiting: Waiting) -> None:
        """Let the job's status say what it waits for."""

        def waits(state: JobState | None, _repeated: bool) -> lifecycle.Change:
            return lifecycle.NOTHING if state is None else lifecycle.wait(state, waiting)

        await self._transitions.take(job, waits)


def _done(job: Job, attempts: Collection[Attempt]) -> dict[int, Progress]:
    """How far the shards of a job are. Without its lease, another attempt may be further."""
    now = asyncio.get_running_loop().time()
    return {
        each.shard: each.journaled
        for each in attempts
        if each.job.id == job.id and each.journaled is not None and now < each.lease.until
    }
