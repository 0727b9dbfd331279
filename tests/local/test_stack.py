"""What is started, and what the function app is told of it."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
import textwrap
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, chdir, suppress
from pathlib import Path

import aiohttp
import pytest
from azure.storage.blob.aio import BlobClient
from openai import AsyncOpenAI

from local import keys, simulated
from local.__main__ import main
from local.endpoint.profiles import LIMITS, PROFILES, ProfileName
from local.keys import HEADER
from local.stack import PROJECT, StackOptions, endpoint_for
from local.staying import PORTS
from schemas.webhooks import secret_of
from tests.integration.processes import until
from tests.integration.receiving import receiver
from workers.settings import read_settings

from .conftest import blocks, clean

DEADLINE = 240.0


@pytest.mark.parametrize("profile", PROFILES)
def test_a_simulator_becomes_deployments_that_the_app_accepts(profile: ProfileName) -> None:
    given = simulated.settings_for(profile, LIMITS[profile], "http://127.0.0.1:1", "secret")
    deployments = read_settings(given).deployments
    assert [each.name for each in deployments][:2] == ["phi-3-mini", "embed"]
    assert {"chat", "embeddings"} <= {task for each in deployments for task in each.serves}
    limit = LIMITS[profile].requests_per_minute or None
    assert {each.requests_per_minute for each in deployments} == {limit}
    contexts = {each.model: each.context_length for each in deployments}
    assert contexts[simulated.CHAT_MODEL] == 4096, "the service need not ask to know"
    assert contexts[simulated.EMBED_MODEL] is None
    assert all(each.price and each.price.pinned for each in deployments), "what a run costs is told"
    assert given[simulated.KEY_SETTING] == "secret"
    assert "secret" not in given["DEPLOYMENTS"]


async def test_no_simulator_where_deployments_are_set() -> None:
    async with endpoint_for(StackOptions(), {"DEPLOYMENTS": "[...]"}) as (url, settings):
        assert (url, settings) == (None, {})


@asynccontextmanager
async def up(folder: Path) -> AsyncIterator[str]:
    """`local up`, started outside the repository, on free ports: what it prints."""
    ports = [each for name in PORTS for each in (f"--{name}-port", "0")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local", "up", "--data", str(folder / "data"), *ports),
        stdout=PIPE,
        cwd=folder,
        env=clean() | {"PYTHONPATH": str(PROJECT)},
    )
    assert process.stdout is not None
    told = ""
    async with asyncio.timeout(DEADLINE):
        while "Ctrl-C stops everything" not in told:
            told += (line := (await process.stdout.readline()).decode())
            assert line, "it ended before it was up"
        yield told
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert process.returncode == 0


async def test_up_serves_scripts_receivers_and_whoever_looks_at_telemetry(tmp_path: Path) -> None:
    secret, data = secret_of(b"k" * 32), tmp_path / "data"
    ports = [each for name in PORTS for each in (f"--{name}-port", "0")]
    async with receiver(secret) as hook, asyncio.timeout(DEADLINE):
        told = {"url": hook.url, "secret_settings": ["WEBHOOK_SECRET"], "private": True}
        settings = {
            "WEBHOOKS": json.dumps({"default": told}),
            "WEBHOOK_SECRET": secret,
            "API_KEYS": '[{"name": "mine", "sha256": "%s"}]' % ("0" * 64),
        }
        process = await asyncio.create_subprocess_exec(
            *("phi3batch", "up", "--json", "--telemetry", "--profile", "openai"),
            *("--data", str(data), *ports),
            stdout=PIPE,
            stderr=PIPE,
            cwd=tmp_path,
            env=with_commands() | settings,
        )
        assert process.stdout is not None
        where = json.loads(await process.stdout.readline())
        assert set(where) == {
            *("http", "dashboard", "api_key", "function_key", "storage", "service_bus", "endpoint")
        }
        assert where["dashboard"] == f"{where['http']}/dashboard#key={where['function_key']}"
        async with aiohttp.ClientSession() as session, session.get(where["dashboard"]) as page:
            assert page.status == 200, "it needs no key"
            assert page.headers["content-type"] == "text/html; charset=utf-8"
        # Its key is known beside those of API_KEYS.
        async with AsyncOpenAI(base_url=f"{where['http']}/v1", api_key=where["api_key"]) as client:
            rows = ("in.jsonl", b'{"prompt": "one"}\n{"prompt": "two"}\n')
            file = await client.files.create(file=rows, purpose="batch")
            batch = await client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
        await until(lambda: hook.events, "the webhook comes")
        process.send_signal(signal.SIGTERM)
        rest, said = await process.communicate()
    assert (rest, process.returncode) == (b"", 0), "a script reads one line"
    (event,) = hook.events
    assert (event.type, event.data.id) == ("batch.completed", batch.id)

    lines = [" ".join(line.split()) for line in said.decode().splitlines()]
    assert lines[0] == f"telemetry {data / 'telemetry'}, from the first export on"
    assert "batch.rows 2 outcome succeeded" in lines
    assert "batch.jobs 1 state completed, door http" in lines
    spans = [
        json.loads(line) for line in (data / "telemetry/spans.jsonl").read_bytes().splitlines()
    ]
    (job,) = [span for span in spans if span["name"] == "job"]
    assert {span["trace"] for span in spans} == {job["trace"]}
    assert (data / "telemetry/metrics.jsonl").stat().st_size > 0


def snippets(guide: str) -> list[str]:
    """The indented blocks of the guide."""
    blocks = re.findall(r"(?:^  .*\n)+", guide, re.MULTILINE)
    return [textwrap.dedent(block) for block in blocks]


async def run_snippet(text: str, folder: Path) -> str:
    """A block as a reader in this folder would run it: Python, or commands of a shell."""
    if text.startswith("from "):
        # Not a process: that would load the SDKs anew for each.
        with chdir(folder):
            await asyncio.to_thread(exec, compile(text, "the guide", "exec"), {})
        return ""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-ec", text), cwd=folder, stdout=PIPE, stderr=PIPE, env=with_commands()
    )
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE)
    assert process.returncode == 0, f"{text}{err.decode()}"
    return out.decode()


def with_commands() -> dict[str, str]:
    """An environment in which `phi3batch` is installed."""
    return clean() | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
    }


async def completed(url: str, key: str, count: int) -> str:
    """The id of the newest job, once so many have completed; without the key nothing is told."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(DEADLINE):
        async with session.get(url) as response:
            assert response.status == 401
        while True:
            async with session.get(url, headers={HEADER: key}) as response:
                jobs = (await response.json())["data"]
            if [each["state"] for each in jobs] == ["completed"] * count:
                return str(jobs[0]["job"])
            await asyncio.sleep(0.1)


async def over_http(guide: str, folder: Path) -> None:
    """The calls of docs/http.md, as they stand."""
    calls, _ = blocks("docs/http.md")
    ((address, key),) = re.findall(r"^HTTP +(\S+)/api/jobs .*: (\S+)\)$", guide, re.MULTILINE)
    (storage,) = re.findall(r"^storage +(\S+)$", guide, re.MULTILINE)
    async with BlobClient.from_connection_string(storage, "inputs", "questions.jsonl") as blob:
        await blob.upload_blob(b'{"prompt": "hello"}')
    said = await run_snippet(f"URL={address} KEY={key}\n{calls}", folder)
    assert await completed(f"{address}/api/jobs", key, 6) in said
    assert json.loads(said[said.index('{"object"') :])["data"] == []


@pytest.mark.timeout(900)
async def test_what_up_says_can_be_done_as_it_stands_and_a_second_time(tmp_path: Path) -> None:
    (tmp_path / "my.jsonl").write_text('{"prompt": "hello"}\n')
    async with up(tmp_path) as guide:
        drop, enqueue, fetch, sdk, command_line, look, nightly = snippets(guide)
        ((address, key),) = re.findall(r"^HTTP +(\S+) .*: (\S+)\)$", guide, re.MULTILINE)
        await run_snippet(drop, tmp_path)
        first = await completed(address, key, 1)
        await run_snippet(fetch, tmp_path)
        assert (tmp_path / "my" / first / "output.jsonl").exists()
        await run_snippet(drop, tmp_path)
        second = await completed(address, key, 2)
        await run_snippet(enqueue, tmp_path)
        assert await completed(address, key, 3) != second
        listed, cancel = look.splitlines()
        assert second in await run_snippet(listed, tmp_path)
        assert "error" in await run_snippet(cancel, tmp_path), "there is no job called JOB"
        await run_snippet(nightly, tmp_path)
        await run_snippet(sdk, tmp_path)
        await completed(address, key, 4)
        assert "completed · 1 of 1 rows" in await run_snippet(command_line, tmp_path)
        await completed(address, key, 5)
        await over_http(guide, tmp_path)
        await run_snippet(fetch, tmp_path)
        assert (tmp_path / "my" / second / "output.jsonl").exists()
    assert (tmp_path / "data" / "servicebus.sqlite").exists()
    assert (tmp_path / "data" / "azurite").is_dir()
    kept = tmp_path / "data" / "function-key"
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == (key, 0o600)
    assert keys.function_key(tmp_path / "data") == key, "it is made once"


def test_the_usual_ports_are_taken_or_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert {name: default for name, (default, _) in PORTS.items()} == {
        "storage": "10000",
        "bus": "5672",
        "http": "7071",
    }
    with ExitStack() as stack:
        for port, _ in PORTS.values():
            with suppress(OSError):  # somebody else has it: as well
                stack.enter_context(socket.create_server(("127.0.0.1", int(port))))
        with pytest.raises(SystemExit) as ended:
            main(["up"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "port 10000: Address already in use: stop what uses it, or name another" in said


def test_a_mistake_in_deployments_is_told_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "hello"}\n')
    entry = {"name": "east", "kind": "openai", "url": "https://h/v1", "model": "m"}
    monkeypatch.setenv("DEPLOYMENTS", json.dumps([entry | {"key_setting": "NOT_THERE"}]))
    assert main(["run", str(file), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: DEPLOYMENTS[0] ('east'), field 'key_setting': the setting")
    assert "asking" not in told.out
    assert list((tmp_path / "out").iterdir()) == []
