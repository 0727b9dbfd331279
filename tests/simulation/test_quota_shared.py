"""Workers that share one quota, in a seeded world on virtual time, with the production code."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import product
from random import Random
from typing import Any

import pytest

from local.endpoint.limits import Limits
from schemas.outcomes import Outcome
from tests.simulation import quota_shards
from tests.simulation.quota_shards import Dealt
from tests.simulation.quota_world import (
    EPOCH,
    Endpoint,
    Row,
    Storage,
    Worker,
    World,
    deployment,
    jain,
    lower_bound,
    rows,
)
from tests.simulation.virtual_time import run
from workers.dispatch.call import Answer, Call, Gate
from workers.dispatch.dispatcher import Dispatcher
from workers.ports import BlobRef
from workers.quota.book import Book, Day, Wish
from workers.quota.ledger import Ledger, Round
from workers.quota.shares import SLOWEST_RECOVERY

REQUESTS = Limits(requests_per_minute=1000, tokens_per_minute=200_000)
FULL = 16.0
"""Requests a second that 1,000 a minute come to, floored in windows of a second."""


def more(*values: Any) -> Any:
    """Further values of the same, which `make test-long` has."""
    return pytest.param(*values, marks=pytest.mark.long)


def measure(
    seed: int, count: int, mean_tokens: float, prepare: Callable[[World], None], **options: object
) -> tuple[World, list[Row], float]:
    """Do `count` rows; gives the world, the work and the seconds it took."""

    async def main(rng: Random) -> tuple[World, list[Row], float]:
        world = World(seed, REQUESTS, **options)  # type: ignore[arg-type]
        prepare(world)
        work = rows(count, mean_tokens, Random(seed))
        return world, work, await world.work(work)

    return run(main, seed)


def nothing(world: World) -> None:
    """No faults."""


# -- the quota is used to the full --------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, more(2), more(4), 8])
def test_a_request_quota_is_used_to_the_full(workers: int) -> None:
    world, work, took = measure(1, 4000, 100, nothing, workers=workers)
    assert lower_bound(work, REQUESTS) / took >= 0.95
    assert world.refusals <= 0.015
    assert world.sends <= 1.02
    assert jain([len(worker.done) for worker in world.workers]) >= 0.99


@pytest.mark.parametrize(("workers", "count"), [more(1, 4000), (8, 2500), more(8, 4000)])
def test_a_token_quota_is_used_to_the_full(workers: int, count: int) -> None:
    world, work, took = measure(1, count, 400, nothing, workers=workers)
    # The bound of the whole minutes flatters or punishes by chance: what the tokens take, evenly.
    assert sum(row.tokens for row in work) / 200_000 * 60.0 / took >= 0.95
    assert world.refusals <= 0.015
    assert jain([len(worker.done) for worker in world.workers]) >= 0.99


@pytest.mark.parametrize("dealt", ["even", "first"])
@pytest.mark.parametrize(
    ("per_minute", "count", "workers", "least"),
    [
        (1800, 1500, 1, 0.98),
        more(1800, 1500, 4, 0.98),
        (1800, 1500, 16, 0.96),
        (1000, 1000, 8, 0.98),
        more(1000, 1000, 32, 0.96),
    ],
)
def test_shares_follow_the_shards_however_they_are_dealt(
    per_minute: int, count: int, workers: int, least: float, dealt: Dealt
) -> None:
    found = quota_shards.measure(per_minute, count, workers, dealt)
    assert found.efficiency >= least
    assert found.refused <= 0.015


@pytest.mark.parametrize(
    ("workers", "times", "least"),
    [(32, 1, 0.98), more(64, 1, 0.965), more(32, 3, 0.98), more(64, 3, 0.975)],
)
def test_jobs_that_come_and_go_on_many_workers_leave_little_idle(
    workers: int, times: int, least: float
) -> None:
    """Four jobs of three weights, each on a quarter of the workers, 20 s apart or a minute."""
    jobs = [(1200 * times, 1.0), (400 * times, 4.0), (900 * times, 1.0), (700 * times, 0.1)]

    async def main(rng: Random) -> None:
        world = World(1, Limits(requests_per_minute=1000), workers=0)
        world.total = sum(count for count, _ in jobs) + 1  # it ends when told to

        async def ask(number: int, count: int, weight: float) -> None:
            await asyncio.sleep(20.0 * times * number)
            heap = deque(rows(count, 30, Random(number), 1.0))
            for each in range(workers // 4):
                name = f"{number} {each}"
                world.workers.append(Worker(world, name, job=f"job{number}", weight=weight))
                world.workers[-1].start(heap, 20)
            while heap:  # noqa: ASYNC110 - of workers that know no events
                await asyncio.sleep(0.5)

        await asyncio.gather(*(ask(number, *job) for number, job in enumerate(jobs)))
        end = asyncio.get_running_loop().time() - 2.0
        begin = int(min(world.service.admitted)) + 1
        # The first whole second is used, and of the others hardly any is not.
        assert world.rate(begin, begin + 1) >= 0.8 * FULL
        assert world.rate(begin + 1, int(end)) >= least * FULL
        assert world.service.refused <= 0.015 * len(world.service.admitted)
        for worker in world.workers:
            await worker.stop()

    run(main, 1)


def test_32_workers_take_turns_instead_of_slivers() -> None:
    world, work, took = measure(1, 4000, 100, nothing, workers=32, concurrency=16)
    assert lower_bound(work, REQUESTS) / took >= 0.87
    assert world.refusals <= 0.015
    assert min(len(worker.done) for worker in world.workers) > 0


def test_a_seed_replays_a_run() -> None:
    first, second = (measure(7, 600, 100, nothing, workers=4)[0].service.admitted for _ in range(2))
    assert first == second
    assert measure(8, 600, 100, nothing, workers=4)[0].service.admitted != first


# -- workers come and go ------------------------------------------------------------------------


def test_a_newcomer_has_its_share_within_seconds() -> None:
    async def main(rng: Random) -> None:
        world = World(3, REQUESTS, workers=1)
        late = [Worker(world, f"late{n}") for n in range(3)]
        doing = asyncio.create_task(world.work(rows(3000, 100, rng)))
        await asyncio.sleep(40.0)
        for worker in late:
            worker.start(world.heap, 100)
        await asyncio.sleep(10.0)
        shares = [held.share for held in world.book().holders.values()]
        assert len(shares) == 4
        assert min(shares) == pytest.approx(0.25, abs=0.02)
        assert all(worker.done for worker in late)
        assert world.rate(40.0, 50.0) >= 0.93 * FULL
        await doing
        for worker in late:
            await worker.stop()

    run(main, 3)


@pytest.mark.parametrize("seed", [1, more(2), more(3)])
def test_a_dead_workers_quota_is_back_within_12_seconds(seed: int) -> None:
    async def main(rng: Random) -> None:
        world = World(seed, REQUESTS, workers=4)
        doing = asyncio.create_task(world.work(rows(3000, 100, rng)))
        await asyncio.sleep(60.0)
        # Its entry lasts the longest: it has just been written.
        dying = world.workers[0]
        expires = world.book().holders[dying.holder].expires
        while world.book().holders[dying.holder].expires == expires:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0.01)
        await dying.crash()
        died = asyncio.get_running_loop().time()
        assert world.rate(40.0, 60.0) >= 0.95 * FULL
        await asyncio.sleep(SLOWEST_RECOVERY)
        shares = sorted(held.share for held in world.book().holders.values())
        assert shares == pytest.approx([5 / 16, 5 / 16, 6 / 16], abs=0.005)
        await asyncio.sleep(20.0)
        assert world.rate(died + SLOWEST_RECOVERY, died + SLOWEST_RECOVERY + 20.0) >= 0.95 * FULL
        await doing
        assert len(world.results) == 3000

    assert SLOWEST_RECOVERY <= 12.0
    run(main, seed)


def test_a_share_is_given_back_when_the_work_is_done() -> None:
    async def main(rng: Random) -> None:
        world = World(4, REQUESTS, workers=2)
        await world.work(rows(50, 100, rng))
        assert not world.book().holders

    run(main, 4)


def test_a_small_job_starts_within_a_fraction_of_a_second() -> None:
    world, _, took = measure(5, 5, 100, nothing, workers=1)
    assert min(world.service.admitted) < 0.3
    assert took < 10.0


def test_a_nightly_worker_yields_to_a_daytime_worker() -> None:
    async def main(rng: Random) -> None:
        world = World(6, REQUESTS, workers=0)
        night = Worker(world, "night", job="nightly", weight=0.1)
        day = Worker(world, "day", job="daytime", weight=1.0)
        world.workers = [night, day]
        doing = asyncio.create_task(world.work(rows(1500, 100, rng)))
        await asyncio.sleep(60.0)
        mark = len(night.done), len(day.done)
        await asyncio.sleep(20.0)
        nightly, daily = len(night.done) - mark[0], len(day.done) - mark[1]
        assert daily / (nightly + daily) == pytest.approx(10 / 11, abs=0.05)
        await doing

    run(main, 6)


async def crowd(world: World, hosts: list[int], weight: float, calls: int) -> list[Answer]:
    """Beside the nightly job of all workers, which has run for a minute and a half: another one."""
    for worker in world.workers:
        worker.job, worker.weight = "nightly", 0.1
    world.heap.extend(rows(6_000, 100, world.rng))
    world.total = 10**9
    for worker in world.workers:
        worker.start(world.heap, world.concurrency)
    await asyncio.sleep(90.0)
    answers: list[Answer] = []

    async def ask(host: Worker, row: Row) -> None:
        gate = Gate(math.inf, math.inf)
        answers.append(
            await host.dispatcher.ask(host.call(row), job="day", weight=weight, gate=gate)
        )

    for number in hosts:
        for row in rows(calls, 100, world.rng):
            task = asyncio.create_task(ask(world.workers[number], row))
            world.workers[number].errands.append(task)
    return answers


@pytest.mark.parametrize(
    ("workers", "hosts", "weight"),
    [
        (8, [0, 5], 0.2),
        more(8, [0], 1.0),
        more(32, [0], 1.0),
        more(32, [0], 0.1),
        more(32, [0, 5], 0.2),
    ],
)
def test_a_job_weighs_the_same_on_however_many_workers_it_is(
    workers: int, hosts: list[int], weight: float
) -> None:
    async def main(rng: Random) -> None:
        world = World(6, REQUESTS, workers=workers, concurrency=16)
        day = await crowd(world, hosts, weight, 3000 // len(hosts))
        await asyncio.sleep(25.0)
        mark = len(day), len(world.results)
        await asyncio.sleep(120.0)
        daily, nightly = len(day) - mark[0], len(world.results) - mark[1]
        assert daily / (daily + nightly) == pytest.approx(weight / (weight + 0.1), abs=0.03)
        assert (daily + nightly) / 120.0 >= 0.97 * FULL
        assert world.service.refused <= 0.02 * world.service.sent
        for worker in world.workers:
            await worker.stop()

    run(main, 6)


@pytest.mark.parametrize(
    ("workers", "per_minute"), [(8, 1000), more(32, 1000), more(4, 60), (32, 60)]
)
@pytest.mark.parametrize("host", [0, more(1), more(3)])
def test_a_small_urgent_job_begins_within_seconds_whoever_asks(
    workers: int, per_minute: int, host: int
) -> None:
    async def main(rng: Random) -> None:
        limits = Limits(requests_per_minute=per_minute, tokens_per_minute=200_000)
        world = World(host, limits, workers=workers, concurrency=16)
        urgent = await crowd(world, [host], 4.0, 5)
        await asyncio.sleep(1.5)
        # Its process need not wait for the round that is due, which may be four seconds away.
        assert urgent or any("day" in held.jobs for held in world.book().holders.values())
        await asyncio.sleep(58.5)
        waited = sorted(answer.attempts[0].waited for answer in urgent)
        assert len(waited) == 5
        assert waited[0] <= 10.0
        assert waited[-1] <= 20.0
        for worker in world.workers:
            await worker.stop()

    run(main, host)


# -- the ledger is slow, wrong about the time, fought over, or gone -----------------------------


async def watched(world: World, used: list[float]) -> None:
    """What all together may use, twenty times a second."""
    while True:
        used.append(world.in_use())
        await asyncio.sleep(0.05)


async def joined(world: World) -> None:
    """Four more workers, one after the other: whoever is there has to give part of its share."""
    for number in range(4):
        await asyncio.sleep(15.0)
        world.workers.append(Worker(world, f"late{number}"))
        world.workers[-1].start(world.heap, 100)


@pytest.mark.parametrize("seed", [1, more(2), more(3)])
def test_whoever_comes_goes_dies_or_loses_the_ledger_all_use_at_most_all(seed: int) -> None:
    async def main(rng: Random) -> None:
        world = World(seed, REQUESTS, workers=8, concurrency=20)
        world.storage.lost = 0.2
        world.storage.skew = 1.0
        world.storage.out = lambda now: now % 97.0 < 6.0
        used: list[float] = []
        world.strangers.append(partial(watched, world, used))
        doing = asyncio.create_task(world.work(rows(8_000, 100, rng)))
        for number in range(8):
            await asyncio.sleep(30.0)
            gone = world.workers[number]
            await (gone.crash() if rng.random() < 0.5 else gone.stop())
            world.workers.append(Worker(world, f"new{number}"))
            world.workers[-1].start(world.heap, 20)
        assert 0.9 <= max(used) <= 1.0 + 1e-9
        doing.cancel()
        for worker in world.workers:
            await worker.stop()

    run(main, seed)


@pytest.mark.parametrize("seed", [1, more(2)])
def test_conflicts_lost_answers_and_skewed_clocks_cost_hardly_anything(seed: int) -> None:
    used: list[float] = []

    def prepare(world: World) -> None:
        world.storage.lost = 0.1
        world.storage.skew = 1.0
        world.strangers.append(partial(watched, world, used))
        world.strangers.append(partial(joined, world))

    world, work, took = measure(seed, 3000, 100, prepare, workers=4)
    assert len(world.workers) == 8
    assert 0.9 <= max(used) <= 1.0 + 1e-9
    assert lower_bound(work, REQUESTS) / took >= 0.90
    assert world.refusals <= 0.02


def test_without_a_ledger_workers_go_on_carefully_and_without_a_storm() -> None:
    def prepare(world: World) -> None:
        world.storage.out = lambda now: 40.0 <= now < 200.0

    world, _, took = measure(2, 4000, 100, prepare, workers=8, safe_share=0.1)
    assert world.rate(60.0, 200.0) >= 0.6 * FULL
    assert world.refusals <= 0.05
    # And after it has come back the quota is shared as before.
    assert world.rate(220.0, took - 15.0) >= 0.93 * FULL


@pytest.mark.parametrize("seed", [1, more(2), more(3)])
def test_many_workers_that_lose_the_ledger_start_within_the_quota(seed: int) -> None:
    """32 times the safe share of a tenth would be three times the quota."""

    async def main(rng: Random) -> None:
        world = World(seed, REQUESTS, workers=32, concurrency=60)
        world.storage.out = lambda now: now >= 40.0
        doing = asyncio.create_task(world.work(rows(8_000, 100, rng)))
        await asyncio.sleep(200.0)
        for begin, end, refused in [
            (40, 45, 0.08),
            (45, 50, 0.08),
            (50, 55, 0.08),
            (45, 200, 0.08),
        ]:
            sent = world.sent_between(begin, end)
            assert 1.0 - world.rate(begin, end) / sent <= refused
        assert world.rate(60.0, 200.0) >= 0.75 * FULL
        doing.cancel()
        for worker in world.workers:
            await worker.stop()

    run(main, seed)


def test_what_breaks_one_ledger_ends_no_others_rounds() -> None:
    class Broken(Ledger):
        async def renew(self, deployment: str, *args: Any) -> Round:
            if deployment == "two":
                raise ZeroDivisionError
            return await super().renew(deployment, *args)

        async def leave(self, deployment: str, wish: Wish) -> None:
            if deployment == "two":
                raise ZeroDivisionError
            await super().leave(deployment, wish)

    async def main(rng: Random) -> None:
        world = World(1, REQUESTS, workers=0)
        both = [
            deployment(requests_per_minute=1000),
            deployment("two", model="other", requests_per_minute=1000),
        ]
        service = Endpoint(world.service)
        dispatcher = Dispatcher(
            both,
            {"phi": service, "two": service},
            rng=rng,
            ledger=Broken(world.storage, "state", rng=rng),
        )
        running = asyncio.create_task(dispatcher.run())

        async def ask(model: str) -> str:
            row = Row(300, 20, 1.0)
            call = Call("chat", model, row.body | {"row": row})
            gate = Gate(math.inf, asyncio.get_running_loop().time() + 30.0)
            answer = await dispatcher.ask(call, job="job", weight=1.0, gate=gate)
            return answer.outcome.kind

        for _ in range(3):
            kinds = await asyncio.gather(ask("phi-3"), ask("other"))
            assert set(kinds) == {"ok"}
            await asyncio.sleep(60.0)
            assert not running.done()
            # Of the lane in order the share has gone back: its rounds go on.
            assert not world.book().holders
        running.cancel()

    run(main, 1)


def test_a_ledger_that_never_answers_does_not_stop_the_work() -> None:
    def prepare(world: World) -> None:
        world.storage.out = lambda now: True

    world, _, took = measure(2, 1000, 100, prepare, workers=4)
    assert len(world.results) == 1000
    assert world.refusals <= 0.05
    assert took < 400.0


# -- the service has its own life ---------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, more(2), more(3)])
def test_an_outage_fails_no_row_while_answers_of_before_still_come(seed: int) -> None:
    """Calls take half a minute: for as long, the deployment answers some and fails others."""
    down = Outcome(kind="transient", status=503, code="unavailable")

    async def main(rng: Random) -> None:
        world = World(seed, REQUESTS, workers=2, concurrency=400)
        world.service.fault = lambda now: down if 120.0 <= now < 720.0 else None
        await world.work(rows(3000, 100, Random(seed), latency=30.0))
        assert {answer.outcome.kind for answer in world.results} == {"ok"}
        assert world.sent_between(120.0, 720.0) * 600.0 <= 150

    run(main, seed)


def test_an_outage_of_ten_minutes_fails_no_row() -> None:
    down = Outcome(kind="transient", status=503, code="unavailable")

    def prepare(world: World) -> None:
        world.service.fault = lambda now: down if 60.0 <= now < 660.0 else None

    world, _, took = measure(1, 2000, 100, prepare, workers=4)
    assert {answer.outcome.kind for answer in world.results} == {"ok"}
    assert len(world.results) == 2000
    # Probes only, beside what was in flight when it began.
    assert world.service.sent - len(world.service.admitted) <= 350
    assert took <= 660.0 + 2000 / FULL - 60.0 + 75.0


@pytest.mark.parametrize(
    ("hints", "names", "mean_tokens"),
    [
        case if case in (("none", True, 100), ("86400", False, 400)) else more(*case)
        for case in product(("none", "86400", "99999999"), (True, False), (100, 400))
    ],
)
def test_hints_that_are_missing_or_absurd_do_no_harm(
    hints: str, names: bool, mean_tokens: float
) -> None:
    def prepare(world: World) -> None:
        world.service.hints = hints
        world.service.names = names

    world, work, took = measure(2, 2500, mean_tokens, prepare, workers=4)
    ideal = max(2500 / FULL, sum(row.tokens for row in work) / 200_000 * 60.0)
    assert ideal / took >= 0.90
    assert world.refusals <= 0.015


def test_half_the_quota_taken_by_a_stranger_is_no_storm() -> None:
    def prepare(world: World) -> None:
        async def stranger() -> None:
            for _ in range(100_000):
                world.service.quota.admit(asyncio.get_running_loop().time(), 50)
                await asyncio.sleep(1 / 8)

        world.strangers.append(stranger)

    world, _, took = measure(1, 2500, 100, prepare, workers=4)
    assert 2500 / (FULL / 2) / took >= 0.90
    assert world.refusals <= 0.08
    # Once learned, it is as with a quota of its own.
    assert world.sent_between(150.0, took - 20.0) / world.rate(150.0, took - 20.0) <= 1.025


@pytest.mark.long
def test_latency_that_rises_tenfold_costs_no_throughput() -> None:
    async def main(rng: Random) -> None:
        world = World(1, REQUESTS, workers=1, concurrency=2000)
        doing = asyncio.create_task(world.work(rows(6000, 100, rng, latency=6.0)))
        await asyncio.sleep(60.0)
        world.service.slow = 10.0
        await doing
        # 16 a second, more than a minute each: twice the calls in flight that the guard begins
        # with, which would let 7.5 a second through.
        assert world.rate(120.0, 360.0) >= 0.9 * FULL
        assert world.service.most_in_flight >= 900

    run(main, 1)


def test_the_wait_that_a_server_asks_for_is_kept() -> None:
    later = Outcome(kind="throttled", status=429, retry_after=40.0, limit="requests")

    def prepare(world: World) -> None:
        world.service.fault = lambda now: later if 60.0 <= now < 100.0 else None

    world, _, _ = measure(1, 1500, 100, prepare, workers=4)
    # One refusal stops a worker; nothing but what was already on its way meets the closed door.
    assert world.service.sent - len(world.service.admitted) - world.service.refused <= 40
    assert world.rate(105.0, 115.0) >= 0.5 * FULL


def test_a_limit_on_concurrency_lowers_the_guard_and_not_the_rate() -> None:
    limits = Limits(max_concurrency=10)

    async def main(rng: Random) -> None:
        world = World(1, limits, workers=2, concurrency=50)
        await world.work([Row(300, 20, 0.5) for _ in range(6000)])
        assert world.service.most_in_flight == 10
        assert world.refusals <= 0.04
        assert len(world.results) / world.service.admitted[-1] >= 0.9 * 10 / 0.515

    run(main, 1)


@pytest.mark.parametrize(("slots", "workers"), [(2, 4), more(1, 2)])
def test_a_server_whose_slots_others_hold_is_asked_ever_more_rarely(
    slots: int, workers: int
) -> None:
    async def main(rng: Random) -> None:
        world = World(1, Limits(max_concurrency=slots), workers=workers, concurrency=20)
        await world.work([Row(300, 20, 5.0) for _ in range(100 * slots)])
        took = asyncio.get_running_loop().time()
        assert took <= 100 * 5.0 * 1.1
        # Those without a slot ask every ten seconds; their limit is tried once in a while.
        assert world.service.refused <= workers * (took / 5.0 + 10)

    run(main, 1)


def test_a_crowded_server_is_not_crowded_further() -> None:
    """Calls beyond its capacity only wait inside it: the guard stays near that capacity."""

    async def main(rng: Random) -> None:
        world = World(1, Limits(), workers=1, concurrency=1500, shared=False)
        world.service.capacity = 100
        await world.work([Row(300, 20, 1.0) for _ in range(15_500)])
        assert world.service.most_in_flight <= 500
        assert world.rate(20.0, 150.0) >= 0.9 * 100

    run(main, 1)


def test_what_a_day_allows_is_dealt_out_among_all_and_goes_on_the_next_day() -> None:
    limits = Limits(requests_per_minute=600, requests_per_day=300)

    async def main(rng: Random) -> None:
        world = World(1, limits, workers=3, concurrency=20, within_day=True)
        await world.work(rows(500, 100, rng, latency=0.5), within=2 * 86_400.0)
        assert world.service.refusals["day"] == 0
        assert len(world.results) == 500
        first_day = sum(at < 86_400.0 - world.morning for at in world.service.admitted)
        assert 290 <= first_day <= 300
        reasons = {back.reason for worker in world.workers for back in worker.handed_back}
        assert reasons == {"day"}
        delays = [back.delay for worker in world.workers for back in worker.handed_back]
        assert max(delays) <= 86_400.0

    run(main, 1)


@pytest.mark.parametrize("lost", [more(0.05), 0.3])
@pytest.mark.parametrize("seed", [1, more(2)])
def test_lost_answers_lose_nothing_of_a_day(lost: float, seed: int) -> None:
    limits = Limits(requests_per_minute=600, requests_per_day=2000)

    async def main(rng: Random) -> None:
        world = World(seed, limits, workers=4, concurrency=20, within_day=True)
        world.storage.lost = lost
        doing = asyncio.create_task(world.work(rows(6000, 100, rng, latency=0.5), within=1e9))
        await asyncio.sleep(3600.0)
        assert 0.98 * 2000 <= world.service.sent <= 2000
        assert world.book().day.given <= 2000
        doing.cancel()
        for worker in world.workers:
            await worker.stop()

    run(main, seed)


def test_no_second_sees_more_than_the_quota_and_the_bursts() -> None:
    world, _, _ = measure(9, 1500, 100, nothing, workers=8)
    # What was sent: the service lets no more in than the quota, however much it is asked.
    sent = world.service.sent_at
    for first in range(0, len(sent) - 60, 7):
        last = first + 60
        seconds = sent[last] - sent[first]
        # The burst of each of eight workers, and what the network holds back and lets go.
        assert FULL * 1.05 * (seconds + 0.02) + 8 * 1.2 >= 60


def test_an_entry_of_yesterday_does_not_stand_after_midnight() -> None:
    """Its lot would be used as today's, on top of today's."""

    async def main(rng: Random) -> None:
        storage = Storage(rng, EPOCH - 2.0)
        ledger = Ledger(storage, "state", rng=rng)
        wish = partial(Wish, 1.0, 1.0, per_day=1000)
        before = await ledger.renew("phi", wish(day=10), lambda _share, _until: None)
        today = before.grant.date
        assert before.grant.day == 10
        await asyncio.sleep(3.0)
        held = wish(drawn=Day(today, 10))
        after = await ledger.renew("phi", held, lambda _share, _until: None)
        assert after.grant.date == today + 1
        stored = await storage.read(BlobRef("state", "quota/phi.json"))
        book = Book.load(stored.data)
        assert book is not None
        assert (book.day, book.holders[ledger.holder].drawn) == (Day(today + 1, 0), 0)

    run(main, 1)
