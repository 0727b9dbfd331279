"""Drop, queue, nightly: every door ends in results and events. And the doors over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.stage import (
    CHAT_MODEL,
    CONFIG,
    Stage,
    Told,
    chats,
    in_one_task,
    jsonl,
    stage,
    told_by,
    usual_deployments,
)

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
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    context = stage(
        tmp_path_factory.mktemp("stage"),
        deployments=deployments,
        settings={"LOCAL_FUNCTION_KEY": FUNCTION_KEY, "JOURNAL_SECONDS": "0.5"},
        config=config(),
    )
    async with in_one_task(context) as made:
        yield made


async def subscribed(running: Stage, name: str, count: int) -> list[Told]:
    """The first events of a subscription."""
    found: list[Told] = []
    async with (
        asyncio.timeout(30),
        running.bus.get_subscription_receiver("job-status", name) as receiver,
    ):
        while len(found) < count:
            for message in await receiver.receive_messages(50, max_wait_time=1):
                found.append(told_by(message))
                await receiver.complete_message(message)
    return found


def about(running: Stage, source: str) -> list[Told]:
    return [told for told in running.told if told.status.input == source]


async def jobs_of(running: Stage, source: str) -> list[dict[str, Any]]:
    code, listed = await running.ask("GET", "/api/jobs?limit=100", headers=KEYED)
    assert code == 200
    return [job for job in listed["data"] if job["input"] == source]


async def test_a_dropped_file_ends_in_results_and_events(running: Stage) -> None:
    status, results = await running.run("folder/a dröp.jsonl", jsonl(chats(60, "drop")), OPTIONS)
    assert (status.state, status.door) == ("completed", "drop")
    results.check(60)

    told = about(running, "prompts/folder/a dröp.jsonl")
    types = [each.event.type for each in told]
    assert types[:2] == ["job.validating", "job.in_progress"]
    assert types[-2:] == ["job.finalizing", "job.completed"]
    assert [each.event.sequence for each in told] == sorted({each.event.sequence for each in told})
    assert {each.status.job for each in told} == {status.job}
    assert {each.message_id for each in told} == {each.event.id for each in told}


async def test_a_request_on_the_queue_is_told_of_by_its_own_ids(running: Stage) -> None:
    await running.drop("asked.jsonl", jsonl(chats(60, "queue")), container="inputs")
    await running.send(
        {
            "container": "inputs",
            "name": "asked.jsonl",
            "options": OPTIONS | {"metadata": {"a": "b"}},
        },
        message_id="request-17",
        correlation_id="order-4711",
        application_properties={"team": "reports", "run": "7"},
    )
    ended = await running.job("inputs/asked.jsonl")
    status = ended.status
    assert (status.state, status.door) == ("completed", "queue")
    (await running.results(status)).check(60)
    for told in about(running, "inputs/asked.jsonl"):
        assert told.status.message_id == "request-17"
        assert told.status.correlation_id == told.correlation_id == "order-4711"
        assert told.status.metadata == {"team": "reports", "run": "7", "a": "b"}

    [mine] = await subscribed(running, "mine", 1)
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


async def test_several_events_for_one_write_make_one_job(running: Stage) -> None:
    etag = await running.drop("announced.jsonl", jsonl(chats(60, "event")), container="inputs")
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
        await running.send(event)
    # What comes behind them on the queue is done after them.
    await running.send({"container": "inputs", "name": "no such file.jsonl"}, message_id="last")
    await running.until(
        lambda: any(told.status.message_id == "last" for told in running.told), "the last message"
    )
    ended = await running.job("inputs/announced.jsonl")
    (await running.results(ended.status)).check(60)
    assert len(await jobs_of(running, "inputs/announced.jsonl")) == 1
    assert len([told for told in about(running, "inputs/announced.jsonl") if told.last]) == 1


async def test_the_nightly_sweep_runs_each_unchanged_file_once(running: Stage) -> None:
    rows = {name: chats(30, name) for name in ("monday.jsonl", "tuesday.jsonl")}
    for name, asked in rows.items():
        await running.drop(name, jsonl(asked), OPTIONS, container="nightly")
    await sweep(running)
    for name in rows:
        ended = await running.job(f"nightly/{name}")
        assert (ended.status.door, ended.status.priority) == ("nightly", "low")
        (await running.results(ended.status)).check(30)

    etag = await running.drop("monday.jsonl", jsonl(chats(20, "new")), OPTIONS, container="nightly")
    assert etag
    running.told.clear()
    await sweep(running)
    ended = await running.job("nightly/monday.jsonl")
    (await running.results(ended.status)).check(20)
    assert len(await jobs_of(running, "nightly/monday.jsonl")) == 2
    assert len(await jobs_of(running, "nightly/tuesday.jsonl")) == 1
    assert about(running, "nightly/tuesday.jsonl") == []


async def sweep(running: Stage) -> None:
    """Run the nightly timer now; it has run when this returns."""
    code, _ = await running.ask("POST", "/admin/functions/nightly")
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
    running: Stage, method: str, path: str
) -> None:
    assert await running.ask(method, path) == (401, None)
    assert await running.ask(method, path, headers={"x-functions-key": "another"}) == (401, None)
    for keyed in ({"headers": KEYED}, {"params": {"code": FUNCTION_KEY}}):
        code, body = await running.ask(method, path, **keyed)
        assert code == (200 if path == "/api/jobs" else 404)
        assert body["error"]["code"] == "unknown_job" if code == 404 else body["object"] == "list"


async def started(running: Stage, name: str, rows: int) -> str:
    """Drop a slow file; gives its job once some of its rows are done."""
    await running.drop(name, jsonl(chats(rows, name, **SLOW)))
    source = f"prompts/{name}"
    job = (await running.job(source, "job.in_progress")).status.job
    assert job is not None
    before = running.endpoint.stats()["answered"]
    await running.until(
        lambda: running.endpoint.stats()["answered"] > before + 30, f"first rows of {name}"
    )
    return job


async def act(running: Stage, job: str, action: str) -> tuple[int, Any]:
    return await running.ask("POST", f"/api/jobs/{job}/{action}", headers=KEYED)


async def test_a_job_is_paused_and_resumed_over_http(running: Stage) -> None:
    rows = 200
    job = await started(running, "paused.jsonl", rows)
    code, told = await act(running, job, "pause")
    assert (code, told["state"]) == (202, "paused")
    assert (await act(running, job, "pause"))[0] == 202
    await running.job("prompts/paused.jsonl", "job.paused")

    await running.quiet()
    code, told = await running.ask("GET", f"/api/jobs/{job}", headers=KEYED)
    assert (code, told["state"], told["counts"]["total"]) == (200, "paused", rows)
    assert told["counts"]["succeeded"] < rows

    code, told = await act(running, job, "resume")
    assert (code, told["state"]) == (202, "in_progress")
    ended = await running.job("prompts/paused.jsonl")
    results = await running.results(ended.status)
    results.check(rows)
    assert results.errors == []
    assert running.endpoint.stats()["rows"]["billed_more_than_once"] == 0
    for action in ("pause", "resume", "cancel"):
        code, told = await act(running, job, action)
        assert (code, told["error"]["code"]) == (409, "not_possible")


async def test_a_cancelled_job_keeps_what_is_done(running: Stage) -> None:
    rows = 400
    job = await started(running, "cancelled.jsonl", rows)
    code, told = await act(running, job, "cancel")
    assert (code, told["state"]) == (202, "cancelling")
    ended = await running.job("prompts/cancelled.jsonl")
    assert (ended.event.type, ended.status.state) == ("job.cancelled", "cancelled")
    await running.job("prompts/cancelled.jsonl", "job.cancelling")

    results = await running.results(ended.status)
    results.check(rows)
    counts = results.manifest.counts
    assert counts.succeeded >= 30
    assert counts.cancelled == rows - counts.succeeded > 0
    assert set(results.codes().values()) == {"job_cancelled"}
    assert (await act(running, job, "destroy"))[0] == 404
    assert (await running.ask("GET", f"/api/jobs/{job}", headers=KEYED))[1]["state"] == "cancelled"
