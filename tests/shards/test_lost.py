"""Calls whose answers nobody kept: what a job cost at most is never less than what was billed."""

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest

from schemas.deployments import Deployment, Task
from schemas.money import Price, micros
from schemas.outcomes import Outcome, Usage
from schemas.results import Use
from tests.doubles import MemoryBlobs, MemoryBus
from tests.doubles.faults import FaultyBlobs, Phase, ProcessKilled
from tests.doubles.service import EPOCH, Answering, Bench, Ended, bench, received
from tests.shards.test_caps import PRICE, deployment, rows
from tests.simulation.virtual_time import run
from workers.jobs.costs import cost_of
from workers.jobs.outbox import SHARDS

ROWS = 100
PRICES = PRICE.pinned


class Judge(Answering):
    """Bills each call as it begins; while it `hangs` none has an answer."""

    def __init__(self, *, hangs: bool = False) -> None:
        super().__init__()
        self.hangs = hangs
        self.billed = 0

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        assert PRICES is not None
        self.billed += PRICES.of(7, 5)
        if self.hangs:
            await asyncio.Event().wait()
        return await super().ask(task, body)


class Fate:
    """Of a process: once it is `dead` no call of it comes through."""

    dead = False

    def __call__(self, _kind: str, _name: str, _phase: Phase) -> None:
        if self.dead:
            raise ProcessKilled


async def left_by(first: Bench, fate: Fate, ends: str) -> None:
    """Have a process ask all rows of a job, and go away before any answer."""
    given, tasks, bus = [], [], first.bus
    assert isinstance(bus, MemoryBus)
    while (delivery := bus.receive(SHARDS)) is not None:
        given.append(delivery)
        tasks.append(asyncio.create_task(first.inbox.shards(received(delivery))))
    await asyncio.sleep(8.0)
    if ends == "drain":
        await first.runner.drain()
    fate.dead = True
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for delivery in given:
        bus.abandon(delivery)


def gone(
    ends: str, first_has: Sequence[Deployment] = (), **options: Any
) -> tuple[Ended, Mapping[str, Any], int]:
    """A job whose first worker goes away; gives what it came to, its status, and what was billed.

    The last is in millionths of a unit. The first worker may have other deployments than the next.
    """
    found: list[tuple[Ended, Mapping[str, Any], int]] = []

    async def story(rng: Random) -> None:
        memory = MemoryBlobs(lambda: EPOCH + asyncio.get_running_loop().time())
        fate, hanging = Fate(), Judge(hangs=True)
        async with bench(
            blobs=FaultyBlobs(memory, fate),
            transfers=memory,
            deployments=first_has or (deployment(),),
            endpoint=hanging,
        ) as first:
            await first.drop(rows(ROWS, model="phi-3-mini"), options={"max_tokens": 10, **options})
            await first.announce()
            await first.settle(lambda delivery: delivery.queue == SHARDS)
            if ends:
                await left_by(first, fate, ends)
            second = Bench(
                blobs=memory,
                bus=first.bus,
                settings=first.settings.model_copy(update={"deployments": (deployment(),)}),
                endpoint=Judge(),
                transfers=memory,
                rng=rng,
            )
            shares = asyncio.create_task(second.dispatcher.run())
            for _ in range(20):
                await second.settle()
                await asyncio.sleep(11.0)
            shares.cancel()
            ended = await second.ended()
            told = await second.ask("GET", f"/api/jobs/{ended.manifest['job']}")
            billed = hanging.billed + getattr(second.endpoint, "billed", 0)
            found.append((ended, told.body, billed // 1_000_000))

    run(story)
    return found[0]


@pytest.mark.parametrize(
    ("ends", "options"),
    [("drain", {"max_tokens": None}), ("kill", {}), ("kill", {"max_tokens": 10})],
)
def test_a_worker_that_goes_away_leaves_no_bound_and_says_why(
    ends: str, options: Mapping[str, Any]
) -> None:
    ended, status, billed = gone(ends, **options)
    cost = ended.manifest["cost"]
    assert ended.counts["succeeded"] == ROWS
    assert micros(cost["counted"]) < billed
    assert cost["at_most"] is None
    if ends == "drain":
        assert cost["unmetered_calls"] * 17 == billed - micros(cost["counted"])
    else:
        assert cost["crashes"] > 0
    for told in (status["cost"], ended.event["data"]["cost"]):
        assert {name: told.get(name) for name in cost} == cost


@pytest.mark.parametrize("ends", ["drain", "kill"])
def test_a_cap_bounds_what_a_worker_that_went_away_has_cost(ends: str) -> None:
    ended, status, billed = gone(ends, max_cost="1")
    cost = ended.manifest["cost"]
    assert cost["at_most"] == ended.manifest["budget"]["cost_spent"]
    assert micros(cost["counted"]) < billed <= micros(cost["at_most"]) <= 1_000_000
    assert status["cost"]["at_most"] == ended.event["data"]["cost"]["at_most"] == cost["at_most"]


def test_max_tokens_bounds_the_calls_that_a_worker_cut_off_as_it_went_away() -> None:
    ended, status, billed = gone("drain")
    cost = ended.manifest["cost"]
    assert cost["unmetered_calls"] * 17 == billed - micros(cost["counted"])
    assert micros(cost["counted"]) < billed <= micros(cost["at_most"]) <= 10 * billed
    assert status["cost"]["at_most"] == ended.event["data"]["cost"]["at_most"] == cost["at_most"]


DEAR = Price(input="100", output="200", currency="USD")


@pytest.mark.parametrize(("price", "times"), [(DEAR, 100), (None, None)])
def test_calls_that_were_cut_off_are_bounded_by_what_their_worker_could_ask(
    price: Price | None, times: int | None
) -> None:
    # By its successor's settings another deployment answers, and takes a hundredth; so the judge.
    cheap = deployment(model="another")
    ended, _, billed = gone("drain", (deployment("other", price=price), cheap))
    cost = ended.manifest["cost"]
    assert cost["unmetered_calls"] > 0
    if times is None:
        assert cost["at_most"] is None
    else:
        assert micros(cost["at_most"]) > times * (billed - micros(cost["counted"]))


class Late(Answering):
    """Times out the first time, and may have billed that."""

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        self.asked.append((task, body))
        if len(self.asked) == 1:
            return Outcome("timeout", billed=True)
        return Outcome("ok", 200, {"choices": []}, Usage(7, 5), billed=True)


async def test_a_bound_that_does_not_fit_its_place_keeps_no_job_from_ending() -> None:
    async with bench(deployments=(deployment(price=DEAR),), endpoint=Late()) as service:
        ended = await service.run(rows(1), options={"max_tokens": 2**62})
    assert (ended.manifest["cost"]["at_most"], ended.counts["succeeded"]) == (None, 1)


def test_tokens_that_the_first_release_counted_leave_no_bound() -> None:
    use = {"phi": Use(calls=2, tokens=24, prompt_tokens=7, completion_tokens=5)}
    told = cost_of(use, {"phi": PRICES} if PRICES else {})
    assert (told.counted, told.at_most) == ("0.000041", None)


def test_calls_without_a_price_that_told_nothing_leave_no_bound() -> None:
    assert PRICES is not None
    told = {
        "phi": Use(calls=1, outcomes={"ok": 1}, tokens=12, prompt_tokens=7, completion_tokens=5)
    }
    free = {"free": Use(calls=2, outcomes={"timeout": 2}, unmetered_calls=2)}
    cost = cost_of(told | free, {"phi": PRICES})
    assert (cost.counted, cost.at_most, cost.unpriced_calls) == ("0.000017", None, 2)


@pytest.mark.parametrize("options", [{}, {"max_cost": "1"}])
def test_where_nobody_goes_away_the_bound_is_what_was_billed(options: Mapping[str, Any]) -> None:
    ended, status, billed = gone("", **options)
    cost = ended.manifest["cost"]
    assert micros(cost["counted"]) == micros(cost["at_most"]) == billed
    assert status["cost"]["at_most"] == cost["at_most"]
    assert cost["unmetered_calls"] == 0
    assert "crashes" not in cost
