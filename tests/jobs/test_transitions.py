"""What is told of a job where two change its state at the same time."""

from random import Random

from schemas.jobs import JobState, Waiting
from tests.doubles.service import EPOCH, bench
from workers.jobs import lifecycle
from workers.jobs.history import History
from workers.jobs.outbox import SHARDS, Outbox
from workers.jobs.store import Held, JobStore
from workers.jobs.transitions import Transition, Transitions
from workers.ports.telemetry import Telemetry

ROWS = b'{"prompt": "a"}\n{"prompt": "b"}\n'


def reported(state: JobState | None, _repeated: bool) -> lifecycle.Change:
    assert state is not None
    return lifecycle.report(state, {0: 1}, EPOCH + 60.0)


def waits(state: JobState | None, _repeated: bool) -> lifecycle.Change:
    assert state is not None
    return lifecycle.wait(state, Waiting(reason="quota", deployment="phi", since=EPOCH))


class Contended(JobStore):
    """Another worker makes the same transition just before."""

    def __init__(self, store: JobStore, other: Transitions, transition: Transition) -> None:
        super().__init__(
            store.blobs,
            state_container=store.state_container,
            results_container=store.results_container,
        )
        self._other: Transitions | None = other
        self._transition = transition

    async def swap(self, job: str, before: Held | None, after: JobState) -> bool:
        other, self._other = self._other, None
        found = await self.job(job)
        if other is not None and found is not None:
            await other.take(found, self._transition)
        return await super().swap(job, before, after)


async def events_of(transition: Transition) -> list[str]:
    """What two workers tell who make one transition at the same time, after the first event."""
    async with bench() as made:
        await made.drop(ROWS)
        await made.announce()
        await made.settle(stop=lambda delivery: delivery.queue == SHARDS)
        known = len(made.events)
        job = await made.store.job(made.events[-1]["data"]["job"])
        assert job is not None

        def transitions(store: JobStore) -> Transitions:
            outbox = Outbox(made.bus, results_container="results", clock=made.clock, rng=Random(0))
            return Transitions(store, outbox, History(store), rng=Random(0), telemetry=Telemetry())

        contended = Contended(made.store, transitions(made.store), transition)
        await transitions(contended).take(job, transition)
        return [event["type"] for event in made.events[known:]]


async def test_a_report_that_another_worker_has_made_is_told_once() -> None:
    assert await events_of(reported) == ["job.progress"]


async def test_a_wait_that_another_worker_has_noted_is_told_once() -> None:
    assert await events_of(waits) == ["job.progress"]
