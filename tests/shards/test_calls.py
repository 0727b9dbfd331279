"""Rows of a shard, asked of a real dispatcher and a simulated endpoint: what shares a call."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import pytest

from local.endpoint import Settings, simulate
from local.endpoint.faults import Rule, When
from local.endpoint.server import Endpoint as Simulated
from schemas.deployments import Task
from schemas.jobs import Job, JobOptions
from schemas.outcomes import Outcome
from schemas.results import CallRecord
from tests.adapters.clients import EMBED, KEY, SEED, deployment
from workers.adapters.endpoints import connect
from workers.dispatch.call import Answer, Call, Gate, HandBack
from workers.dispatch.dispatcher import Dispatcher
from workers.rows.packing import Limits
from workers.rows.reading import Request
from workers.rows.sizes import answer_bytes
from workers.rows.writing import RowResult
from workers.shards.calls import ROOM_BYTES, Room, ShardCalls

JOB = Job(
    id="20260101T000000Z-0000000000000000",
    door="drop",
    container="prompts",
    name="a.jsonl",
    etag="e",
    size=1,
    options=JobOptions(),
    priority="normal",
    created=0.0,
    expires=1e10,
    window=16,
    max_line_bytes=1024,
    results="a/b",
)


def loop_time() -> float:
    return asyncio.get_running_loop().time()


async def kept(out: Callable[[], None]) -> None:
    """Everything is kept at once."""
    out()


def texts(count: int) -> Sequence[tuple[int, Request]]:
    bodies = [{"input": f"text {n:03}", "model": EMBED} for n in range(count)]
    return [(n, Request(n + 1, str(n), "embeddings", EMBED, body)) for n, body in enumerate(bodies)]


@asynccontextmanager
async def asking(
    rules: Sequence[Rule] = (), *fields: dict[str, Any]
) -> AsyncIterator[tuple[ShardCalls, dict[int, RowResult], Simulated]]:
    """Asks deployments with these fields, all of one simulator; the results by row."""
    results: dict[int, RowResult] = {}
    settings = Settings(profile="openai", seed=SEED, key=KEY, faults=tuple(rules))
    async with simulate(settings) as simulator:
        each = [
            deployment("openai", simulator.url, name=f"d{n}", model=EMBED, **given)
            for n, given in enumerate(fields or [{}])
        ]
        async with connect(each, lambda _: KEY) as endpoints:
            asked = ShardCalls(
                JOB,
                Dispatcher(each, endpoints, rng=random.Random(1)),
                Gate(until=inf, deadline=inf),
                lambda result: results.update({result.row: result}),
                spend=lambda _row, _attempts: None,
                spent={},
                room=Room(),
                keep=kept,
            )
            yield asked, results, simulator


@pytest.mark.slow
async def test_a_row_that_the_server_chokes_on_takes_no_other_with_it() -> None:
    choking = Rule(fault="http_500", when=When(contains="text 000"))
    async with asking([choking]) as (asked, results, _):
        await asked.all_at_once(texts(3))
    failed = [row for row, result in results.items() if result.kind != "succeeded"]
    assert (len(results), failed) == (3, [0])
    assert json.loads(results[0].text)["error"]["code"] == "InternalServerError"


async def test_a_call_holds_no_more_inputs_than_each_deployment_of_its_model_takes() -> None:
    small, large = {"max_inputs_per_request": 8}, {"max_inputs_per_request": 2048}
    for fields, calls in (([large], 1), ([{}], 3), ([large, small], 25), ([{}, small], 25)):
        async with asking((), *fields) as (asked, results, simulator):
            await asked.all_at_once(texts(200))
            assert {result.kind for result in results.values()} == {"succeeded"}
            assert simulator.stats()["admitted"] == calls


async def test_a_call_that_waits_for_a_deployment_out_of_order_knows_why() -> None:
    """In the status while it waits, and in the hand-back."""
    async with simulate(Settings(profile="openai", key=KEY)) as simulator:
        each = deployment("openai", simulator.url, name="east")
        async with connect([each], lambda _: "wrong") as endpoints:
            dispatcher = Dispatcher([each], endpoints, rng=random.Random(1))
            call = Call("chat", each.model, {"messages": [{"role": "user", "content": "hi"}]})
            patient, hasty = Gate(inf, deadline=inf), Gate(inf, deadline=loop_time() + 10.0)
            with pytest.raises(HandBack) as caught:
                await dispatcher.ask(call, job="j", weight=1.0, gate=hasty)
            asked = asyncio.create_task(dispatcher.ask(call, job="j", weight=1.0, gate=patient))
            await asyncio.sleep(0)
            waiting = dispatcher.waiting("j")
            asked.cancel()
    assert waiting is not None
    assert (waiting.reason, waiting.deployment) == ("outage", "east")
    assert waiting.message is not None
    assert "check the deployment's key or role" in waiting.message
    assert caught.value.said == waiting.message


async def test_what_failed_for_a_pack_is_held_against_none_of_its_rows() -> None:
    made = CallRecord("d0", "timeout", None, 0.0, None, 120.0, 0, billed=True, counted=True)

    class HandsBack:
        async def ask(self, call: Call, *, job: str, weight: float, gate: Gate) -> Answer:
            assert not call.earlier or call.rows == 1
            wait = HandBack("outage", 1.0)
            wait.attempts = (made,)
            raise wait

        def pack_limits(self, task: Task, model: str) -> Limits:
            return Limits()

    async def spent_by(count: int) -> list[CallRecord]:
        spent: list[CallRecord] = []
        gate = Gate(inf, inf)
        nobody: Callable[[RowResult], None] = lambda _: None  # noqa: E731
        asked = ShardCalls(
            JOB,
            HandsBack(),
            gate,
            nobody,
            spend=lambda _, calls: spent.extend(calls),
            spent={},
            room=Room(),
            keep=kept,
        )
        await asked.all_at_once(texts(count))
        return spent

    assert [attempt.counted for attempt in await spent_by(8)] == [False]
    assert [attempt.counted for attempt in await spent_by(1)] == [True]


@pytest.mark.parametrize(
    ("inputs", "dimensions", "at_once"),
    [(2048, None, 1), (2048, 64, 8), (2048, 8, 128), (1, None, 128)],
    ids=["large", "less so", "small", "one vector"],
)
async def test_large_answers_share_the_memory_of_a_process(
    inputs: int, dimensions: int | None, at_once: int
) -> None:
    """16 shards at a time would else hold 128 answers each, of up to 70 MB."""
    room, kept_so_far = Room(), 0
    in_flight = most = 0

    class Slow:
        async def ask(self, call: Call, *, job: str, weight: float, gate: Gate) -> Answer:
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            await asyncio.sleep(0)
            in_flight -= 1
            return Answer(Outcome(kind="bad_request"), ())

        def pack_limits(self, task: Task, model: str) -> Limits:
            return Limits(inputs=1)

    async def keep(out: Callable[[], None]) -> None:
        nonlocal kept_so_far
        kept_so_far += 1
        await asyncio.sleep(0)
        out()

    def shard() -> ShardCalls:
        return ShardCalls(
            JOB,
            Slow(),
            Gate(inf, inf),
            lambda _: None,
            spend=lambda _row, _attempts: None,
            spent={},
            room=room,
            keep=keep,
        )

    body: dict[str, Any] = {"input": ["text"] * inputs, "model": EMBED}
    if dimensions:
        body["dimensions"] = dimensions
    rows = [(n, Request(n + 1, str(n), "embeddings", EMBED, body)) for n in range(64)]
    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(shard().all_at_once(rows))
    assert most == at_once
    assert kept_so_far == (0 if at_once == 128 else 128)
    assert at_once == 128 or answer_bytes("embeddings", body) * (at_once - 1) < ROOM_BYTES
