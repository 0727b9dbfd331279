"""A paused job tells what it has done and spent, to the last call."""

import asyncio
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from schemas.deployments import Task
from schemas.money import Price, amount
from schemas.outcomes import Outcome
from tests.doubles.service import DEPLOYMENT, Answering, Bench, bench
from tests.simulation.virtual_time import run

ROWS = b"".join(b'{"prompt": "hello %d"}\n' % row for row in range(600))
PRICED = DEPLOYMENT.model_copy(
    update={"price": Price(input="1", output="2", currency="USD"), "max_concurrency": 5}
)
OPTIONS = {"max_tokens": 10, "max_total_tokens": 4000, "on_budget": "pause"}


class Counting(Answering):
    """Takes a while, and counts what it bills."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.prompt = self.completion = 0

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        await asyncio.sleep(self.seconds)
        outcome = await super().ask(task, body)
        assert outcome.usage is not None
        self.prompt += outcome.usage.prompt_tokens
        self.completion += outcome.usage.completion_tokens
        return outcome

    @property
    def cost(self) -> str:
        """In dollars."""
        return amount(self.prompt + 2 * self.completion)


async def status(service: Bench) -> Mapping[str, Any]:
    (told,) = (await service.ask("GET", "/api/jobs")).body["data"]
    found: Mapping[str, Any] = (await service.ask("GET", f"/api/jobs/{told['job']}")).body
    return found


def check(told: Mapping[str, Any], endpoint: Counting) -> None:
    """What is told is what the endpoint has counted."""
    assert told["state"] == "paused"
    assert told["counts"]["succeeded"] + told["running"] == len(endpoint.asked) > 0
    assert told["tokens"] == {"prompt": endpoint.prompt, "completion": endpoint.completion}
    assert told["cost"]["counted"] == endpoint.cost


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("seconds", [0.03, 0.4])
def test_a_job_that_its_cap_pauses_tells_all_that_it_has_done_and_spent(
    workers: int, seconds: float
) -> None:
    async def story(_: Random) -> None:
        endpoint = Counting(seconds)
        async with bench(endpoint=endpoint, deployments=(PRICED,)) as service:
            await service.drop(ROWS, options=OPTIONS)
            await service.announce()
            while not any(each["type"] == "job.paused" for each in service.events):
                await asyncio.gather(*(service.settle() for _ in range(workers)))
                await asyncio.sleep(1.0)
            told = await status(service)
            check(told, endpoint)
            assert told["waiting"]["reason"] == "budget"
            assert told["budget"]["tokens_spent"] == endpoint.prompt + endpoint.completion
            last = [each for each in service.events if each["data"]["state"] == "paused"][-1]
            check(last["data"], endpoint)
            assert len(endpoint.asked) > 250, "of a cap of 4000 tokens, 12 a row"
            service.elapsed += 600.0
            await service.ask("POST", f"/api/jobs/{told['job']}/cancel")
            await service.settle()
            ended = await service.ended()
            assert ended.counts["succeeded"] == len(endpoint.asked)
            assert ended.manifest["cost"]["counted"] == endpoint.cost
            assert 600.0 <= ended.manifest["budget_seconds"] < 700.0

    run(story)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_job_that_a_user_pauses_tells_all_that_it_has_done_and_spent(workers: int) -> None:
    async def story(_: Random) -> None:
        endpoint = Counting(0.9)
        async with bench(endpoint=endpoint, deployments=(PRICED,)) as service:
            await service.drop(ROWS, options={"max_tokens": 10})
            await service.announce()
            working = [asyncio.create_task(service.settle()) for _ in range(workers)]
            await asyncio.sleep(13.3)
            before = await status(service)
            await service.ask("POST", f"/api/jobs/{before['job']}/pause")
            await asyncio.gather(*working)
            told = await status(service)
            check(told, endpoint)
            check(service.events[-1]["data"], endpoint)

    run(story)
