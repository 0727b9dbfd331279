"""A host runs an app as Azure would: what comes in, what happens to messages, how it ends."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from azure.storage.blob.aio import ContainerClient

from local.host.http_triggers import _own_origin
from local.host.invoking import EXIT_TIMED_OUT
from local.servicebus import Server, serve

from .conftest import (
    APP,
    DEADLINE,
    KEY,
    Recorder,
    Standing,
    StartHost,
    config,
    host_process,
    send,
)

KEYED = {"x-functions-key": KEY}
# What asks nothing of a host's start or end shares one.
on_the_standing_host = pytest.mark.asyncio(loop_scope="module")


@on_the_standing_host
async def test_message_arrives_as_azure_hands_it_over(host: Standing) -> None:
    await send(
        host.bus,
        "hello",
        message_id="m1",
        correlation_id="c1",
        application_properties={"team": "search", "Diagnostic-Id": "00-trace-span-01"},
    )
    (fact,) = await host.recorder.wait("queued")
    assert fact["body"] == "hello"
    assert (fact["message_id"], fact["correlation_id"], fact["delivery"]) == ("m1", "c1", 1)
    assert fact["properties"]["team"] == "search"
    assert fact["function"] == "queued"
    assert fact["trace"] == "00-trace-span-01"
    assert fact["enqueued"].endswith("+00:00")


@on_the_standing_host
async def test_failed_message_comes_again_and_then_to_the_dead_letter_function(
    host: Standing,
) -> None:
    async def fail(_: object) -> str:
        return "raise"

    host.recorder.answer = fail
    await send(host.bus, "bad")
    (fact,) = await host.recorder.wait("dead")
    assert bytes.fromhex(fact["body"]) == b"bad"
    assert fact["reason"] == "MaxDeliveryCountExceeded"
    assert [each["delivery"] for each in host.recorder.of("queued")] == [1, 2, 3]


@on_the_standing_host
async def test_text_binding_abandons_what_is_not_utf8_as_azure_does(host: Standing) -> None:
    await send(host.bus, b"\xff\xfe")
    (fact,) = await host.recorder.wait("dead")
    assert bytes.fromhex(fact["body"]) == b"\xff\xfe"
    assert host.recorder.of("queued") == []


async def test_at_most_max_concurrent_calls_run_on_each_host(
    start: StartHost, bus: Server, recorder: Recorder
) -> None:
    gate = asyncio.Event()

    async def hold(fact: dict[str, str]) -> str:
        if fact["what"] == "queued":
            await gate.wait()
        return ""

    recorder.answer = hold
    first, second = await asyncio.gather(start(), start())
    await send(bus, *map(str, range(10)))
    held = await recorder.wait("queued", 6)
    processes = [fact["process"] for fact in held]
    assert sorted(map(processes.count, (first.process.pid, second.process.pid))) == [3, 3]
    gate.set()
    await recorder.wait("queued end", 10)
    assert len(recorder.of("queued")) == 10


async def test_lock_is_renewed_while_a_call_runs(start: StartHost, recorder: Recorder) -> None:
    async def slow(fact: dict[str, str]) -> str:
        return "sleep 6.5"

    recorder.answer = slow
    async with serve(config(lock="PT5S")) as quick:
        await start(wanted_bus=quick.connection_string)
        await send(quick, "long")
        await recorder.wait("queued end")
        assert len(recorder.of("queued")) == 1


async def test_sigterm_drains_and_gives_unfinished_work_back_at_once(
    start: StartHost, bus: Server, recorder: Recorder
) -> None:
    async def first_waits(fact: dict[str, str]) -> str:
        return "wait" if fact["what"] == "queued" and len(recorder.of("queued")) == 1 else ""

    recorder.answer = first_waits
    host = await start()
    await send(bus, "work")
    await recorder.wait("queued")
    assert await host.end() == 0
    assert len(recorder.of("drain")) == 1
    await start()
    again = (await recorder.wait("queued", 2))[1]
    assert again["delivery"] == 2
    await recorder.wait("queued end")


async def test_host_goes_on_when_service_bus_was_away(start: StartHost, recorder: Recorder) -> None:
    async with serve(config()) as first:
        port = first.port
        await start(wanted_bus=first.connection_string)
        await send(first, "before")
        await recorder.wait("queued end")
    async with serve(config(), port=port) as second:
        await send(second, "after")
        facts = await recorder.wait("queued", 2)
        assert facts[1]["body"] == "after"


async def test_blobs_are_announced_once_an_etag_by_one_host(
    start: StartHost, recorder: Recorder, prompts: ContainerClient
) -> None:
    first = await start()
    await recorder_sees(prompts, recorder, "early.jsonl", 1)
    await start()
    await recorder_sees(prompts, recorder, "2026/über späth.jsonl", 2)
    await recorder_sees(prompts, recorder, "early.jsonl", 3)
    assert [fact["name"] for fact in recorder.of("dropped")] == [
        "early.jsonl",
        "2026/über späth.jsonl",
        "early.jsonl",
    ]
    await first.end()
    await recorder_sees(prompts, recorder, "handed over.jsonl", 6)
    names = [fact["name"] for fact in recorder.of("dropped")[3:]]
    assert sorted(names) == ["2026/über späth.jsonl", "early.jsonl", "handed over.jsonl"]


async def recorder_sees(
    prompts: ContainerClient, recorder: Recorder, name: str, count: int
) -> None:
    await upload(prompts, name)
    await recorder.wait("dropped", count)


async def upload(prompts: ContainerClient, name: str) -> None:
    if not await prompts.exists():
        await prompts.create_container()
    await prompts.upload_blob(name, b"{}\n", overwrite=True)


async def test_timer_ticks_by_its_schedule(start: StartHost, recorder: Recorder) -> None:
    await start(TIMER_SCHEDULE="* * * * * *")
    facts = await recorder.wait("ticked", 2)
    assert facts[0]["past_due"] is False


@on_the_standing_host
async def test_timer_runs_at_once_when_asked(host: Standing) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{host.url}/admin/functions/ticked", headers=KEYED) as response:
            assert response.status == 202
        async with session.post(f"{host.url}/admin/functions/no_such", headers=KEYED) as response:
            assert response.status == 404
        async with session.post(f"{host.url}/admin/functions/ticked") as response:
            assert response.status == 401
    assert len(host.recorder.of("ticked")) == 1


@on_the_standing_host
async def test_http_asks_for_the_key_and_answers_as_the_function_says(host: Standing) -> None:
    async with aiohttp.ClientSession(host.url) as session:
        async with session.get("/api/jobs/7") as response:
            assert response.status == 401
        async with session.get("/api/jobs/7?code=wrong") as response:
            assert response.status == 401
        async with session.post(f"/api/jobs/7?verbose=1&code={KEY}", data="text") as response:
            assert response.status == 202
            assert response.content_type == "application/json"
            assert await response.json() == {"id": "7", "verbose": "1", "body": "text"}
        async with session.get("/api/jobs/fail", headers=KEYED) as response:
            assert (response.status, await response.text()) == (500, "")
        async with session.delete("/api/jobs/7", headers=KEYED) as response:
            assert response.status == 405
        async with session.get("/api/health") as response:
            assert (response.status, await response.text()) == (200, "well")


@on_the_standing_host
async def test_bodies_and_headers_are_taken_as_azures_host_takes_them(host: Standing) -> None:
    job = "/api/jobs/7"

    async def chunks() -> AsyncIterator[bytes]:
        yield b"lost"

    async with aiohttp.ClientSession(host.url, headers=KEYED) as session:
        async with session.post(job, data=b"x" * 1000) as response:
            assert len((await response.json())["body"]) == 1000
        async with session.post(job, data=b"x" * 1001) as response:
            assert (response.status, await response.read()) == (500, b"")
        async with session.post(job, data=chunks()) as response:
            assert (await response.json())["body"] == ""
        async with session.get(f"{job}?verbose={'x' * 8192}") as response:
            assert response.status == 414
        async with session.get(job, headers={"x-long": "x" * 32_768}) as response:
            assert response.status == 431
        async with session.get(job, headers={f"x-{n}": "" for n in range(100)}) as response:
            assert response.status == 431
        async with session.get(job, headers={"x-long": "x" * 20_000}) as response:
            assert response.status == 202


@on_the_standing_host
async def test_a_route_for_all_that_follows_matches_nothing_too(host: Standing) -> None:
    async with aiohttp.ClientSession(host.url, headers=KEYED) as session:
        for place, told in (("files/a/b", "a/b"), ("files/", ""), ("files", "None")):
            async with session.get(f"/api/{place}") as response:
                assert (response.status, await response.text()) == (200, f"path {told}")


async def test_host_ends_with_the_process_that_started_it(start: StartHost) -> None:
    host = await start()
    assert host.process.stdin is not None
    host.process.stdin.close()
    assert await asyncio.wait_for(host.process.wait(), DEADLINE) == 0


async def test_call_over_the_function_timeout_ends_the_process(
    start: StartHost, bus: Server, recorder: Recorder, tmp_path: Path
) -> None:
    async def wait(_: object) -> str:
        return "wait"

    recorder.answer = wait
    app = copy_app(tmp_path, functionTimeout="00:00:01")
    host = await start(app=app)
    await send(bus, "endless")
    assert await asyncio.wait_for(host.process.wait(), DEADLINE) == EXIT_TIMED_OUT


def copy_app(folder: Path, **changes: str) -> Path:
    app = folder / "app"
    shutil.copytree(APP, app)
    options = json.loads((app / "host.json").read_text())
    (app / "host.json").write_text(json.dumps(options | changes))
    return app


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"TIMER_SCHEDULE": "0 0 0 * * *"}, "JOBS_QUEUE"),
        pytest.param(
            {"TIMER_SCHEDULE": "never", "JOBS_QUEUE": "jobs"},
            "'never' is not NCRONTAB",
            marks=pytest.mark.long,
        ),
        ({"TIMER_SCHEDULE": "0 0 0 * * *", "JOBS_QUEUE": "jobs"}, "ServiceBusConnection"),
    ],
)
@pytest.mark.usefixtures("executed")  # how the process ends is the point
async def test_what_is_missing_is_named_in_one_line(settings: dict[str, str], named: str) -> None:
    async with host_process(settings) as process:
        _, said = await asyncio.wait_for(process.communicate(), DEADLINE)
        assert process.returncode == 2
    (line,) = said.decode().strip().splitlines()
    assert line.startswith("error: ")
    assert named in line
    assert str(os.getpid()) not in line


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Host": "evil.example"}, False),
        ({"Host": "evil.example:7071", "Sec-Fetch-Site": "same-origin"}, False),
        ({"Host": "localhost.evil.example"}, False),
        ({"Host": "LOCALHOST:7071"}, True),
        ({"Host": "[::1]:7071"}, True),
    ],
)
async def test_no_page_of_another_site_reaches_a_host(
    method: str, headers: dict[str, str], allowed: bool
) -> None:
    """By a form or script of its own, nor by having its name lead here (DNS rebinding)."""
    application = web.Application(middlewares=[_own_origin])

    async def here(_request: web.Request) -> web.Response:
        return web.Response(text="here")

    application.router.add_route("*", "/{path:.*}", here)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/jobs"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, headers=headers) as reply,
        ):
            assert (reply.status == 200) is allowed, await reply.text()
    finally:
        await runner.cleanup()
