"""The command and the surface under /simulator/: counting, and changing a running simulator."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import aiohttp
import orjson
import pytest

from local.endpoint import Settings, When, completion, read_rules, row_key
from local.endpoint.__main__ import main
from local.endpoint.faults import Fault
from local.endpoint.profiles import PROFILES
from local.endpoint.throttles import Hint

from .asking import MODEL, FakeClock, asking


async def test_rows_are_counted_by_what_they_ask() -> None:
    async with asking(Settings(profile="openai")) as asker:
        for content in ("twice", "once", "twice"):
            await asker.chat(content)
        await asker.post("/v1/embeddings", {"input": ["twice", "packed", [1, 2]]})
        stats = asker.endpoint.stats(rows=True)
        assert stats["billed"] == {
            row_key("twice"): 3,
            row_key("once"): 1,
            row_key("packed"): 1,
            row_key([1, 2]): 1,
        }
        assert stats["rows"] == {
            "distinct": 4,
            "billed": 6,
            "answered": 6,
            "billed_more_than_once": 1,
            "most_billed": 3,
        }
        assert stats["calls"] == {"chat": 3, "embeddings": 1}
        assert "twice" not in str(stats)


async def test_what_was_admitted_is_told_for_each_caller() -> None:
    async with asking(Settings(profile="openai")) as asker:
        body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 8}
        for caller in ("client host/1", "client host/2", "client host/1"):
            await asker.post("/chat/completions", body, {"User-Agent": caller})
        refused = {**body, "temperature": 9}
        await asker.post("/chat/completions", refused, {"User-Agent": "client host/2"})
        each = 8 + 5  # max_tokens and the estimate of the prompt
        assert asker.endpoint.stats()["callers"] == {
            "client host/1": [2, 2 * each],
            "client host/2": [1, each],
        }


async def test_a_row_may_bring_its_own_name() -> None:
    async with asking(Settings(profile="openai")) as asker:
        await asker.chat("same", user="row-1")
        await asker.chat("same", user="row-2")
        body = {"messages": [{"role": "user", "content": "same"}]}
        await asker.post("/chat/completions", body, {"x-row-id": "row-2"})
        assert asker.endpoint.stats(rows=True)["billed"] == {"row-1": 1, "row-2": 2}


async def test_the_report_over_the_wire_is_the_one_in_the_process() -> None:
    clock = FakeClock()
    async with asking(Settings(profile="openai"), clock) as asker:
        await asker.chat("a")
        clock.now += 2.5
        await asker.chat("b", temperature=9)
        await asker.chat("c")
        reply = await asker.get("/simulator/stats?rows=1")
        assert reply.body == orjson.loads(orjson.dumps(asker.endpoint.stats(rows=True)))
        each = 8 + 5  # max_tokens and the estimate of the prompt
        assert reply.body["seconds"] == [[0, 1, each, 0], [2, 1, each, 1]]
        assert (reply.body["tokens_admitted"], reply.body["tokens_billed"]) == (2 * each, 2 * each)
        assert reply.body["rejected"] == {"bad_request": 1}
        assert "rows" in (await asker.get("/simulator/stats")).body
        assert "billed" not in (await asker.get("/simulator/stats")).body


async def test_faults_limits_and_counts_change_at_run_time() -> None:
    async with asking(Settings(profile="openai")) as asker:
        await asker.post("/simulator/faults", [{"fault": "http_503", "times": 1}])
        assert [(await asker.chat()).status for _ in range(2)] == [503, 200]
        assert (await asker.post("/simulator/reset", {})).status == 200
        assert asker.endpoint.stats()["received"] == 0
        assert [(await asker.chat()).status for _ in range(3)] == [503, 200, 200]
        await asker.post("/simulator/faults", [])
        await asker.post("/simulator/limits", {"requests_per_minute": 6, "window": 60})
        # Three of the six were counted before: the window goes on under its new limit.
        assert [(await asker.chat()).status for _ in range(4)] == [200, 200, 200, 429]
        assert asker.endpoint.limits.requests_per_minute == 6
        asker.endpoint.set_limits(requests_per_minute=0)
        asker.endpoint.set_faults()
        assert (await asker.chat()).status == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("faults", b"[{", 400),
        ("faults", b'[{"fault": "nap"}]', 400),
        ("limits", b'{"window": 3}', 400),
        ("limits", b'{"speed": 3}', 400),
        ("key", b"7", 400),
        ("nothing", b"{}", 404),
    ],
)
async def test_a_mistake_on_the_surface_is_told_and_changes_nothing(
    path: str, body: bytes, status: int
) -> None:
    async with asking(Settings(profile="openai")) as asker:
        before = asker.endpoint.limits
        reply = await asker.post(f"/simulator/{path}", body)
        assert reply.status == status
        assert reply.body["error"]
        assert asker.endpoint.limits == before
        assert (await asker.chat()).status == 200


async def test_a_key_is_rotated_while_it_runs() -> None:
    async with asking(Settings(key="old")) as asker:
        body = {"messages": [{"role": "user", "content": "hello"}]}

        async def status(key: str) -> int:
            return (await asker.post("/chat/completions", body, {"api-key": key})).status

        assert await status("old") == 200
        await asker.post("/simulator/key", "new")
        assert (await status("old"), await status("new")) == (401, 200)
        asker.endpoint.set_key(None)
        assert await status("any") == 200


def test_the_page_about_it_is_true() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    script = page.split("```json")[1].split("```")[0]
    assert len(read_rules(orjson.loads(script))) == 4
    unexplained = [
        name
        for name in (*get_args(Fault), *get_args(Hint), *PROFILES, *When.model_fields)
        if f"`{name}`" not in page and f"| {name} |" not in page
    ]
    assert not unexplained


@asynccontextmanager
async def command(*options: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """The command, running: its url and its process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local.endpoint", "--port", "0", *options),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = await process.stdout.readline()
        yield line.decode().rstrip("\n"), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ask_command(url: str, path: str, body: Any) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + path, json=body, headers={"api-key": "k"}) as response,
    ):
        return response.status, await response.json()


async def test_the_command_serves_as_told_and_prints_one_line(tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text('[{"fault": "http_503", "when": {"contains": "bad"}}]')
    async with command(
        *("--profile", "serverless", "--seed", "5", "--key", "k", "--faults", str(faults)),
        *("--requests-per-minute", "120", "--window", "60", "--models", MODEL, "e5:embeddings"),
        *("--dimensions", "3", "--mean-tokens", "10"),
    ) as (url, process):
        messages = [{"role": "user", "content": "good"}]
        status, told = await ask_command(url, "/chat/completions", {"messages": messages})
        assert status == 200
        expected = completion(5, MODEL, messages, mean_tokens=10)
        assert told["choices"][0]["message"]["content"] == expected.text
        bad = {"messages": [{"role": "user", "content": "bad"}]}
        assert (await ask_command(url, "/chat/completions", bad))[0] == 503
        status, told = await ask_command(url, "/embeddings", {"input": "a"})
        assert (told["model"], len(told["data"][0]["embedding"])) == ("e5", 3)
        assert process.stdout is not None
        process.terminate()
        assert await asyncio.wait_for(process.stdout.read(), 5) == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_stops_at_once_whatever_is_in_flight(number: signal.Signals) -> None:
    async with command("--profile", "openai", "--faults", '{"hang": 1.0}') as (url, process):
        body = {"messages": [{"role": "user", "content": "hello"}]}
        hanging = asyncio.create_task(ask_command(url, "/chat/completions", body))
        async with aiohttp.ClientSession() as session, asyncio.timeout(5):
            while True:
                async with session.get(f"{url}/simulator/stats") as response:
                    if (await response.json())["in_flight"]:
                        break
        began = time.monotonic()
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 5) == 0
        assert time.monotonic() - began < 2
        with pytest.raises(aiohttp.ClientError):
            await hanging


@pytest.mark.parametrize(
    "wrong",
    [
        ["--profile", "cloud"],
        ["--faults", '[{"fault": "nap"}]'],
        ["--faults", "no-such-file.json"],
        ["--models", "m:sing"],
        ["--requests-per-minute", "-1"],
    ],
)
def test_the_command_says_what_is_wrong_with_an_option(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (2, "")
    assert "error:" in told.err


async def test_the_command_says_that_its_port_is_taken() -> None:
    async with asking() as asker:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "local.endpoint", "--port", asker.endpoint.url.split(":")[-1]),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await asyncio.wait_for(process.communicate(), 20)
        assert (process.returncode, out) == (1, b"")
        assert b"cannot listen" in error
