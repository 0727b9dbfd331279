"""One dispatcher on virtual time: gates, hand-backs, routes, retries, fairness, and no leaks."""

import asyncio
import base64
import math
import struct
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import IO, Any, get_args

import pytest

from schemas.deployments import Deployment, Task
from schemas.outcomes import Outcome, OutcomeKind, Usage
from schemas.results import CallRecord
from tests.doubles import MemoryBlobs
from tests.simulation.quota_world import EPOCH, deployment
from tests.simulation.virtual_time import run
from workers.adapters.endpoints.refusals import refusal
from workers.dispatch.call import Answer, Call, Gate, HandBack
from workers.dispatch.dispatcher import Dispatcher
from workers.dispatch.lane import Lane
from workers.dispatch.probe import smallest
from workers.dispatch.reporting import Reporter
from workers.dispatch.retries import UNTOLD
from workers.ports import BlobRef, EndpointInfo, Stored
from workers.ports.errors import Unavailable
from workers.quota.allowance import Grant
from workers.quota.claims import Finding, ProbeClaims
from workers.quota.health import HealthBoard
from workers.quota.ledger import Ledger
from workers.quota.weights import JobWeights

OK = Outcome(kind="ok", status=200, body={}, usage=Usage(20, 10), billed=True)
BODY = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 50}
CHAT = Call("chat", "phi-3", BODY)


def failed(status: int | None) -> Outcome:
    return Outcome(kind="transient", status=status, code="fault")


class Scripted:
    """An endpoint that answers as it is told: a function of its calls so far, or of the body."""

    def __init__(
        self,
        answer: Callable[[int, Mapping[str, Any]], Outcome] = lambda n, body: OK,
        *,
        seconds: float = 1.0,
        info: EndpointInfo | None = None,
    ) -> None:
        self.answer = answer
        self.seconds = seconds
        self.calls: list[float] = []
        self.bodies: list[Mapping[str, Any]] = []
        self.in_flight = 0
        self.infos = 0
        self._info = info

    async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
        self.calls.append(asyncio.get_running_loop().time())
        self.bodies.append(body)
        self.in_flight += 1
        try:
            outcome = self.answer(len(self.calls), body)
            await asyncio.sleep(self.seconds)
        finally:
            self.in_flight -= 1
        return outcome

    async def info(self) -> EndpointInfo | None:
        self.infos += 1
        await asyncio.sleep(0.1)
        return self._info


class Bench:
    """A dispatcher over scripted endpoints, without a ledger: the whole quota is its own."""

    def __init__(
        self,
        endpoints: dict[str, Scripted] | None = None,
        deployments: list[Deployment] | None = None,
        *,
        routes: dict[str, list[str]] | None = None,
        **limits: Any,
    ) -> None:
        self.endpoints = endpoints or {"phi": Scripted()}
        self.dispatcher = Dispatcher(
            deployments or [deployment(name, **limits) for name in self.endpoints],
            self.endpoints,
            rng=Random(1),
            routes=routes,
            wall=lambda: EPOCH + asyncio.get_running_loop().time(),
        )

    @property
    def calls(self) -> list[float]:
        return sorted(at for each in self.endpoints.values() for at in each.calls)

    async def ask(
        self, gate: Gate | None = None, *, call: Call = CHAT, job: str = "job", weight: float = 1.0
    ) -> Answer:
        return await self.dispatcher.ask(call, job=job, weight=weight, gate=gate or wide())

    def idle(self) -> bool:
        """Whether nothing is left of any call."""
        turns, lanes = self.dispatcher._turns, self.dispatcher._lanes.values()
        return (
            not turns._pending
            and all(lane.in_flight == 0 for lane in lanes)
            and all(turns.pool(lane).queue.waiting == 0 for lane in lanes)
            and all(not turns.pool(lane).asked for lane in lanes)
        )


def wide() -> Gate:
    return Gate(math.inf, math.inf)


def play(main: Callable[[], Awaitable[None]]) -> None:
    async def seeded(rng: Random) -> None:
        await main()

    run(seeded)


async def handed_back(asking: Awaitable[Answer]) -> HandBack:
    with pytest.raises(HandBack) as caught:
        await asking
    return caught.value


# -- gates --------------------------------------------------------------------------------------


def test_a_closed_gate_wakes_all_waiters_at_once_and_lets_calls_in_flight_go_on() -> None:
    async def main() -> None:
        bench = Bench(max_concurrency=1, endpoints={"phi": Scripted(seconds=5.0)})
        gate = wide()
        asking = [asyncio.create_task(bench.ask(gate)) for _ in range(500)]
        await asyncio.sleep(1.0)
        gate.close("lease lost")
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert asyncio.get_running_loop().time() == pytest.approx(5.0)
        backs = [each for each in results if isinstance(each, HandBack)]
        assert len(backs) == 499
        assert {(back.reason, back.delay) for back in backs} == {("lease lost", 0.0)}
        assert bench.idle()
        back = await handed_back(bench.ask(gate))
        assert back.reason == "lease lost"

    play(main)


def test_nothing_is_admitted_at_or_after_until_and_it_goes_on_when_that_moves() -> None:
    async def main() -> None:
        bench = Bench(requests_per_minute=60)
        gate = Gate(until=3.5, deadline=math.inf)
        asking = [asyncio.create_task(bench.ask(gate)) for _ in range(6)]
        await asyncio.sleep(20.0)
        before = len(bench.calls)
        assert max(bench.calls) < 3.5
        assert before < 6
        gate.prolong(60.0)
        await asyncio.gather(*asking)
        assert bench.calls[before] >= 20.0
        assert bench.idle()

    play(main)


def test_another_shard_goes_on_while_one_gate_is_shut() -> None:
    async def main() -> None:
        bench = Bench(max_concurrency=1)
        shut, open_ = Gate(until=0.5, deadline=math.inf), wide()
        first = asyncio.create_task(bench.ask(open_))
        await asyncio.sleep(0)
        held = [asyncio.create_task(bench.ask(shut)) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.gather(first, bench.ask(open_), bench.ask(open_))
        assert not any(each.done() for each in held)
        shut.close("over")
        await asyncio.gather(*held, return_exceptions=True)
        assert bench.idle()

    play(main)


def test_a_wait_beyond_the_deadline_hands_back_with_its_reason() -> None:
    async def main() -> None:
        bench = Bench(requests_per_minute=6)
        gate = Gate(until=math.inf, deadline=30.0)
        results = await asyncio.gather(
            *(bench.ask(gate) for _ in range(10)), return_exceptions=True
        )
        backs = [each for each in results if isinstance(each, HandBack)]
        assert 5 <= len(backs) <= 7
        assert {(back.reason, back.deployment) for back in backs} == {("quota", "phi")}
        assert all(1.0 <= back.delay <= 5.0 for back in backs)
        assert asyncio.get_running_loop().time() <= 31.0
        assert bench.idle()

    play(main)


def test_a_deadline_that_was_moved_counts_as_moved() -> None:
    async def main() -> None:
        bench = Bench(requests_per_minute=6)
        gate = Gate(until=math.inf, deadline=5.0)
        asking = [asyncio.create_task(bench.ask(gate)) for _ in range(3)]
        await asyncio.sleep(1.0)
        gate.deadline = 100.0
        await asyncio.gather(*asking)

    play(main)


def test_cancelled_asks_leave_nothing_behind() -> None:
    async def main() -> None:
        rng = Random(3)
        faulty = Scripted(lambda n, body: failed(500) if n % 3 == 0 else OK, seconds=0.5)
        bench = Bench(
            {"phi": faulty}, requests_per_minute=600, tokens_per_minute=100_000, max_concurrency=4
        )
        asking = [asyncio.create_task(bench.ask()) for _ in range(200)]
        for _ in range(150):
            await asyncio.sleep(rng.uniform(0.0, 0.2))
            rng.choice(asking).cancel()
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert faulty.in_flight == 0
        assert bench.idle()
        answer = await bench.ask()
        assert answer.outcome.kind == "ok"

    play(main)


def test_a_call_cancelled_in_the_moment_it_is_let_through_frees_its_slot() -> None:
    async def main() -> None:
        bench = Bench(max_concurrency=1)
        first = asyncio.create_task(bench.ask())
        await asyncio.sleep(0.5)
        second = asyncio.create_task(bench.ask())
        third = asyncio.create_task(bench.ask())
        # The first answer lets the second through and this task cancels it before it has run.
        first.add_done_callback(lambda _: second.cancel())
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert (await third).outcome.kind == "ok"
        assert bench.idle()

    play(main)


# -- what cannot be, and what must wait for tomorrow ----------------------------------------------


def test_a_row_too_large_for_any_deployment_is_refused_without_a_call() -> None:
    async def main() -> None:
        bench = Bench(max_tokens_per_request=8_000)
        body = BODY | {"max_tokens": 9_000}
        answer = await bench.ask(call=Call("chat", "phi-3", body))
        assert answer.outcome.kind == "bad_request"
        assert "8000" in (answer.outcome.message or "")
        assert answer.attempts == ()
        assert bench.calls == []

    play(main)


def test_a_prompt_beyond_the_context_is_refused_without_a_call() -> None:
    async def main() -> None:
        bench = Bench(context_length=4096)
        long = {"messages": [{"role": "user", "content": "x" * (16 * 4096 + 1)}]}
        answer = await bench.ask(call=Call("chat", "phi-3", long))
        told = (answer.outcome.kind, answer.outcome.code)
        assert told == ("bad_request", "context_length_exceeded")
        assert "4096" in (answer.outcome.message or "")
        assert (answer.attempts, bench.calls) == ((), [])

    play(main)


def test_a_prompt_that_may_fit_the_context_is_asked() -> None:
    """As dense as text can be, and with more max_tokens than are left, which servers may cut."""

    async def main() -> None:
        bench = Bench(context_length=4096)
        dense = {"messages": [{"role": "user", "content": "x" * 16 * 4096}], "max_tokens": 9_000}
        several: dict[str, Any] = {"prompt": ["x" * 16 * 4096] * 3}
        for call in (Call("chat", "phi-3", dense), Call("completions", "phi-3", several)):
            assert (await bench.ask(call=call)).outcome.kind == "ok"

    play(main)


def test_a_long_prompt_goes_to_the_deployment_that_can_read_it() -> None:
    async def main() -> None:
        small, large = Scripted(), Scripted()
        bench = Bench(
            {"small": small, "large": large},
            [deployment("small", context_length=4096), deployment("large", context_length=131_072)],
        )
        long = {"messages": [{"role": "user", "content": "word " * 8_000}]}
        for _ in range(5):
            await bench.ask(call=Call("chat", "phi-3", long))
        assert (len(small.calls), len(large.calls)) == (0, 5)

    play(main)


def test_a_large_row_goes_to_the_deployment_that_takes_it() -> None:
    async def main() -> None:
        small, large = Scripted(), Scripted()
        bench = Bench(
            {"small": small, "large": large},
            [deployment("small", max_tokens_per_request=1_000), deployment("large")],
        )
        for _ in range(5):
            await bench.ask(call=Call("chat", "phi-3", BODY | {"max_tokens": 5_000}))
        assert (len(small.calls), len(large.calls)) == (0, 5)

    play(main)


def test_a_day_that_is_used_up_hands_back_until_midnight() -> None:
    async def main() -> None:
        bench = Bench(requests_per_day=10)
        gate = Gate(math.inf, deadline=120.0)
        results = await asyncio.gather(
            *(bench.ask(gate) for _ in range(15)), return_exceptions=True
        )
        backs = [each for each in results if isinstance(each, HandBack)]
        assert len(backs) == 5
        assert {back.reason for back in backs} == {"day"}
        assert all(back.delay == pytest.approx(86_400.0, abs=10.0) for back in backs)
        # At once: nobody waited for the deadline to learn that the day is over.
        assert asyncio.get_running_loop().time() <= 2.0
        await asyncio.sleep(86_401.0)
        assert (await bench.ask()).outcome.kind == "ok"

    play(main)


def test_a_day_limit_that_the_server_tells_hands_back_too() -> None:
    full = Outcome(kind="throttled", status=429, limit="day", retry_after=11_000.0)

    async def main() -> None:
        bench = Bench({"phi": Scripted(lambda n, body: full)})
        back = await handed_back(bench.ask(Gate(math.inf, 300.0)))
        assert back.reason == "day"
        assert back.delay == pytest.approx(11_000.0, abs=2.0)
        assert len(bench.calls) == 1

    play(main)


def test_a_limit_that_may_be_a_days_is_asked_ever_more_rarely_and_works_once_it_passes() -> None:
    full = refusal(429, {"retry-after": "21600"}, None, EPOCH)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        bench = Bench({"phi": Scripted(lambda n, body: full if loop.time() < 21_600.0 else OK)})
        answered = False
        while not answered:
            try:
                await bench.ask(Gate(math.inf, loop.time() + 300.0))
                answered = True
            except HandBack as back:
                await asyncio.sleep(back.delay)
        assert len(bench.calls) <= 40
        assert loop.time() <= 21_600.0 + UNTOLD["day"] + 5.0

    play(main)


def test_an_absurd_hint_for_no_limit_by_name_costs_a_second() -> None:
    full = refusal(429, {"retry-after": "86400"}, None, EPOCH)

    async def main() -> None:
        bench = Bench({"phi": Scripted(lambda n, body: full if n == 1 else OK)})
        await bench.ask(Gate(math.inf, 300.0))
        assert asyncio.get_running_loop().time() <= 5.0

    play(main)


def test_a_call_that_nobody_can_answer_is_a_mistake_of_the_caller() -> None:
    bench = Bench()
    assert "known are: phi, phi-3" in (bench.dispatcher.cannot("chat", "phi-4") or "")
    assert bench.dispatcher.cannot("chat", "phi-3") is None
    assert bench.dispatcher.cannot("chat", "phi") is None
    assert "do not do image-embeddings" in (
        bench.dispatcher.cannot("image-embeddings", "phi") or ""
    )

    async def main() -> None:
        with pytest.raises(ValueError, match="phi-4"):
            await bench.ask(call=Call("chat", "phi-4", BODY))

    play(main)


def test_preflight_asks_each_endpoint_once_and_goes_round_those_that_cannot() -> None:
    async def main() -> None:
        embeds = Scripted(info=EndpointInfo("ada", tasks=("embeddings",)))
        chats = Scripted(info=EndpointInfo("phi-3", tasks=("chat",)))
        silent = Scripted()
        bench = Bench({"embeds": embeds, "chats": chats, "silent": silent})
        assert await bench.dispatcher.preflight("chat", "phi-3") is None
        assert await bench.dispatcher.preflight("chat", "phi-3") is None
        assert [each.infos for each in (embeds, chats, silent)] == [1, 1, 1]
        refused = await bench.dispatcher.preflight("chat", "embeds")
        assert refused is not None
        assert "embeds says it does embeddings" in refused
        assert await bench.dispatcher.preflight("chat", "phi-4") is not None
        await asyncio.gather(*(bench.ask() for _ in range(20)))
        assert embeds.calls == []

    play(main)


# -- retries ------------------------------------------------------------------------------------


def test_a_row_that_fails_by_itself_is_given_up_after_three_attempts() -> None:
    def answer(n: int, body: Mapping[str, Any]) -> Outcome:
        return failed(500) if body.get("bad") else OK

    async def main() -> None:
        bench = Bench({"phi": Scripted(answer, seconds=0.2)})
        bad = asyncio.create_task(bench.ask(call=Call("chat", "phi-3", BODY | {"bad": True})))
        for _ in range(100):
            assert (await bench.ask()).outcome.kind == "ok"
        result = await bad
        assert result.outcome.status == 500
        assert [attempt.kind for attempt in result.attempts] == ["transient"] * 3

    play(main)


def test_every_attempt_is_recorded() -> None:
    script = [Outcome(kind="throttled", status=429, limit="requests", retry_after=1.0), failed(502)]

    async def main() -> None:
        bench = Bench({"phi": Scripted(lambda n, body: script[n - 1] if n < 3 else OK)})
        answer = await bench.ask()
        assert [(each.kind, each.status) for each in answer.attempts] == [
            ("throttled", 429),
            ("transient", 502),
            ("ok", 200),
        ]
        assert answer.attempts[0].waited_for is None
        assert answer.attempts[1].waited_for == "throttled"
        assert answer.attempts[1].waited >= 1.0
        assert answer.attempts[2].waited_for == "outage"
        assert [each.tokens for each in answer.attempts] == [0, 0, 30]
        assert [each.billed for each in answer.attempts] == [False, False, True]

    play(main)


@pytest.mark.parametrize("status", [503, 500, None])
def test_an_outage_burns_no_attempts_and_hands_back_at_the_deadline(status: int | None) -> None:
    async def main() -> None:
        bench = Bench({"phi": Scripted(lambda n, body: failed(status), seconds=0.1)})
        gate = Gate(math.inf, deadline=600.0)
        results = await asyncio.gather(
            *(bench.ask(gate) for _ in range(50)), return_exceptions=True
        )
        assert {type(each) for each in results} == {HandBack}
        assert {each.reason for each in results if isinstance(each, HandBack)} == {"outage"}
        assert len(bench.calls) <= 50 + 30
        assert bench.idle()

    play(main)


@pytest.mark.parametrize("kind", ["auth", "gone"])
def test_a_refused_key_stops_the_deployment_and_not_the_row(kind: Any) -> None:
    async def main() -> None:
        refused = Outcome(kind=kind, status=401, code="key")
        bench = Bench({"phi": Scripted(lambda n, body: refused)})
        back = await handed_back(bench.ask(Gate(math.inf, deadline=20.0)))
        assert (back.reason, back.deployment) == ("outage", "phi")
        assert back.delay >= 20.0
        assert len(bench.calls) == 1
        # Nobody mends it for an hour, and the row is asked all the time.
        back = await handed_back(bench.ask(Gate(math.inf, deadline=3600.0)))
        assert len(back.attempts) >= 6
        assert not any(attempt.counted for attempt in back.attempts)

    play(main)


@pytest.mark.parametrize("kind", ["auth", "gone"])
def test_a_key_that_some_front_ends_refuse_fails_no_row(kind: Any) -> None:
    """Roles take minutes to reach all of them."""
    rng = Random(3)

    async def main() -> None:
        refused = Outcome(kind=kind, status=403)
        bench = Bench({"phi": Scripted(lambda n, body: refused if rng.random() < 0.3 else OK)})
        made = await asyncio.gather(*(bench.ask() for _ in range(300)))
        assert {answer.outcome.kind for answer in made} == {"ok"}

    play(main)


def test_two_rows_that_always_fail_are_final_though_nothing_else_is_left() -> None:
    def answer(n: int, body: Mapping[str, Any]) -> Outcome:
        return failed(500) if body.get("bad") else OK

    async def main() -> None:
        bench = Bench({"phi": Scripted(answer)})
        bad = [
            asyncio.create_task(bench.ask(call=Call("chat", "phi-3", BODY | {"bad": row})))
            for row in (1, 2)
        ]
        await asyncio.gather(*(bench.ask() for _ in range(20)))
        for asking in bad:
            assert (await asking).outcome.status == 500
        assert asyncio.get_running_loop().time() <= 300.0

    play(main)


# -- an outage, or rows that fail by themselves -------------------------------------------------


def poisoned(n: int, body: Mapping[str, Any]) -> Outcome:
    """Every row fails; a call for one token is answered."""
    return OK if body == smallest("chat") else failed(500)


def probes(phi: Scripted) -> list[float]:
    return [at for at, body in zip(phi.calls, phi.bodies, strict=True) if body == smallest("chat")]


QUOTA = {"requests_per_minute": 600}


def job(rows: int) -> list[Call]:
    return [Call("chat", "phi-3", BODY | {"seed": row}, line=row + 1) for row in range(rows)]


def test_a_job_whose_every_row_fails_ends_with_the_evidence_long_before_its_window() -> None:
    async def main() -> None:
        bench = Bench({"phi": Scripted(poisoned, seconds=0.5)}, requests_per_minute=600)
        hour = Gate(math.inf, deadline=3600.0)
        made = await asyncio.gather(*(bench.ask(hour, call=call) for call in job(200)))
        for answer in made:
            assert answer.outcome.status == 500
            assert answer.outcome.message is not None
            assert "one token was answered" in answer.outcome.message
            assert sum(attempt.counted for attempt in answer.attempts) == 3
        asked = probes(bench.endpoints["phi"])
        assert all(later - earlier >= 60.0 for earlier, later in pairwise(asked))
        noted = [a for answer in made for a in answer.attempts if a.kind == "probe"]
        assert len(noted) == len(asked) > 0
        assert all(a.status == 200 and a.tokens == 30 and not a.counted for a in noted)
        assert bench.idle()

    play(main)


@pytest.mark.parametrize("task", get_args(Task))
def test_a_job_of_any_task_whose_every_row_fails_ends(task: Task) -> None:
    def answer(n: int, body: Mapping[str, Any]) -> Outcome:
        return OK if body == smallest(task) else failed(500)

    async def main() -> None:
        phi = deployment("phi", kind="model-inference", requests_per_minute=600, tasks=[task])
        bench = Bench({"phi": Scripted(answer, seconds=0.5)}, [phi])
        calls = [Call(task, "phi-3", {"input": ["a"], "n": row}, line=row) for row in range(9)]
        made = await asyncio.gather(
            *(bench.ask(Gate(math.inf, deadline=3600.0), call=call) for call in calls)
        )
        assert {answer.outcome.status for answer in made} == {500}
        assert asyncio.get_running_loop().time() < 300.0

    play(main)


class SlowBlobs(MemoryBlobs):
    """Storage that takes up to a second to hear of a call, and as long to answer it.

    The `Date` of an answer is up to two seconds behind: front ends differ.
    """

    def __init__(self) -> None:
        super().__init__(lambda: EPOCH + asyncio.get_running_loop().time())
        self._rng = Random(5)

    async def _way(self) -> None:
        await asyncio.sleep(self._rng.random())

    async def read(self, ref: BlobRef) -> Stored:
        await self._way()
        stored = await super().read(ref)
        await self._way()
        return replace(stored, server_time=stored.server_time - self._rng.randint(0, 2))

    async def create(self, ref: BlobRef, data: bytes | IO[bytes], **how: Any) -> str:
        await self._way()
        etag = await super().create(ref, data, **how)
        await self._way()
        return etag

    async def replace(self, ref: BlobRef, data: bytes, etag: str) -> str:
        await self._way()
        etag = await super().replace(ref, data, etag)
        await self._way()
        return etag


class Process:
    """One of those that share a deployment: its dispatcher, and what it tells of what it finds.

    Its clock is wrong by up to four seconds, which workers leave as they are.
    """

    def __init__(self, name: str, blobs: MemoryBlobs, endpoint: Scripted, phi: Deployment) -> None:
        rng = Random(name)
        off = rng.uniform(-4.0, 4.0)

        def wall() -> float:
            return EPOCH + off + asyncio.get_running_loop().time()

        self.dispatcher = Dispatcher(
            [phi],
            {"phi": endpoint},
            rng=rng,
            ledger=Ledger(blobs, "state", rng=rng),
            claims=ProbeClaims(blobs, "state"),
            wall=wall,
        )
        self.reporter = Reporter(
            *(HealthBoard(blobs, "state"), name),
            wall=wall,
            lanes=self.dispatcher.lanes,
            moved=self.dispatcher.moved,
        )

    async def ask(
        self, rows: int, seconds: float, name: str = "job"
    ) -> list[Answer | BaseException]:
        gate = Gate(math.inf, deadline=seconds)
        asking = (self.dispatcher.ask(call, job=name, weight=1.0, gate=gate) for call in job(rows))
        return await asyncio.gather(*asking, return_exceptions=True)


async def shared_by(
    processes: int, endpoint: Scripted, seconds: float, rows: int, **limits: Any
) -> list[list[Answer | BaseException]]:
    """What becomes of some rows of each process."""
    blobs = SlowBlobs()
    each = [
        Process(f"p{n}", blobs, endpoint, deployment("phi", **limits)) for n in range(processes)
    ]
    async with asyncio.TaskGroup() as group:
        kept = [
            group.create_task(work())
            for one in each
            for work in (one.dispatcher.run, one.reporter.run)
        ]
        made = [group.create_task(one.ask(rows, seconds)) for one in each]
        await asyncio.wait(made)
        for task in kept:
            task.cancel()
    return [task.result() for task in made]


@pytest.mark.parametrize(
    ("processes", "limits"),
    [
        (1, {}),
        (5, {}),
        (3, QUOTA),
        *(pytest.param(*each, marks=pytest.mark.long) for each in ((2, {}), (12, {}), (1, QUOTA))),
    ],
    ids=str,
)
def test_processes_that_share_a_deployment_probe_it_once_a_minute_at_most(
    processes: int, limits: dict[str, int]
) -> None:
    async def main() -> None:
        out_of_order = Scripted(lambda n, body: failed(500), seconds=0.5)
        minutes = 60
        await shared_by(processes, out_of_order, minutes * 60.0, rows=30, **limits)
        asked = probes(out_of_order)
        assert len(asked) > minutes / 3
        assert min((later - earlier for earlier, later in pairwise(asked)), default=60.0) >= 60.0

    play(main)


@pytest.mark.parametrize("limits", [{}, QUOTA], ids=str)
@pytest.mark.parametrize("processes", [3, pytest.param(8, marks=pytest.mark.long), 20])
def test_poisoned_rows_of_processes_that_share_a_deployment_end_all_the_same(
    processes: int, limits: dict[str, int]
) -> None:
    async def main() -> None:
        endpoint = Scripted(poisoned, seconds=0.5)
        made = await shared_by(processes, endpoint, 3 * 3600.0, rows=20, **limits)
        asked = probes(endpoint)
        assert all(later - earlier >= 60.0 for earlier, later in pairwise(asked))
        assert len(asked) <= 4
        assert asyncio.get_running_loop().time() < asked[1] + 180.0
        answers = [each for answers in made for each in answers if isinstance(each, Answer)]
        assert len(answers) == 20 * processes
        for answer in answers:
            assert answer.outcome.status == 500
            assert sum(attempt.counted for attempt in answer.attempts) >= 3
        said = [answer.outcome.message or "" for answer in answers]
        # A row that fails while its process asks no other is at fault without further evidence.
        assert sum("one token was answered" in each for each in said) >= len(said) - processes

    play(main)


def test_an_outage_burns_no_attempts_of_processes_that_share_a_deployment() -> None:
    """Rows that fail by themselves first, so that all have heard that they do; then all fails, and
    another job's rows come at once."""

    def answer(n: int, body: Mapping[str, Any]) -> Outcome:
        return poisoned(n, body) if asyncio.get_running_loop().time() < 600.0 else failed(500)

    async def main() -> None:
        blobs, endpoint = SlowBlobs(), Scripted(answer, seconds=0.5)
        each = [Process(f"p{n}", blobs, endpoint, deployment("phi")) for n in range(20)]
        async with asyncio.TaskGroup() as group:
            kept = [group.create_task(one.dispatcher.run()) for one in each]
            await asyncio.gather(*(one.ask(20, 590.0) for one in each))
            await asyncio.sleep(605.0 - asyncio.get_running_loop().time())
            assert len(probes(endpoint)) > 1
            made = await asyncio.gather(*(one.ask(20, 3600.0, "other") for one in each))
            for task in kept:
                task.cancel()
        backs = [back for results in made for back in results if isinstance(back, HandBack)]
        assert len(backs) == 20 * 20
        # The first of all in a process is alone at that moment, and held to be at fault.
        assert sum(attempt.counted for back in backs for attempt in back.attempts) <= 20

    play(main)


def test_processes_that_reach_no_storage_ask_nothing_of_their_own() -> None:
    class Away(SlowBlobs):
        async def read(self, ref: BlobRef) -> Stored:
            raise Unavailable("storage is away")

    async def main() -> None:
        endpoint = Scripted(poisoned, seconds=0.5)
        process = Process("p", Away(), endpoint, deployment("phi"))
        made = await process.ask(20, 900.0)
        assert {type(each) for each in made} == {HandBack}
        assert probes(endpoint) == []

    play(main)


@pytest.mark.parametrize(("kind", "told"), [("ok", 1), ("timeout", 1), ("throttled", 0)])
def test_others_are_told_what_speaks_of_the_deployment(kind: OutcomeKind, told: int) -> None:
    async def main() -> None:
        blobs = SlowBlobs()
        answer = Outcome(kind=kind)
        phi = Scripted(lambda n, body: answer if body == smallest("chat") else failed(500))
        await Process("p", blobs, phi, deployment("phi")).ask(20, 30.0)
        assert len(probes(phi)) == 1
        stored = await blobs.read(BlobRef("state", "probed/phi"))
        assert bool(stored.data) is bool(told)

    play(main)


def test_an_answer_that_is_not_there_yet_is_looked_for_again_soon() -> None:
    """Another process has claimed the minute; its answer comes seconds later."""

    class Watched(SlowBlobs):
        looks = 0

        async def read(self, ref: BlobRef) -> Stored:
            self.looks += ref.name == "probed/phi"
            return await super().read(ref)

    async def main() -> None:
        blobs, phi = Watched(), deployment("phi")
        claims, now = ProbeClaims(blobs, "state"), asyncio.get_running_loop().time
        etag = await claims.claim(phi, await claims.look(phi, "chat", 66.0))
        endpoint = Scripted(poisoned, seconds=0.5)
        asking = asyncio.create_task(Process("p", blobs, endpoint, phi).ask(20, 55.0))
        await asyncio.sleep(4.0)
        await claims.tell(phi, "chat", etag, Finding(answered=True, sent=now()))
        await asyncio.wait([asking])
        # Once by this test, once before it was there, once after it, and no more once it is known.
        assert (blobs.looks, probes(endpoint)) == (3, [])

    play(main)


class Paid:
    """What calls of a capped job may cost is durable a second after it is set aside."""

    async def pledge(self, task: Task, body: Mapping[str, Any], among: Sequence[str]) -> "Paid":
        return self

    def spare(self, task: Task, body: Mapping[str, Any], among: Sequence[str]) -> "Paid":
        return self

    async def secure(self) -> None:
        await asyncio.sleep(1.0)

    def settle(self, deployment: str, outcome: Outcome | None) -> None:
        pass

    def drop(self) -> None:
        pass


def test_a_capped_job_s_rows_that_fail_together_probe_once() -> None:
    async def main() -> None:
        bench = Bench({"phi": Scripted(lambda n, body: failed(500), seconds=0.5)})
        gate = Gate(math.inf, deadline=600.0)
        gate.purse = Paid()
        asking = (bench.ask(gate, call=call) for call in job(20))
        await asyncio.gather(*asking, return_exceptions=True)
        gaps = [later - earlier for earlier, later in pairwise(probes(bench.endpoints["phi"]))]
        assert len(gaps) > 3
        assert min(gaps) >= 60.0

    play(main)


def test_the_image_that_is_asked_about_is_one() -> None:
    (item,) = smallest("image-embeddings")["input"]
    kind, _, data = item["image"].partition(",")
    png = base64.b64decode(data, validate=True)
    assert (kind, len(data) < 200) == ("data:image/png;base64", True)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    (width, height, depth, colours) = struct.unpack(">IIBB", png[16:26])
    start = png.index(b"IDAT")
    length = int.from_bytes(png[start - 4 : start])
    pixels = zlib.decompress(png[start + 4 : start + 4 + length])
    assert (depth, colours, len(pixels)) == (8, 2, height * (1 + 3 * width))


def test_such_a_job_ends_though_its_rows_are_handed_back_again_and_again() -> None:
    async def main() -> None:
        bench = Bench({"phi": Scripted(poisoned, seconds=0.5)}, requests_per_minute=600)

        async def to_its_end(call: Call) -> Answer:
            earlier: tuple[CallRecord, ...] = ()
            loop = asyncio.get_running_loop()
            while True:
                assert loop.time() <= 2 * 3600.0
                gate = Gate(math.inf, deadline=loop.time() + 120.0)
                try:
                    return await bench.ask(gate, call=replace(call, earlier=earlier))
                except HandBack as back:
                    earlier += back.attempts
                    await asyncio.sleep(back.delay)

        made = await asyncio.gather(*(to_its_end(call) for call in job(100)))
        assert {answer.outcome.status for answer in made} == {500}
        assert bench.idle()

    play(main)


def test_an_outage_that_our_own_call_meets_too_burns_no_attempts() -> None:
    async def main() -> None:
        bench = Bench({"phi": Scripted(lambda n, body: failed(500), seconds=0.5)})
        gate = Gate(math.inf, deadline=3600.0)
        asking = (bench.ask(gate, call=call) for call in job(50))
        results = await asyncio.gather(*asking, return_exceptions=True)
        backs = [each for each in results if isinstance(each, HandBack)]
        assert len(backs) == 50
        # The first of all to fail is alone at that moment, and held to be at fault.
        assert sum(attempt.counted for back in backs for attempt in back.attempts) <= 1
        assert 30 <= len(probes(bench.endpoints["phi"])) <= 61
        assert bench.idle()

    play(main)


def test_an_outage_between_two_answers_to_our_own_call_burns_no_attempts() -> None:
    """The service fails for minutes, and is well whenever a row could tell it."""

    def answer(n: int, body: Mapping[str, Any]) -> Outcome:
        now = asyncio.get_running_loop().time()
        return OK if now > 300.0 else failed(500)

    async def main() -> None:
        bench = Bench({"phi": Scripted(answer, seconds=0.5)}, requests_per_minute=600)
        made = await asyncio.gather(*(bench.ask(call=call) for call in job(50)))
        assert {answer.outcome.kind for answer in made} == {"ok"}

    play(main)


@pytest.mark.parametrize("status", [503, None])
def test_faults_that_no_row_can_cause_are_never_held_against_rows(status: int | None) -> None:
    async def main() -> None:
        bench = Bench({"phi": Scripted(lambda n, body: failed(status), seconds=0.5)})
        gate = Gate(math.inf, deadline=600.0)
        asking = (bench.ask(gate, call=call) for call in job(20))
        await asyncio.gather(*asking, return_exceptions=True)
        assert probes(bench.endpoints["phi"]) == []

    play(main)


def test_our_own_call_keeps_to_the_quota() -> None:
    async def main() -> None:
        bench = Bench({"phi": Scripted(poisoned, seconds=0.1)}, requests_per_minute=12)
        gate = Gate(math.inf, deadline=900.0)
        asking = (bench.ask(gate, call=call) for call in job(20))
        await asyncio.gather(*asking, return_exceptions=True)
        gaps = [later - earlier for earlier, later in pairwise(bench.calls)]
        assert min(gaps) >= 60.0 / 12 - 0.1

    play(main)


def test_retries_in_vain_are_rationed() -> None:
    """Four in ten fail by chance: without a budget as many retries would too, all at once."""
    rng = Random(5)

    async def main() -> None:
        bench = Bench(
            {"phi": Scripted(lambda n, body: failed(503) if rng.random() < 0.4 else OK)},
            max_concurrency=50,
        )
        asking = [asyncio.create_task(bench.ask()) for _ in range(2000)]
        made = await asyncio.gather(*asking)
        retries = [each for answer in made for each in answer.attempts[1:]]
        in_vain = sum(each.kind != "ok" for each in retries)
        seconds = asyncio.get_running_loop().time()
        good = sum(answer.outcome.kind == "ok" for answer in made)
        assert len(bench.calls) == 2000 + len(retries)
        assert 100 <= in_vain <= 10 + 0.1 * good + 0.5 * seconds + 1

    play(main)


def test_a_retry_that_is_handed_back_costs_no_budget() -> None:
    refused = Outcome(kind="auth", status=401)

    async def main() -> None:
        answers = Scripted(lambda n, body: failed(503) if n == 1 else refused, seconds=0.1)
        bench = Bench({"phi": answers})
        asking = asyncio.create_task(handed_back(bench.ask(Gate(math.inf, 20.0))))
        await asyncio.sleep(0.05)
        # While the first one rests, the key is refused: the deployment stops beyond its deadline.
        other = asyncio.create_task(bench.ask(job="other"))
        assert (await asking).reason == "outage"
        assert len(bench.calls) == 2
        assert bench.dispatcher._lanes["phi"].budget.tokens == pytest.approx(10.0)
        other.cancel()

    play(main)


def test_after_a_blip_all_that_failed_is_asked_again_at_full_rate() -> None:
    async def main() -> None:
        now = asyncio.get_running_loop().time
        bench = Bench(
            {"phi": Scripted(lambda n, body: failed(503) if now() < 5.0 else OK, seconds=0.5)},
            max_concurrency=200,
        )
        made = await asyncio.gather(*(bench.ask() for _ in range(200)))
        assert {answer.outcome.kind for answer in made} == {"ok"}
        # Probe and backoff, and then ten at a time.
        assert now() <= 5.0 + 15.0 + 200 / 10 * 0.5 + 20.0

    play(main)


def test_a_failure_that_says_when_to_come_back_is_asked_then() -> None:
    told = Outcome(kind="transient", status=503, retry_after=30.0)

    async def main() -> None:
        bench = Bench({"phi": Scripted(lambda n, body: told if n == 1 else OK, seconds=0.1)})
        await bench.ask()
        assert 30.0 <= bench.calls[1] - bench.calls[0] <= 31.0

    play(main)


@pytest.mark.parametrize("others", [True, False])
def test_a_row_that_times_out_in_every_slice_is_final_after_three(others: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        late = Outcome(kind="timeout", code="deadline", billed=True)
        slow, quick = Scripted(lambda n, body: late, seconds=120.0), Scripted()

        class Either(Scripted):
            async def ask(self, task: Task, body: Mapping[str, Any]) -> Outcome:
                return await (slow if body.get("bad") else quick).ask(task, body)

        bench = Bench({"phi": Either()})
        attempts: list[CallRecord] = []
        for _ in range(2):
            gate = Gate(math.inf, loop.time() + 120.0)
            call = Call("chat", "phi-3", BODY | {"bad": True}, line=7, earlier=tuple(attempts))
            asking = asyncio.create_task(handed_back(bench.ask(gate, call=call)))
            for _ in range(50 if others else 0):
                await bench.ask(gate)
            attempts += (await asking).attempts
            assert [attempt.counted for attempt in attempts] == [True] * len(attempts)
        call = Call("chat", "phi-3", BODY | {"bad": True}, line=7, earlier=tuple(attempts))
        answer = await bench.ask(Gate(math.inf, loop.time() + 120.0), call=call)
        assert (answer.outcome.kind, len(attempts), len(answer.attempts)) == ("timeout", 2, 1)

    play(main)


def test_a_call_larger_than_a_minutes_tokens_is_refused_without_a_call() -> None:
    async def main() -> None:
        bench = Bench(tokens_per_minute=4_000)
        answer = await bench.ask(call=Call("chat", "phi-3", BODY | {"max_tokens": 4_096}))
        assert (answer.outcome.kind, answer.outcome.code) == ("bad_request", "request_too_large")
        assert "4000 tokens that phi" in str(answer.outcome.message)
        assert not bench.calls

    play(main)


def test_a_call_that_may_be_larger_than_a_minutes_tokens_holds_up_nobody_for_long() -> None:
    no = Outcome(kind="throttled", status=429, limit="tokens")
    large = BODY | {"messages": [{"role": "user", "content": "x" * 20_000}]}

    async def main() -> None:
        def answer(n: int, body: Mapping[str, Any]) -> Outcome:
            return no if body == large else OK

        bench = Bench({"phi": Scripted(answer)}, tokens_per_minute=4_000)
        asking = asyncio.create_task(bench.ask(call=Call("chat", "phi-3", large)))
        await asyncio.gather(*(bench.ask() for _ in range(50)))
        refused = await asking
        assert (refused.outcome.code, len(refused.attempts)) == ("request_too_large", 3)
        assert asyncio.get_running_loop().time() <= 600.0

    play(main)


# -- routes -------------------------------------------------------------------------------------


def test_a_route_goes_round_a_deployment_that_is_down() -> None:
    async def main() -> None:
        down, up = Scripted(lambda n, body: failed(503), seconds=0.1), Scripted(seconds=0.1)
        bench = Bench({"down": down, "up": up})
        answers = await asyncio.gather(*(bench.ask() for _ in range(500)))
        assert {answer.outcome.kind for answer in answers} == {"ok"}
        assert len(down.calls) <= 100

    play(main)


def test_a_row_does_not_wait_for_a_deployment_that_wants_to_be_left_alone_beside_another() -> None:
    told = Outcome(kind="transient", status=503, retry_after=100.0)

    async def main() -> None:
        bench = Bench({"busy": Scripted(lambda n, body: told, seconds=0.1), "free": Scripted()})
        answers = await asyncio.gather(*(bench.ask() for _ in range(20)))
        assert {answer.outcome.kind for answer in answers} == {"ok"}
        assert asyncio.get_running_loop().time() <= 60.0

    play(main)


def test_a_row_goes_to_a_deployment_that_is_large_enough_by_all_that_is_known() -> None:
    async def main() -> None:
        bench = Bench(
            {"small": Scripted(), "large": Scripted()},
            [deployment("small", max_tokens_per_request=4096), deployment("large")],
        )
        long = BODY | {"messages": [{"role": "user", "content": "word " * 4_000}]}
        await asyncio.gather(
            *(bench.ask(call=Call("chat", "phi-3", long)) for _ in range(20)),
            *(bench.ask() for _ in range(60)),
        )
        assert len(bench.endpoints["large"].calls) >= 20 + 10
        assert len(bench.endpoints["small"].calls) >= 10
        assert len(bench.calls) == 80

    play(main)


def test_a_route_is_not_judged_by_a_deployment_that_is_done_for_the_day() -> None:
    over = Outcome(kind="throttled", status=429, limit="day", retry_after=40_000.0)

    async def main() -> None:
        done, up = Scripted(lambda n, body: over, seconds=0.1), Scripted(seconds=0.5)
        bench = Bench(
            {"done": done, "up": up}, [deployment("done"), deployment("up", requests_per_minute=60)]
        )
        gate = Gate(math.inf, 120.0)
        asking = [asyncio.create_task(bench.ask(gate)) for _ in range(300)]
        await asyncio.sleep(100.0)
        waiting = bench.dispatcher.waiting("job")
        assert waiting is not None
        assert (waiting.reason, waiting.deployment, waiting.until) == ("quota", "up", None)
        results = await asyncio.gather(*asking, return_exceptions=True)
        backs = [each for each in results if isinstance(each, HandBack)]
        assert len(backs) > 100
        assert {(back.reason, back.deployment) for back in backs} == {("quota", "up")}
        assert max(back.delay for back in backs) <= 5.0
        answers = [each.attempts[-1] for each in results if isinstance(each, Answer)]
        assert "day" not in {attempt.waited_for for attempt in answers}

    play(main)


def test_a_small_job_on_a_slow_deployment_does_not_wait_for_a_fast_one() -> None:
    async def main() -> None:
        bench = Bench(
            {"fast": Scripted(seconds=0.2), "slow": Scripted(seconds=0.2)},
            [
                deployment("fast", requests_per_minute=3000),
                deployment("slow", model="other", requests_per_minute=60),
            ],
            routes={"both": ["fast", "slow"]},
        )

        async def feed(job: str, model: str) -> None:
            while True:
                await bench.ask(call=Call("chat", model, BODY), job=job)

        jobs = (("everywhere", "both"), ("slow", "slow"))
        feeding = [asyncio.create_task(feed(*each)) for each in jobs for _ in range(50)]
        await asyncio.sleep(300.0)
        async with asyncio.timeout(15.0):
            small = Call("chat", "slow", BODY)
            await asyncio.gather(*(bench.ask(call=small, job="small") for _ in range(3)))
        for task in feeding:
            task.cancel()

    play(main)


def test_a_route_uses_the_quotas_of_all_its_deployments() -> None:
    async def main() -> None:
        one, two = Scripted(), Scripted()
        bench = Bench(
            {"one": one, "two": two},
            [
                deployment("one", requests_per_minute=600),
                deployment("two", model="phi-3.5", requests_per_minute=1200),
            ],
            routes={"phi-3": ["one", "two"]},
        )
        await asyncio.gather(*(bench.ask() for _ in range(900)))
        assert asyncio.get_running_loop().time() == pytest.approx(900 / 30 / 0.97, rel=0.06)
        assert len(two.calls) / len(one.calls) == pytest.approx(2.0, rel=0.1)

    play(main)


def test_free_capacity_and_weight_decide_where_nothing_is_scarce() -> None:
    async def main() -> None:
        one, two = Scripted(), Scripted()
        bench = Bench(
            {"one": one, "two": two},
            [deployment("one", weight=1.0), deployment("two", weight=3.0)],
        )
        await asyncio.gather(*(bench.ask() for _ in range(40)))
        assert (len(one.calls), len(two.calls)) == (10, 30)

    play(main)


# -- fairness, packed calls, status -------------------------------------------------------------


def test_jobs_share_a_deployment_by_weight() -> None:
    async def main() -> None:
        bench = Bench(requests_per_minute=600)
        done: Counter[str] = Counter()

        async def work(job: str, weight: float) -> None:
            for _ in range(100):
                await bench.ask(job=job, weight=weight)
                done[job] += 1

        jobs = {"high": 4.0, "normal": 1.0, "low": 0.1}
        working = [
            asyncio.create_task(work(job, weight))
            for job, weight in jobs.items()
            for _ in range(30)
        ]
        await asyncio.sleep(60.0)
        total = sum(done.values())
        for job, weight in jobs.items():
            part = weight / 5.1
            assert done[job] / total == pytest.approx(part, abs=min(0.04, 0.25 * part))
        for task in working:
            task.cancel()

    play(main)


def test_a_small_job_does_not_wait_for_a_huge_one() -> None:
    async def main() -> None:
        bench = Bench(requests_per_minute=600)
        huge = [asyncio.create_task(bench.ask(job="huge")) for _ in range(2000)]
        await asyncio.sleep(10.0)
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(bench.ask(job="small") for _ in range(5)))
        assert asyncio.get_running_loop().time() - began <= 1.0 + 2 * 5 / 9.0
        for task in huge:
            task.cancel()

    play(main)


def test_a_packed_call_costs_one_request_and_all_its_tokens() -> None:
    async def main() -> None:
        usage = Outcome(kind="ok", status=200, body={}, usage=Usage(3_600, 0), billed=True)
        bench = Bench(
            {"phi": Scripted(lambda n, body: usage, seconds=0.1)}, tokens_per_minute=216_000
        )
        packed = Call("embeddings", "phi-3", {"input": ["x" * 1000] * 10}, rows=10)
        await asyncio.gather(*(bench.ask(call=packed) for _ in range(21)))
        # 3,600 tokens each, as a second allows; the first goes at once.
        assert asyncio.get_running_loop().time() == pytest.approx(20.0 / 0.98, rel=0.05)
        assert len(bench.calls) == 21

    play(main)


def test_the_status_says_what_a_job_waits_for() -> None:
    async def main() -> None:
        bench = Bench(
            {"fast": Scripted(), "thin": Scripted(seconds=30.0), "down": Scripted()}
            | {"long": Scripted(seconds=60.0)},
            [
                deployment("fast", requests_per_minute=6),
                deployment("thin", model="thin", max_concurrency=1),
                deployment("down", model="down"),
                deployment("long", model="long"),
            ],
        )
        bench.endpoints["down"].answer = lambda n, body: Outcome(kind="auth", status=401)
        asking = [
            asyncio.create_task(bench.ask(call=Call("chat", model, BODY), job=model))
            for model in ("phi-3", "thin", "down")
            for _ in range(3)
        ]
        await asyncio.sleep(5.0)
        said = {model: bench.dispatcher.waiting(model) for model in ("phi-3", "thin", "down")}
        assert [
            each and (each.reason, each.deployment, round(each.since - EPOCH))
            for each in said.values()
        ] == [("quota", "fast", 0), ("concurrency", "thin", 0), ("outage", "down", 1)]
        down = said["down"]
        assert down is not None
        assert down.until is not None
        assert down.until > EPOCH + 5.0
        assert bench.dispatcher.waiting("nobody") is None
        asking.append(asyncio.create_task(bench.ask(call=Call("chat", "long", BODY), job="long")))
        await asyncio.sleep(20.0)
        latency = bench.dispatcher.waiting("long")
        assert latency is not None
        assert (latency.reason, latency.deployment) == ("latency", "long")
        assert (round(latency.since - EPOCH), latency.until) == (5, None)
        for task in asking:
            task.cancel()

    play(main)


# -- shares -------------------------------------------------------------------------------------


def test_a_process_that_slept_does_not_use_its_old_share() -> None:
    """Frozen for a minute: the first thing it does must not be a call."""
    lane = Lane(
        deployment(requests_per_minute=600),
        safe_share=0.1,
        midnight=86_400.0,
        now=0.0,
        rng=Random(1),
    )
    wish = lane.allowance.wish(JobWeights(), 10, 0.0)
    lane.allowance.fund(Grant(1.0, until=9.5), wish, 86_400.0, 0.0)
    assert lane.ready(10.0, 0.0) == 0.0
    assert lane.ready(10.0, 9.4) == 9.4
    assert lane.ready(10.0, 60.0) == math.inf
    lane.allowance.ledger_lost(60.0)
    assert lane.ready(10.0, 60.0) == 60.0
    lane.admit(10.0, 60.0)
    # Alone, and carefully: a tenth of ten a second.
    assert lane.ready(10.0, 60.0) == pytest.approx(61.0, abs=0.1)


def test_before_the_first_round_and_without_a_share_nothing_goes() -> None:
    lane = Lane(
        deployment(requests_per_minute=600),
        safe_share=0.1,
        midnight=86_400.0,
        now=0.0,
        rng=Random(1),
    )
    assert lane.ready(10.0, 0.0) == math.inf
    assert lane.why == "quota"


def test_a_wait_for_the_quota_began_no_earlier_than_the_last_fault_ended() -> None:
    """A call has queued for the quota since before an outage, and queues for it again."""

    async def main(rng: Random) -> None:
        fault = Outcome(kind="auth", status=401, code="auth")
        endpoint = Scripted(lambda call, _: fault if call in (31, 32) else OK, seconds=0.1)
        bench = Bench({"phi": endpoint}, requests_per_minute=60)
        asked = [asyncio.create_task(bench.ask()) for _ in range(300)]
        await asyncio.sleep(180)
        assert len(endpoint.calls) > 40
        waiting = bench.dispatcher.waiting("job")
        assert waiting is not None
        assert waiting.reason == "quota"
        assert waiting.since == pytest.approx(EPOCH + endpoint.calls[32], abs=0.5)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    run(main)


def test_a_wait_after_a_pause_began_no_earlier_than_the_pause_ended() -> None:
    """The service says to come back in 20 s; what queues after that waits for the quota."""

    async def main(rng: Random) -> None:
        stop = Outcome(kind="throttled", status=429, code="429", retry_after=20.0)
        endpoint = Scripted(lambda call, _: stop if call == 31 else OK, seconds=0.1)
        bench = Bench({"phi": endpoint}, requests_per_minute=60)
        asked = [asyncio.create_task(bench.ask()) for _ in range(300)]
        await asyncio.sleep(80)
        assert len(endpoint.calls) > 40
        waiting = bench.dispatcher.waiting("job")
        assert waiting is not None
        assert waiting.reason == "quota"
        assert EPOCH + endpoint.calls[30] + 20 <= waiting.since <= EPOCH + endpoint.calls[31] + 0.5
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    run(main)


def test_a_wait_began_no_earlier_than_the_fault_that_it_is_for() -> None:
    """A call that has queued for the quota for a minute waits for an outage since it began."""

    async def main(rng: Random) -> None:
        fault = Outcome(kind="auth", status=401, code="auth")
        endpoint = Scripted(lambda call, _: fault if call > 30 else OK, seconds=0.1)
        bench = Bench({"phi": endpoint}, requests_per_minute=60)
        asked = [asyncio.create_task(bench.ask()) for _ in range(60)]
        await asyncio.sleep(20)
        waiting = bench.dispatcher.waiting("job")
        assert waiting is not None
        assert (waiting.reason, waiting.since) == ("quota", EPOCH)
        await asyncio.sleep(20)
        waiting = bench.dispatcher.waiting("job")
        assert waiting is not None
        assert waiting.reason == "outage"
        began = EPOCH + endpoint.calls[30] + 0.1
        assert waiting.since == pytest.approx(began, abs=0.5)
        await asyncio.sleep(60)  # a probe has failed meanwhile: the outage is the same
        assert len(endpoint.calls) > 31
        waiting = bench.dispatcher.waiting("job")
        assert waiting is not None
        assert waiting.since == pytest.approx(began, abs=0.5)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)

    run(main)
