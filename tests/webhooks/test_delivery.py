"""From a job's end to its receiver: once for each end, again where it is not taken, in turn."""

import asyncio
import logging
from collections.abc import Mapping
from random import Random

import pytest

from schemas.messages import WebhookMessage
from schemas.tenants import Tenant
from schemas.webhooks import Reception
from tests.doubles.bus import MemoryBus
from tests.doubles.service import Bench, bench
from tests.doubles.webhooks import HOOK, OTHER, MemoryReceiver
from tests.simulation.virtual_time import run
from tests.telemetry.test_telling import Watching
from workers.adapters.telemetry import names
from workers.inbox.receivers import AT_ONCE, SILENT_AWAY_SECONDS
from workers.inbox.webhooks import UNSENT_SECONDS
from workers.jobs.outbox import WEBHOOKS
from workers.ports import AddressRule, BlobRef, Received
from workers.ports.errors import Unavailable
from workers.webhooks.backoff import DAY_SECONDS

ROWS = b'{"prompt": "a"}\n'
HOOKS = {"default": HOOK}


async def pass_time(service: Bench, seconds: float) -> None:
    """Time passes, and what comes due meanwhile is handled when it does."""
    assert isinstance(service.bus, MemoryBus)
    end = service.clock() + seconds
    while (due := service.bus.next_change()) is not None and due <= end:
        await asyncio.sleep(due - service.clock() + 0.001)
        await service.settle()
    await asyncio.sleep(max(0.0, end - service.clock()))


def message_of(job: str, since: float, tenant: str = "default", tries: int = 0) -> Received:
    message = WebhookMessage(job=job, tenant=tenant, since=since, tries=tries)
    return Received(message.model_dump_json().encode(), message_id="m")


def waiting(service: Bench) -> int:
    assert isinstance(service.bus, MemoryBus)
    return len(service.bus.waiting(WEBHOOKS))


def test_a_job_of_any_door_is_told_once_by_its_receiver() -> None:
    async def story(_: Random) -> None:
        async with bench(webhooks=HOOKS) as service:
            dropped = await service.run(ROWS)
            await service.drop(ROWS, "b.jsonl", container="inputs")
            await service.say({"container": "inputs", "name": "b.jsonl"})
            await service.settle()
            jobs = [dropped.event["data"]["job"], (await service.ended()).event["data"]["job"]]
            posts = service.receiver.posts
            assert [post.event["data"]["id"] for post in posts] == [f"batch_{job}" for job in jobs]
            assert [post.headers["webhook-id"] for post in posts] == [f"evt_{job}" for job in jobs]
            assert {post.url for post in posts} == {HOOK.url}
            assert waiting(service) == 0

    run(story)


def test_without_a_receiver_nothing_is_sent() -> None:
    async def story(_: Random) -> None:
        async with bench(webhooks={"blue": OTHER}, tenants={"default": Tenant()}) as service:
            await service.run(ROWS)
            assert service.receiver.posts == []
            assert waiting(service) == 0

    run(story)


def test_one_that_fails_is_told_of_in_the_log_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(_: Random) -> None:
        failing = Reception(None, why="its address is not allowed")
        receiver = MemoryReceiver(failing, failing, failing)
        async with bench(webhooks=HOOKS, receiver=receiver) as service:
            await service.run(ROWS)
            subject = "the receiver of webhooks of tenant default"
            told = f"[OUT_OF_ORDER] {subject} is out of order: its address is not allowed"
            assert [line for line in caplog.messages if subject in line] == [told]
            await pass_time(service, 3600)
            await service.drop(ROWS, "b.jsonl")
            await service.settle()
            back = [line for line in caplog.messages if subject in line][-1]
            assert back.startswith(f"[IN_ORDER] {subject} is in order again")

    run(story)


def test_one_that_refuses_is_told_again_until_it_takes_it() -> None:
    async def story(_: Random) -> None:
        receiver = MemoryReceiver(Reception(500), Reception(302), Reception(None, why="silent"))
        async with bench(webhooks=HOOKS, receiver=receiver) as service:
            await service.run(ROWS)
            assert len(receiver.posts) == 1
            await pass_time(service, 3600.0)
            assert len(receiver.posts) == 4
            assert len({post.body for post in receiver.posts}) == 1
            assert len({post.headers["webhook-id"] for post in receiver.posts}) == 1
            # Each is signed when it is sent, or receivers would take it for a replay.
            assert len({post.headers["webhook-timestamp"] for post in receiver.posts}) == 4
            assert waiting(service) == 0

    run(story)


def test_one_that_says_when_is_not_asked_before() -> None:
    async def story(_: Random) -> None:
        receiver = MemoryReceiver(Reception(503, retry_after=1800.0))
        async with bench(webhooks=HOOKS, receiver=receiver) as service:
            await service.run(ROWS)
            await pass_time(service, 1795.0)
            assert len(receiver.posts) == 1
            await pass_time(service, 10.0)
            assert len(receiver.posts) == 2

    run(story)


@pytest.mark.parametrize("answer", [410, 500])
def test_what_is_given_up_is_a_line_with_a_code_and_no_address(
    answer: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(_: Random) -> None:
        receiver = MemoryReceiver(*[Reception(answer)] * 100)
        async with bench(webhooks=HOOKS, receiver=receiver) as service:
            await service.run(ROWS)
            await pass_time(service, 2 * DAY_SECONDS)
            assert len(receiver.posts) == 1 if answer == 410 else 15 < len(receiver.posts) < 25
            assert waiting(service) == 0

    with caplog.at_level(logging.DEBUG):
        run(story)
    (line,) = [each for each in caplog.messages if each.startswith("[WEBHOOK_GIVEN_UP]")]
    assert str(answer) in line
    assert not [each for each in caplog.messages if "example" in each or "hook," in each]


class Hanging(MemoryReceiver):
    """One receiver never answers within its deadline, others at once."""

    def __init__(self) -> None:
        super().__init__()
        self.hanging = self.most = 0

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, rule: AddressRule
    ) -> Reception:
        if url == OTHER.url:
            self.hanging += 1
            self.most = max(self.most, self.hanging)
            await asyncio.sleep(10.0)
            self.hanging -= 1
            return Reception(None, why="it does not answer in time")
        return await super().post(url, headers, body, rule)


def test_a_receiver_that_hangs_holds_up_its_own_tenant_alone() -> None:
    async def story(_: Random) -> None:
        receiver, tenants = Hanging(), {"default": Tenant(), "blue": Tenant()}
        hooks = {"default": HOOK, "blue": OTHER}
        async with bench(webhooks=hooks, tenants=tenants, receiver=receiver) as service:
            await service.drop(ROWS, "a.jsonl", container="inputs")
            told = {"container": "inputs", "name": "a.jsonl"}
            await service.say({**told, "tenant": "blue"})
            await service.settle()
            (blue,) = [e["data"]["job"] for e in service.events if e["type"] == "job.completed"]
            message = Received(message_of(blue, service.clock(), "blue").body)
            began = asyncio.get_running_loop().time()
            # As many as a process handles at a time, all of the tenant whose receiver hangs.
            slow = [asyncio.create_task(service.inbox.webhooks.run(message)) for _ in range(32)]
            await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
            assert asyncio.get_running_loop().time() - began < 2.0
            await asyncio.sleep(0.01)
            assert sum(not task.done() for task in slow) == receiver.most == AT_ONCE
            await service.say({**told})
            await service.settle()
            assert [post.url for post in receiver.posts] == [HOOK.url]
            assert asyncio.get_running_loop().time() - began < 3.0
            await asyncio.gather(*slow)
            assert waiting(service) == 33  # none of them is lost

    run(story)


def test_what_killed_workers_comes_again_a_little_later() -> None:
    async def story(_: Random) -> None:
        async with bench(webhooks=HOOKS) as service:
            ended = await service.run(ROWS)
            service.receiver.posts.clear()
            job = ended.event["data"]["job"]
            body = message_of(job, service.clock()).body
            await service.inbox.webhooks.dead(Received(body))
            assert waiting(service) == 1
            await service.settle()
            assert service.receiver.posts == []
            await pass_time(service, 10.0)
            assert len(service.receiver.posts) == 1

    run(story)


@pytest.mark.parametrize(
    "body", [b"{", b"{}", b'{"type":"webhook","job":"../x","tenant":"a","since":0}']
)
def test_what_is_no_webhook_is_dropped_with_a_line(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(_: Random) -> None:
        async with bench(webhooks=HOOKS) as service:
            for handle in (service.inbox.webhooks.run, service.inbox.webhooks.dead):
                await handle(Received(body, message_id="m"))
            assert waiting(service) == 0
            assert service.receiver.posts == []

    run(story)
    assert [each.startswith("[WEBHOOK_UNREAD] message m") for each in caplog.messages] == [True] * 2


def test_a_job_that_was_deleted_meanwhile_is_told_to_nobody() -> None:
    async def story(_: Random) -> None:
        async with bench(webhooks=HOOKS) as service:
            job = (await service.run(ROWS)).event["data"]["job"]
            service.receiver.posts.clear()
            await service.blobs.delete(BlobRef("state", f"jobs/{job}/state.json"))
            body = message_of(job, service.clock()).body
            await service.inbox.webhooks.run(Received(body))
            assert service.receiver.posts == []
            assert waiting(service) == 0

    run(story)


async def ended_job(service: Bench) -> str:
    """A job of the tenant `default` whose webhook was taken."""
    job: str = (await service.run(ROWS)).event["data"]["job"]
    return job


class Silent(MemoryReceiver):
    """Takes the first, and then no receiver answers within its deadline."""

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, rule: AddressRule
    ) -> Reception:
        reception = await super().post(url, headers, body, rule)
        if len(self.posts) == 1:
            return reception
        await asyncio.sleep(10.0)
        return Reception(None, why="it does not answer in time")


async def handled(service: Bench, messages: list[Received]) -> list["asyncio.Task[None]"]:
    """The handlers of messages, a moment after they began."""
    tasks = [asyncio.create_task(service.inbox.webhooks.run(each)) for each in messages]
    await asyncio.sleep(0.01)
    return tasks


def test_one_without_a_turn_reads_nothing_and_is_given_up_after_a_day(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(_: Random) -> None:
        async with bench(webhooks=HOOKS, receiver=Silent()) as service:
            job = await ended_job(service)
            now = service.clock()
            busy = await handled(service, [message_of(job, now)] * AT_ONCE)
            asked: list[str] = []
            monkeypatch.setattr(service.store, "job", asked.append)
            late = [message_of(job, now - age) for age in (DAY_SECONDS + 1.0, 3600.0)]
            await asyncio.gather(*await handled(service, late))
            assert asked == []
            assert waiting(service) == 1
            monkeypatch.undo()
            await asyncio.gather(*busy)

    run(story)
    (line,) = [each for each in caplog.messages if each.startswith("[WEBHOOK_GIVEN_UP]")]
    assert "for a day" in line


def test_while_a_receiver_is_silent_one_asks_whether_it_is_back_and_none_waits() -> None:
    async def story(_: Random) -> None:
        receiver = Silent()
        async with bench(webhooks=HOOKS, receiver=receiver) as service:
            job = await ended_job(service)
            messages = [message_of(job, service.clock())] * AT_ONCE
            await asyncio.gather(*await handled(service, messages))
            assert isinstance(service.bus, MemoryBus)
            told = {each.message_id for each in service.bus.waiting(WEBHOOKS)}
            began, posts = service.clock(), len(receiver.posts)
            tasks = await handled(service, messages * 8)
            assert sum(not task.done() for task in tasks) == 1
            assert len(receiver.posts) == posts + 1
            away = [e for e in service.bus.waiting(WEBHOOKS) if e.message_id not in told]
            assert len(away) == len(tasks) - 1
            for each in away:
                assert each.at is not None
                assert began + SILENT_AWAY_SECONDS[0] <= each.at
            await asyncio.gather(*tasks)

    run(story)


def test_one_whose_receiver_this_worker_does_not_know_is_left_to_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A worker with the old `WEBHOOKS` takes no webhook away from those with the new one."""

    async def story(_: Random) -> None:
        async with bench(webhooks={"blue": OTHER}, tenants={"default": Tenant()}) as service:
            job = await ended_job(service)
            await service.inbox.webhooks.run(message_of(job, service.clock()))
            assert waiting(service) == 1
            await pass_time(service, DAY_SECONDS + 60.0)
            assert waiting(service) == 0

    run(story)
    (line,) = [each for each in caplog.messages if each.startswith("[WEBHOOK_GIVEN_UP]")]
    assert "WEBHOOKS" in line


def test_what_a_newer_version_says_is_left_to_its_workers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = b'{"schema_version":99,"type":"webhook","whose":"unknown"}'

    async def story(_: Random) -> None:
        async with bench(webhooks=HOOKS) as service:
            assert isinstance(service.bus, MemoryBus)
            sent = {"x": "y", "DeadLetterReason": "MaxDeliveryCountExceeded"}
            for handle in (service.inbox.webhooks.run, service.inbox.webhooks.dead):
                await handle(Received(body, message_id="m", properties=sent))
            for message in service.bus.waiting(WEBHOOKS):
                assert message.body == body
                assert message.properties == {"x": "y", "since": str(service.clock())}
            assert waiting(service) == 2
            await pass_time(service, DAY_SECONDS - 60.0)
            assert waiting(service) == 2
            await pass_time(service, 120.0)
            assert waiting(service) == 0

    run(story)
    given_up = [each for each in caplog.messages if each.startswith("[WEBHOOK_GIVEN_UP]")]
    assert len(given_up) == 2
    assert "99" in given_up[0]


def test_where_the_bus_takes_nothing_a_receiver_is_not_told_in_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refused(*_: object) -> None:
        raise Unavailable("no queue")

    async def story(_: Random) -> None:
        async with bench(webhooks=HOOKS) as service:
            job = await ended_job(service)
            service.receiver.answers = [Reception(500)]
            monkeypatch.setattr(service.bus, "send", refused)
            newer = Received(b'{"schema_version":99}')
            message = message_of(job, service.clock())
            for handle, given in (
                (service.inbox.webhooks.run, message),
                (service.inbox.webhooks.dead, message),
                (service.inbox.webhooks.dead, newer),
            ):
                began = asyncio.get_running_loop().time()
                with pytest.raises(Unavailable):
                    await handle(given)
                assert asyncio.get_running_loop().time() - began >= UNSENT_SECONDS

    run(story)


def test_tries_are_seen_in_the_trace_of_their_job_and_counted_as_those_of_other_queues() -> None:
    watching = Watching()

    async def story(_: Random) -> None:
        receiver = MemoryReceiver(Reception(500))
        async with bench(
            webhooks=HOOKS, receiver=receiver, telemetry=watching.telemetry
        ) as service:
            job = await ended_job(service)
            await pass_time(service, 60.0)
            assert len(receiver.posts) == 2
            await service.inbox.webhooks.dead(message_of(job, service.clock() - 2 * DAY_SECONDS))

    run(story)
    first, second = watching.spans("process webhooks")
    (whole,) = watching.spans("job")
    assert first.context is not None
    assert second.context is not None
    assert whole.context is not None
    assert {first.context.trace_id, second.context.trace_id} == {whole.context.trace_id}
    assert first.parent is not None
    assert first.parent.span_id == whole.context.span_id
    assert watching.sums(names.PROCESS_DURATION)["webhooks"] == 2
    assert watching.sums(names.DEAD_LETTERS) == {"webhooks": 1}
