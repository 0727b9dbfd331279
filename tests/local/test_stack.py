"""What is started, and what the function app is told of it."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import aiohttp
import pytest

from local import simulated
from local.__main__ import main
from local.endpoint.profiles import LIMITS, PROFILES, ProfileName
from local.stack import StackOptions, endpoint_for
from workers.settings import read_settings

from .conftest import clean

DEADLINE = 240.0


@pytest.mark.parametrize("profile", PROFILES)
def test_a_simulator_becomes_deployments_that_the_app_accepts(profile: ProfileName) -> None:
    given = simulated.settings_for(profile, LIMITS[profile], "http://127.0.0.1:1", "secret")
    deployments = read_settings(given).deployments
    assert [each.name for each in deployments][:2] == ["phi-3-mini", "embed"]
    assert {"chat", "embeddings"} <= {task for each in deployments for task in each.serves}
    limit = LIMITS[profile].requests_per_minute or None
    assert {each.requests_per_minute for each in deployments} == {limit}
    assert given[simulated.KEY_SETTING] == "secret"
    assert "secret" not in given["DEPLOYMENTS"]


async def test_no_simulator_where_deployments_are_set() -> None:
    async with endpoint_for(StackOptions(), {"DEPLOYMENTS": "[...]"}) as (url, settings):
        assert (url, settings) == (None, {})


async def test_up_says_where_everything_is_until_it_is_stopped(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local", "up", "--data", str(tmp_path / "data")),
        stdout=PIPE,
        env=clean(),
    )
    assert process.stdout is not None
    told: dict[str, str] = {}
    async with asyncio.timeout(DEADLINE):
        while "HTTP" not in told:
            line = (await process.stdout.readline()).decode()
            name, _, value = line.partition("  ")
            told[name] = value.strip()
        async with aiohttp.ClientSession() as session, session.get(told["HTTP"]) as response:
            assert response.status == 200
            assert (await response.json())["data"] == []
        assert told["storage"].startswith("DefaultEndpointsProtocol=http;")
        assert told["Service Bus"].startswith("Endpoint=sb://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert process.returncode == 0
    assert (tmp_path / "data" / "servicebus.sqlite").exists()
    assert (tmp_path / "data" / "azurite").is_dir()


def test_a_mistake_in_deployments_is_told_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"prompt": "hello"}\n')
    entry = {"name": "east", "kind": "openai", "url": "http://h/v1", "model": "m"}
    monkeypatch.setenv("DEPLOYMENTS", json.dumps([entry | {"key_setting": "NOT_THERE"}]))
    assert main(["run", str(file), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: DEPLOYMENTS[0] ('east'), field 'key_setting': the setting")
    assert "asking" not in told.out
    assert list((tmp_path / "out").iterdir()) == []
