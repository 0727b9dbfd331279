"""What attempts of a capped job hold of its cap, and what becomes of it where they cannot ask."""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from random import Random
from time import time
from typing import Any

import pytest

from schemas.budgets import NOTHING_SPENT, Allotment, JobBudget, Spend
from schemas.deployments import Task
from schemas.jobs import Job, JobState
from schemas.outcomes import Outcome, Usage
from tests.doubles import MemoryBlobs
from tests.doubles.bus import Delivery, MemoryBus
from tests.doubles.service import Answering, Bench, Ended, bench, received
from tests.jobs.test_lifecycle import begun, job
from tests.shards.test_caps import Billing, deployment, rows
from tests.simulation.virtual_time import run
from workers.dispatch.call import Gate
from workers.jobs.budget import allotment
from workers.jobs.lifecycle import Change
from workers.jobs.outbox import SHARDS
from workers.ports import BlobRef, Received
from workers.ports.errors import Draining, Unavailable
from workers.rows.most_tokens import most_tokens
from workers.shards.journal import Journal
from workers.shards.purse import ShardPurse

OPTIONS = {"max_tokens": 10, "max_total_tokens": 4000}
ONE_AT_A_TIME = deployment(max_concurrency=1)


class Silent(Billing):
    """Answers nobody."""

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        await asyncio.Event().wait()
        return await super().ask(task, body)


class Full(Billing):
    """Bills the most that a call can be billed for."""

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        bound = most_tokens(task, body)
        assert bound is not None
        outcome = await super().ask(task, body)
        return replace(outcome, usage=Usage(*bound))


async def stopped(one: Bench) -> list[tuple[int, Delivery]]:
    """Drop 200 rows, and have the process stop while it asks one of them; gives its messages."""
    assert isinstance(one.bus, MemoryBus)
    await one.drop(rows(200), options=OPTIONS)
    await one.announce()
    await one.settle(lambda delivery: delivery.queue == SHARDS)
    taken = []
    async with asyncio.TaskGroup() as group:
        while (delivery := one.bus.receive(SHARDS)) is not None:
            message = received(delivery)
            taken.append((json.loads(message.body)["shard"], delivery))
            group.create_task(until_draining(one, message))
            await asyncio.sleep(1.0)
        await asyncio.sleep(8.0)
        await one.runner.drain()
    assert len(taken) > 3
    return taken


async def until_draining(one: Bench, message: Received) -> None:
    with suppress(Draining):
        await one.inbox.shards(message)


def successor(one: Bench, endpoint: Answering) -> AbstractAsyncContextManager[Bench]:
    """Another process over the same storage and bus."""
    assert isinstance(one.bus, MemoryBus)
    same: dict[str, Any] = {"blobs": one.blobs, "bus": one.bus}
    return bench(**same, deployments=(ONE_AT_A_TIME,), endpoint=endpoint, rng=Random(5))


async def go_on(service: Bench, seconds: float) -> None:
    """Deliver what is there, and what comes up to then."""
    for _ in range(int(seconds / 10.0)):
        await service.settle()
        await asyncio.sleep(10.0)


async def end_of_what_was_stopped(**settings: Any) -> tuple[Ended, Billing]:
    """A job whose first process stops while it asks a row; and what the next one asked."""
    endpoint = Billing()
    async with bench(deployments=(ONE_AT_A_TIME,), endpoint=Silent(), **settings) as one:
        assert isinstance(one.bus, MemoryBus)
        for _, delivery in await stopped(one):
            one.bus.abandon(delivery)
        async with successor(one, endpoint) as two:
            await go_on(two, 300.0)
            return await two.ended(), endpoint


def test_what_a_stopped_worker_did_not_ask_for_is_not_spent() -> None:
    async def story(_: Random) -> None:
        ended, endpoint = await end_of_what_was_stopped()
        assert ended.counts["succeeded"] == 200
        spent = ended.event["data"]["budget"]["tokens_spent"]
        # One call may have been billed when the worker stopped, and as much again was in its lot.
        assert endpoint.billed < spent < endpoint.billed + 200

    run(story)


def test_what_could_not_be_given_back_is_not_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    give_back, failed = ShardPurse.give_back, 0

    async def unreached(purse: ShardPurse) -> None:
        nonlocal failed
        failed += 1
        if failed <= 3:
            raise Unavailable("storage")
        await give_back(purse)

    monkeypatch.setattr(ShardPurse, "give_back", unreached)

    async def story(_: Random) -> None:
        # Time enough for one row alone: the other shards are handed back without a call.
        ended, endpoint = await end_of_what_was_stopped(shard_seconds=5.0)
        assert failed >= 3
        assert ended.counts["succeeded"] == 200
        assert ended.event["data"]["budget"]["tokens_spent"] < endpoint.billed + 200

    run(story)


class Conflicting:
    """Transitions of one swap that another process has forestalled."""

    def __init__(self, read: JobState, then: JobState, meanwhile: Callable[[], None]) -> None:
        self.read, self.state, self._meanwhile = read, then, meanwhile

    async def take(
        self, _job: Job, change: Callable[[JobState | None, bool], Change]
    ) -> JobState | None:
        change(self.read, False)
        self._meanwhile()
        self.state = change(self.state, True).state or self.state
        return self.state


async def test_what_others_spent_counts_where_the_lease_was_lost_before_the_swap() -> None:
    """As in seed 7209020: who had stood still took 554 tokens of others back."""
    held = True

    def lost() -> None:
        nonlocal held
        held = False

    def of(spent: int) -> JobBudget:
        stands = Allotment(shard=0, attempt="late", spent=Spend(spent, 0), open=NOTHING_SPENT)
        return JobBudget(max_tokens=4000, max_cost=None, allotted=(stands,))

    before, after = (begun(1).model_copy(update={"budget": of(spent)}) for spent in (46, 600))
    transitions: Any = Conflicting(before, after, lost)
    journal = Journal(MemoryBlobs(time), BlobRef("state", "journal/0/"), "own")
    gate = Gate(until=1.0, deadline=1.0)
    purse = ShardPurse(job(), 0, gate, journal, transitions, clock=time)
    read = {"first": Spend(46, 0), "late": NOTHING_SPENT}
    await purse.open("own", lambda: read if held else {}, [])
    own = allotment(transitions.state.budget, 0)
    assert own is not None
    assert (own.attempt, own.spent, purse.spent) == ("own", Spend(600, 0), Spend(600, 0))


@pytest.mark.slow
def test_what_a_lost_message_holds_of_the_cap_is_free_within_minutes() -> None:
    async def story(_: Random) -> None:
        async with bench(deployments=(ONE_AT_A_TIME,), endpoint=Silent()) as one:
            assert isinstance(one.bus, MemoryBus)
            for shard, delivery in await stopped(one):
                settle = one.bus.complete if shard == 1 else one.bus.abandon
                settle(delivery)
            async with successor(one, Full()) as two:
                for _look in range(3):
                    await go_on(two, 300.0)
                    await two.sweeper.run()
                await go_on(two, 60.0)
                ended = await two.ended()
        assert ended.counts["succeeded"] > 15
        assert ended.event["data"]["budget"]["tokens_spent"] <= OPTIONS["max_total_tokens"]

    run(story)


def test_a_job_pauses_only_when_no_row_that_is_left_fits() -> None:
    long = json.dumps({"prompt": "x" * 9000}).encode() + b"\n"
    options = {"max_tokens": 10, "max_total_tokens": 6000, "on_budget": "pause"}

    async def story(_: Random) -> None:
        endpoint = Billing()
        async with bench(deployments=(deployment(),), endpoint=endpoint) as service:
            await service.drop(long + rows(150) + long + rows(20), options=options)
            await service.announce()
            await go_on(service, 60.0)
            assert service.events[-1]["type"] == "job.paused"
            assert len(endpoint.asked) == 170
            job = service.events[-1]["data"]["job"]
            await service.ask("POST", f"/api/jobs/{job}/cancel")
            await go_on(service, 60.0)
            ended = await service.ended()
        assert (ended.counts["succeeded"], ended.counts["cancelled"]) == (170, 2)

    run(story)
