"""Drop, queue, nightly: every door ends in results and events. And the doors over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.processes import (
    CHAT_MODEL,
    CONFIG,
    in_one_task,
    processes,
    usual_deployments,
)
from tests.integration.user import Told, User, chats, jsonl, told_by, user_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

FUNCTION_KEY = "the-function-key-of-the-tests"
KEYED = {"x-functions-key": FUNCTION_KEY}
OPTIONS = {"model": CHAT_MODEL, "max_tokens": 8}
SLOW_MODEL = "Phi-3-small-8k-instruct"
SLOW = {"model": SLOW_MODEL, "max_tokens": 8}
MINE = "metadata_team = 'reports' AND type = 'job.completed'"
HOW = "This function was programmatically called via the host APIs."


def config() -> dict[str, Any]:
    """Config.json with a subscription of one's own, that takes only what it is interested in."""
    given: dict[str, Any] = json.loads(CONFIG.read_text())
    subscriptions = given["UserConfig"]["Namespaces"][0]["Topics"][0]["Subscriptions"]
    sql = {"FilterType": "Sql", "SqlFilter": {"SqlExpression": MINE}}
    rules = [{"Name": "mine", "Properties": sql}]
    subscriptions.append({**subscriptions[0], "Name": "mine", "Rules": rules})
    return given


def deployments(url: str) -> list[dict[str, Any]]:
    """One of them at 40 rows a second, so that a job can be met while it runs."""
    slow = {"name": "slow", "kind": "openai", "model": SLOW_MODEL, "url": f"{url}/v1"}
    return [*usual_deployments(url), slow | {"requests_per_minute": 2_400}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def user(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[User]:
    context = processes(
        tmp_path_factory.mktemp("processes"),
        deployments=deployments,
        settings={"LOCAL_FUNCTION_KEY": FUNCTION_KEY, "JOURNAL_SECONDS": "0.5"},
        config=config(),
    )
    async with in_one_task(user_of(context)) as made:
        yield made


async def subscribed(user: User, name: str, count: int) -> list[Told]:
    """The first events of a subscription."""
    found: list[Told] = []
    async with (
        asyncio.timeout(30),
        user.bus.get_subscription_receiver("job-status", name) as receiver,
    ):
        while len(found) < count:
            for message in await receiver.receive_messages(50, max_wait_time=1):
                found.append(told_by(message))
                await receiver.complete_message(message)
    return found


def about(user: User, source: str) -> list[Told]:
    return [told for told in user.told if told.status.input == source]


async def jobs_of(user: User, source: str) -> list[dict[str, Any]]:
    code, listed = await user.ask("GET", "/api/jobs?limit=100", headers=KEYED)
    assert code == 200
    return [job for job in listed["data"] if job["input"] == source]


async def test_a_dropped_file_ends_in_results_and_events(user: User) -> None:
    status, results = await user.run("folder/a dröp.jsonl", jsonl(chats(60, "drop")), OPTIONS)
    assert (status.state, status.door) == ("completed", "drop")
    results.check(60)

    told = about(user, "prompts/folder/a dröp.jsonl")
    types = [each.event.type for each in told]
    assert types[:2] == ["job.validating", "job.in_progress"]
    assert types[-2:] == ["job.finalizing", "job.completed"]
    assert [each.event.sequence for each in told] == sorted({each.event.sequence for each in told})
    assert {each.status.job for each in told} == {status.job}
    assert {each.message_id for each in told} == {each.event.id for each in told}


async def test_a_request_on_the_queue_is_told_of_by_its_own_ids(user: User) -> None:
    await user.drop("asked.jsonl", jsonl(chats(60, "queue")), container="inputs")
    await user.send(
        {
            "container": "inputs",
            "name": "asked.jsonl",
            "options": OPTIONS | {"metadata": {"a": "b"}},
        },
        message_id="request-17",
        correlation_id="order-4711",
        application_properties={"team": "reports", "run": "7"},
    )
    ended = await user.job("inputs/asked.jsonl")
    status = ended.status
    assert (status.state, status.door) == ("completed", "queue")
    (await user.results(status)).check(60)
    for told in about(user, "inputs/asked.jsonl"):
        assert told.status.message_id == "request-17"
        assert told.status.correlation_id == told.correlation_id == "order-4711"
        assert told.status.metadata == {"team": "reports", "run": "7", "a": "b"}

    [mine] = await subscribed(user, "mine", 1)
    assert mine.event == ended.event
    assert mine.properties | {"job": "any"} == {
        "job": "any",
        "type": "job.completed",
        "state": "completed",
        "input": "inputs/asked.jsonl",
        "metadata_team": "reports",
        "metadata_run": "7",
        "metadata_a": "b",
    }


async def test_several_events_for_one_write_make_one_job(user: User) -> None:
    etag = await user.drop("announced.jsonl", jsonl(chats(60, "event")), container="inputs")
    where = {
        "subject": "/blobServices/default/containers/inputs/blobs/announced.jsonl",
        "id": "831e1650-001e-001b-66ab-eeb76e069631",
    }
    data = {
        "api": "PutBlob",
        "eTag": etag,
        "blobType": "BlockBlob",
        "url": "https://account.blob.core.windows.net/inputs/announced.jsonl",
    }
    event_grid = where | {
        "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/a",
        "eventType": "Microsoft.Storage.BlobCreated",
        "eventTime": "2026-01-01T00:00:00Z",
        "dataVersion": "",
        "metadataVersion": "1",
        "data": data,
    }
    cloud_event = where | {
        "specversion": "1.0",
        "type": "Microsoft.Storage.BlobCreated",
        "source": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage",
        "time": "2026-01-01T00:00:00Z",
        "data": data,
    }
    stale = event_grid | {"data": data | {"eTag": "0x8DEADBEEF0000"}}
    for event in (event_grid, cloud_event, stale, [event_grid], cloud_event):
        await user.send(event)
    # What comes behind them on the queue is done after them.
    await user.send({"container": "inputs", "name": "no such file.jsonl"}, message_id="last")
    await user.until(
        lambda: any(told.status.message_id == "last" for told in user.told), "the last message"
    )
    ended = await user.job("inputs/announced.jsonl")
    (await user.results(ended.status)).check(60)
    assert len(await jobs_of(user, "inputs/announced.jsonl")) == 1
    assert len([told for told in about(user, "inputs/announced.jsonl") if told.last]) == 1


async def test_the_nightly_sweep_runs_each_unchanged_file_once(user: User) -> None:
    rows = {name: chats(30, name) for name in ("monday.jsonl", "tuesday.jsonl")}
    for name, asked in rows.items():
        await user.drop(name, jsonl(asked), OPTIONS, container="nightly")
    await sweep(user)
    for name in rows:
        ended = await user.job(f"nightly/{name}")
        assert (ended.status.door, ended.status.priority) == ("nightly", "low")
        (await user.results(ended.status)).check(30)

    etag = await user.drop("monday.jsonl", jsonl(chats(20, "new")), OPTIONS, container="nightly")
    assert etag
    user.told.clear()
    await sweep(user)
    ended = await user.job("nightly/monday.jsonl")
    (await user.results(ended.status)).check(20)
    assert len(await jobs_of(user, "nightly/monday.jsonl")) == 2
    assert len(await jobs_of(user, "nightly/tuesday.jsonl")) == 1
    assert about(user, "nightly/tuesday.jsonl") == []


async def sweep(user: User) -> None:
    """Run the nightly timer now; it has run when this returns."""
    code, _ = await user.ask("POST", "/admin/functions/nightly", headers=KEYED)
    assert code == 202


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/jobs"),
        ("GET", "/api/jobs/any"),
        ("POST", "/api/jobs/any/cancel"),
        ("POST", "/api/jobs/any/pause"),
        ("POST", "/api/jobs/any/resume"),
    ],
)
async def test_without_the_function_key_nothing_is_told_over_http(
    user: User, method: str, path: str
) -> None:
    assert await user.ask(method, path) == (401, None)
    assert await user.ask(method, path, headers={"x-functions-key": "another"}) == (401, None)
    for keyed in ({"headers": KEYED}, {"params": {"code": FUNCTION_KEY}}):
        code, body = await user.ask(method, path, **keyed)
        assert code == (200 if path == "/api/jobs" else 404)
        assert body["error"]["code"] == "unknown_job" if code == 404 else body["object"] == "list"


@pytest.mark.parametrize("path", ["/", "/api", "/nope", "/api/nope/"])
async def test_a_path_that_is_none_is_answered_in_the_form_of_all_errors(
    user: User, path: str
) -> None:
    code, body = await user.ask("GET", path, headers=KEYED)
    assert (code, body["error"]["code"]) == (404, "unknown_url")


async def started(user: User, name: str, rows: int) -> str:
    """Drop a slow file; gives its job once some of its rows are done."""
    await user.drop(name, jsonl(chats(rows, name, **SLOW)))
    source = f"prompts/{name}"
    job = (await user.job(source, "job.in_progress")).status.job
    assert job is not None
    before = user.processes.endpoint.stats()["answered"]
    await user.until(
        lambda: user.processes.endpoint.stats()["answered"] > before + 30, f"first rows of {name}"
    )
    return job


async def act(user: User, job: str, action: str) -> tuple[int, Any]:
    return await user.ask("POST", f"/api/jobs/{job}/{action}", headers=KEYED)


async def test_a_job_is_paused_and_resumed_over_http(user: User) -> None:
    rows = 200
    job = await started(user, "paused.jsonl", rows)
    code, told = await act(user, job, "pause")
    assert (code, told["state"]) == (202, "paused")
    assert (await act(user, job, "pause"))[0] == 202
    await user.job("prompts/paused.jsonl", "job.paused")

    await user.quiet()
    code, told = await user.ask("GET", f"/api/jobs/{job}", headers=KEYED)
    assert (code, told["state"], told["counts"]["total"]) == (200, "paused", rows)
    assert told["counts"]["succeeded"] < rows

    code, told = await act(user, job, "resume")
    assert (code, told["state"]) == (202, "in_progress")
    ended = await user.job("prompts/paused.jsonl")
    results = await user.results(ended.status)
    results.check(rows)
    assert results.errors == []
    assert user.processes.endpoint.stats()["rows"]["billed_more_than_once"] == 0
    for action in ("pause", "resume", "cancel"):
        code, told = await act(user, job, action)
        assert (code, told["error"]["code"]) == (409, "not_possible")


async def test_a_cancelled_job_keeps_what_is_done(user: User) -> None:
    rows = 400
    job = await started(user, "cancelled.jsonl", rows)
    code, told = await act(user, job, "cancel")
    assert (code, told["state"]) == (202, "cancelling")
    ended = await user.job("prompts/cancelled.jsonl")
    assert (ended.event.type, ended.status.state) == ("job.cancelled", "cancelled")
    await user.job("prompts/cancelled.jsonl", "job.cancelling")

    results = await user.results(ended.status)
    results.check(rows)
    counts = results.manifest.counts
    assert counts.succeeded >= 30
    assert counts.cancelled == rows - counts.succeeded > 0
    assert set(results.codes().values()) == {"job_cancelled"}
    # Some of them were asked, and their calls called off.
    assert all(
        "no answer: the job was cancelled" in row["error"]["message"] for row in results.errors
    )
    assert (await act(user, job, "destroy"))[0] == 404
    assert (await user.ask("GET", f"/api/jobs/{job}", headers=KEYED))[1]["state"] == "cancelled"
