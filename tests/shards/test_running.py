"""Rows that are done in shards that are not are told, beside those that receipts have counted."""

import asyncio
from collections.abc import Mapping
from random import Random
from typing import Any

from schemas.deployments import Task
from schemas.outcomes import Outcome
from tests.doubles.service import DEPLOYMENT, Answering, bench
from tests.simulation.virtual_time import run

ROWS = b"".join(b'{"prompt": "%d"}\n' % second for second in range(1, 21))


class Slow(Answering):
    """Each row is answered after as many seconds as it says."""

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        await asyncio.sleep(float(body["messages"][-1]["content"]))
        return await super().ask(task, body)


def test_rows_are_told_as_done_before_their_shard_is() -> None:
    async def story(_: Random) -> None:
        async with bench(endpoint=Slow()) as service:
            await service.drop(ROWS)
            await service.announce()
            working = asyncio.create_task(service.settle())
            seen: list[tuple[int, int]] = []
            for _second in range(19):
                await asyncio.sleep(1)
                (told,) = (await service.ask("GET", "/api/jobs")).body["data"]
                seen.append((told["counts"]["succeeded"], told["running"]))
            await working
            assert {done for done, _ in seen} == {0}
            told_as_running = [rows for _, rows in seen]
            assert told_as_running == sorted(told_as_running)
            # A journal interval behind at most, and a swap.
            assert all(
                second - 5 <= rows <= second for second, rows in enumerate(told_as_running, 1)
            )
            ended = await service.ended()
            assert ended.counts["succeeded"] == 20
            (told,) = (await service.ask("GET", "/api/jobs")).body["data"]
            assert "running" not in told
            told_rows = [event["data"].get("running") for event in service.events]
            assert any(told_rows)

    run(story)


class Steady(Answering):
    """Every row takes some seconds."""

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        await asyncio.sleep(3.0)
        return await super().ask(task, body)


def test_all_shards_of_a_job_weigh_alike_by_what_was_seen_last() -> None:
    async def story(_: Random) -> None:
        limited = DEPLOYMENT.model_copy(update={"requests_per_minute": 6000})
        async with bench(endpoint=Steady(), deployments=(limited,)) as service:
            # The quota needs 20 s for all rows: with every second the job is more pressed.
            await service.drop(b'{"prompt": "p"}\n' * 2000, options={"completion_window": "60s"})
            await service.announce()
            seen: list[set[float]] = []
            working = [asyncio.create_task(service.settle())]
            for quarter in range(120):
                await asyncio.sleep(0.25)
                if quarter == 30:
                    working.append(asyncio.create_task(service.settle()))
                seen.append({each.gate.urgency for each in service.runner._unended})
            await asyncio.gather(*working)
        assert len(set().union(*seen)) > 1
        assert [each for each in seen if len(each) > 1] == []

    run(story)
