"""Webhooks from the end of a job to a receiver that verifies them with the `openai` package."""

import json
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio
from aiohttp import web

from local import keys
from schemas.webhooks import secret_of
from tests.integration import ordeal
from tests.integration.processes import in_one_task, processes
from tests.integration.receiving import Receiver, receiver, silence, taken
from tests.integration.user import User, chats, jsonl, user_of

SECRET, OLD = secret_of(b"k" * 32), secret_of(b"o" * 32)
KEY = "a-key-of-the-tenant"

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


def settings(url: str) -> dict[str, str]:
    """One webhook, of the tenant `default`, on this machine; its secret is being changed."""
    hook = {"url": url, "secret_settings": ["WEBHOOK_SECRET", "WEBHOOK_OLD"], "private": True}
    return {
        "WEBHOOKS": json.dumps({"default": hook}),
        "WEBHOOK_SECRET": SECRET,
        "WEBHOOK_OLD": OLD,
        keys.API_KEYS: keys.api_keys(KEY),
    }


@dataclass
class Told:
    """A user, and the receiver that is told of his jobs."""

    user: User
    hook: Receiver


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Told]:
    async with receiver(SECRET) as hook:
        folder = tmp_path_factory.mktemp("processes")
        context = processes(folder, settings=settings(hook.url), config=ordeal.config())
        async with in_one_task(user_of(context)) as user:
            yield Told(user, hook)


@pytest.fixture
def told(running: Told) -> Told:
    """With a receiver to which nothing has come, and that takes what comes."""
    running.hook.events.clear()
    running.hook.headers.clear()
    running.hook.secret, running.hook.answering = SECRET, taken
    return running


async def test_an_end_reaches_its_receiver_signed_and_again_on_request(told: Told) -> None:
    user, hook = told.user, told.hook
    hook.secret = OLD
    await user.drop("a.jsonl", jsonl(chats(3, "a")))
    (event,) = await user.until(lambda: hook.events, "the webhook comes")
    job = event.data.id.removeprefix("batch_")
    assert event.type == "batch.completed"
    assert hook.headers[0]["webhook-id"] == event.id == f"evt_{job}"
    code, status = await user.ask("GET", f"/api/jobs/{job}")
    assert (code, status["state"]) == (200, "completed")
    hook.secret = SECRET
    code, _ = await user.ask(
        "POST", f"/v1/batches/{event.data.id}/webhooks", headers={"api-key": KEY}
    )
    assert code == 200
    await user.until(lambda: len(hook.events) == 2, "the webhook comes again")
    assert hook.events[1] == event
    for secret in (SECRET, OLD, hook.url, KEY):
        assert not [line for line in user.processes.log if secret in line]


async def test_one_that_misbehaves_holds_up_no_job_and_is_told_in_the_end(told: Told) -> None:
    async def badly(nth: int) -> web.StreamResponse:
        if nth == 1:
            return web.Response(status=500, headers={"Retry-After": "1"})
        if nth == 2:
            raise web.HTTPFound("/elsewhere")
        return web.Response(status=200)

    user, hook = told.user, told.hook
    hook.answering = badly
    await user.drop("b.jsonl", jsonl(chats(3, "b")))
    ended = await user.job("prompts/b.jsonl")
    assert ended.event.type == "job.completed"
    await user.until(lambda: len(hook.events) == 3, "the webhook is taken")
    first, *others = hook.events
    assert all(other == first for other in others)
    assert first.data.id == f"batch_{ended.status.job}"
    stamps = [int(each["webhook-timestamp"]) for each in hook.headers]
    assert stamps[1] - stamps[0] >= 4
    assert stamps[2] - stamps[1] >= 15


async def test_a_worker_that_is_killed_over_a_webhook_is_followed_by_another(told: Told) -> None:
    async def kill(nth: int) -> web.StreamResponse:
        if nth > 1:
            return web.Response(status=200)
        worker.kill()
        return await silence(nth)

    user, hook = told.user, told.hook
    worker = user.processes.hosts.processes[1]
    hook.answering = kill
    await user.drop("c.jsonl", jsonl(chats(3, "c")))
    await user.until(lambda: len(hook.events) == 2, "the webhook comes to another", 120)
    assert worker.returncode == -signal.SIGKILL
    assert hook.events[0] == hook.events[1]
    assert hook.headers[0]["webhook-id"] == hook.headers[1]["webhook-id"]
    ended = await user.job("prompts/c.jsonl")
    assert ended.event.type == "job.completed"
