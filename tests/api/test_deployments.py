"""Deployments over HTTP: how the processes find them, and a try at once."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Mapping
from random import Random
from typing import Any

import pytest

from schemas.deployments import Task
from schemas.health import DeploymentHealth
from schemas.money import Price
from schemas.outcomes import Outcome
from tests.doubles.service import DEPLOYMENT, Answering, Bench, bench
from tests.simulation.virtual_time import run
from workers.api.deployments import summed
from workers.dispatch.breaker import REFUSED_FIRST
from workers.dispatch.lane import Lane
from workers.dispatch.reporting import Reporter, used_since
from workers.quota.health import HealthBoard

ROWS = b'{"prompt": "a"}\n{"prompt": "b"}\n'


class WrongKey(Answering):
    """An endpoint that takes no key until it is mended."""

    mended = False
    tried = 0

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        self.tried += 1
        if self.mended:
            return await super().ask(task, body)
        await asyncio.sleep(0)
        return Outcome("auth", 401, code="auth", message="the key is refused: mend PHI_KEY")


@contextlib.asynccontextmanager
async def refused(endpoint: WrongKey) -> AsyncIterator[Bench]:
    """A job whose deployment has refused the key for so long that its pause is ten minutes."""
    async with bench(endpoint=endpoint, shard_seconds=20) as service:
        reporting = asyncio.create_task(service.service.reporter.run())
        await service.drop(ROWS)
        await service.announce()
        until = service.clock() + 1800
        while service.clock() < until or not await waits(service):
            await service.settle()
            await asyncio.sleep(5)
        yield service
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)


async def waited_since(service: Bench) -> str:
    """Since when the one job's status says that it waits."""
    (job,) = (await service.ask("GET", "/api/jobs")).body["data"]
    assert job["waiting"]["reason"] == "outage"
    return str(job["waiting"]["since"])


async def waits(service: Bench) -> bool:
    """Whether the job's shards are away for minutes."""
    (lane,) = service.dispatcher.lanes()
    left = lane.breaker.open_until - asyncio.get_running_loop().time()
    return lane.breaker.state == "open" and left > 400


async def settled(service: Bench, seconds: float) -> None:
    until = service.clock() + seconds
    while service.clock() < until:
        await service.settle()
        await asyncio.sleep(0.5)


def test_a_wish_to_try_brings_the_rows_back_within_seconds() -> None:
    async def story(_: Random) -> None:
        endpoint = WrongKey()
        async with refused(endpoint) as service:
            listed = (await service.ask("GET", "/api/deployments")).body["data"]
            assert [(each["name"], each["breaker"]) for each in listed] == [("phi", "open")]
            assert "mend PHI_KEY" in listed[0]["message"]
            endpoint.mended = True
            await settled(service, 60)
            assert endpoint.asked == []
            reply = await service.ask("POST", "/api/deployments/phi/probe")
            assert reply.code == 202
            await settled(service, 10)
            assert (await service.ended()).counts["succeeded"] == 2
            (told,) = (await service.ask("GET", "/api/deployments")).body["data"]
            assert (told["breaker"], told["message"]) == ("closed", None)

    run(story)


def test_a_refused_key_is_a_line_every_ten_minutes_and_one_where_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "workers")

    async def story(_: Random) -> None:
        endpoint = WrongKey()
        async with refused(endpoint) as service:
            endpoint.mended = True
            await service.ask("POST", "/api/deployments/phi/probe")
            await settled(service, 30)

    run(story)
    *during, end = (record.getMessage() for record in caplog.records)
    refusal = "[OUT_OF_ORDER] deployment phi is out of order: the key is refused: mend PHI_KEY"
    said = re.search(r"^\[IN_ORDER\] deployment phi is in order again: .* (\d+) s$", end)
    assert said
    assert during == [refusal] * (1 + int(said[1]) // 600)


def test_a_try_in_vain_costs_one_call_and_waits_again() -> None:
    async def story(_: Random) -> None:
        endpoint = WrongKey()
        async with refused(endpoint) as service:
            before, since = endpoint.tried, await waited_since(service)
            await service.ask("POST", "/api/deployments/phi/probe")
            assert await waited_since(service) == since
            await settled(service, REFUSED_FIRST)
            assert endpoint.tried == before + 1
            assert await waits(service)
            assert await waited_since(service) == since, "it is the same outage"

    run(story)


def test_wishes_every_second_do_not_hold_the_rows_back() -> None:
    async def story(_: Random) -> None:
        endpoint = WrongKey()
        async with refused(endpoint) as service:
            endpoint.mended = True
            for _second in range(20):
                await service.ask("POST", "/api/deployments/phi/probe")
                await settled(service, 1)
            assert (await service.ended()).counts["succeeded"] == 2

    run(story)


def test_a_wish_of_before_the_fault_is_none() -> None:
    async def story(_: Random) -> None:
        endpoint = WrongKey()
        async with bench(endpoint=endpoint, shard_seconds=20) as service:
            await service.ask("POST", "/api/deployments/phi/probe")
            await settled(service, 60)
            reporting = asyncio.create_task(service.service.reporter.run())
            await service.drop(ROWS)
            await service.announce()
            await settled(service, REFUSED_FIRST * 0.8)
            reporting.cancel()
            # Both rows may be on their way when the first answer comes; then nobody asks.
            assert 1 <= endpoint.tried <= 2

    run(story)


def test_a_process_whose_breaker_closes_lets_the_others_try() -> None:
    async def story(_: Random) -> None:
        async with refused(WrongKey()) as service:
            now = asyncio.get_running_loop().time
            lane = Lane(DEPLOYMENT, safe_share=1.0, midnight=1e9, now=now(), rng=Random(1))
            lane.calls, breaker = 1, lane.breaker
            board = HealthBoard(service.blobs, "state")
            other = Reporter(
                board, "other", wall=service.clock, lanes=lambda: [lane], moved=lambda _: None
            )
            wrong = Outcome("auth", 401)
            breaker.bad(wrong, 1, job="job", sent=now(), probe=False, now=now(), rng=Random(1))
            reporting = asyncio.create_task(other.run())
            await settled(service, 10)
            assert await waits(service), "one that is open as well tells nobody to try"
            breaker.good(now())
            await settled(service, 6)
            assert not await waits(service)
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)

    run(story)


def test_what_is_used_of_a_deployment_in_a_minute_is_told_by_the_processes_that_ask_it() -> None:
    async def story(_: Random) -> None:
        async with bench() as service:
            lanes = [
                Lane(DEPLOYMENT, safe_share=1.0, midnight=1e9, now=0.0, rng=Random(n))
                for n in range(2)
            ]

            async def used() -> tuple[float | None, float | None]:
                (told,) = (await service.ask("GET", "/api/deployments")).body["data"]
                return told["requests_used"], told["tokens_used"]

            def asked() -> None:
                """Five calls and 200 tokens of each, and a 429, which uses nothing."""
                for lane in lanes:
                    lane.calls, lane.refusals = lane.calls + 6, lane.refusals + 1
                    lane.input_tokens += 200

            def reporter(name: str, lane: Lane) -> Reporter:
                board = HealthBoard(service.blobs, "state")
                return Reporter(
                    board, name, wall=service.clock, lanes=lambda: [lane], moved=lambda _: None
                )

            reporting = [
                asyncio.create_task(reporter(f"p{n}", lane).run()) for n, lane in enumerate(lanes)
            ]
            assert await used() == (None, None)
            told = []
            for step in range(150):
                asked()
                await asyncio.sleep(0.5)
                if step in {5, 59, 149}:
                    told.append(await used())
            assert told[0] == (None, None), "the first second tells of no minute"
            requests, tokens = told[1]
            assert requests is not None
            assert tokens is not None
            assert requests <= 600, "in half a minute as many have been let through"
            assert tokens <= 24000
            assert told[2] == pytest.approx((1200, 48000), rel=0.1)
            await asyncio.sleep(90)
            assert await used() == (None, None)
            for task in reporting:
                task.cancel()
            await asyncio.gather(*reporting, return_exceptions=True)

    run(story)


def test_a_word_that_comes_at_once_after_another_tells_the_rate_of_that() -> None:
    lane = Lane(DEPLOYMENT, safe_share=1.0, midnight=1e9, now=0.0, rng=Random(1))
    lane.calls, lane.output_tokens = 150, 3000
    before = DeploymentHealth(at=100.0, calls=100, tokens=1000, requests_used=600, tokens_used=9000)
    assert used_since(before, lane, 101.0) == (600, 9000)
    assert used_since(before, lane, 99.0) == (600, 9000), "a clock that was set back"
    assert used_since(before, lane, 110.0) == (300, 12000)
    assert used_since(before, lane, 161.0) == used_since(None, lane, 110.0) == (None, None)


async def test_the_price_of_a_deployment_is_told_as_it_was_given() -> None:
    price = Price(per_hour="1.50", currency="EUR")
    rented = DEPLOYMENT.model_copy(update={"name": "rented", "price": price})
    async with bench(deployments=(DEPLOYMENT, rented)) as service:
        told = (await service.ask("GET", "/api/deployments")).body["data"]
    assert [each["price"] for each in told] == [
        None,
        {"input": None, "output": None, "per_hour": "1.50", "currency": "EUR"},
    ]


async def test_an_unknown_deployment_is_told_with_those_that_are_known() -> None:
    async with bench() as service:
        reply = await service.ask("POST", "/api/deployments/nope/probe")
        assert (reply.code, reply.body["error"]["code"]) == (404, "unknown_deployment")
        assert "phi" in reply.body["error"]["message"]


@pytest.mark.parametrize(
    ("breakers", "worst"),
    [
        ([], None),
        (["closed", "closed"], "closed"),
        (["closed", "open"], "open"),
        (["probing", "closed"], "probing"),
        (["probing", "open"], "open"),
    ],
)
def test_the_worst_that_a_process_found_is_told(breakers: list[Any], worst: str | None) -> None:
    told = [
        DeploymentHealth(at=0, breaker=each, calls=10, tokens=20, refusals=1) for each in breakers
    ]
    status = summed(DEPLOYMENT, told, 0.0)
    assert (status.breaker, status.processes) == (worst, len(told))
    assert (status.calls, status.tokens, status.refusals) == tuple(
        len(told) * each for each in (10, 20, 1)
    )


def test_no_minute_has_more_than_was_ever_used() -> None:
    told = [
        DeploymentHealth(
            at=0, calls=24, refusals=4, tokens=900, requests_used=107, tokens_used=4000
        ),
        DeploymentHealth(at=0, calls=900, tokens=9000, requests_used=30, tokens_used=500),
        DeploymentHealth(at=0, calls=3, tokens=30),
    ]
    status = summed(DEPLOYMENT, told, 0.0)
    assert (status.requests_used, status.tokens_used) == (50, 1400)


@pytest.mark.parametrize(("until", "told"), [(101.0, "1970-01-01T00:01:41.000Z"), (100.0, None)])
def test_the_time_of_a_try_is_told_as_long_as_it_is_to_come(until: float, told: Any) -> None:
    word = DeploymentHealth(at=90.0, breaker="open", until=until)
    assert summed(DEPLOYMENT, [word], 100.0).until == told
