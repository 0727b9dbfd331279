"""The probes, by each version of the SDK, against the running service."""

import asyncio
import hashlib
import json
import re
import secrets
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from local import keys
from local.host.http_triggers import BODY_LIMIT
from local.stack import BODY_BYTES, PROJECT
from tests.integration.processes import CHAT_MODEL, Processes, processes

PROBES = Path(__file__).parent / "probes.py"
DOCUMENT = PROJECT / "docs/openai.md"
ASKED = {"messages": [{"role": "user", "content": "Hi"}]}
KEY, OTHER = secrets.token_urlsafe(), secrets.token_urlsafe()
# The newest is pinned in requirements-dev.txt, and is this environment's own.
OLDER = ("1.109.1", "2.54.0")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("openai")]


def api_keys() -> str:
    digests = [hashlib.sha256(key.encode()).hexdigest() for key in (KEY, OTHER)]
    return json.dumps(
        [
            {"name": "app", "sha256": digests[0]},
            {"name": "blue", "sha256": digests[1], "tenant": "blue"},
        ]
    )


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Processes]:
    settings = {
        keys.API_KEYS: api_keys(),
        "TENANTS": '{"blue": {}}',
        BODY_LIMIT: str(BODY_BYTES),
    }
    async with processes(tmp_path, settings=settings) as started:
        yield started


async def probe(python: str | Path, running: Processes, *options: str) -> None:
    url = await running.hosts.up()
    process = await asyncio.create_subprocess_exec(
        *(str(python), "-I", str(PROBES), url, KEY, OTHER, CHAT_MODEL, *options),
        stdout=PIPE,
        stderr=STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    assert said.count("\nok probe_") == 25, said
    for line in running.log:
        assert not any(secret in line for secret in (KEY, OTHER, "probe r0")), line


async def test_the_newest_sdk_works_unchanged(running: Processes) -> None:
    await probe(sys.executable, running)


async def test_the_example_of_the_document_runs_as_it_stands(
    running: Processes, tmp_path: Path
) -> None:
    [example] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    url = await running.hosts.up()
    script = example.replace("https://APP", url).replace("KEY", repr(KEY), 1)
    rows = [
        {"custom_id": name, "url": "/v1/chat/completions", "body": {"model": model, **ASKED}}
        for name, model in (("good", CHAT_MODEL), ("other", CHAT_MODEL))
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "questions.jsonl").write_text(text)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script), cwd=tmp_path, stdout=PIPE, stderr=STDOUT
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    answers = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["custom_id"] for line in answers] == ["good", "other"]


@pytest.mark.long
@pytest.mark.parametrize("version", OLDER)
async def test_older_sdks_work_unchanged(version: str, running: Processes, tmp_path: Path) -> None:
    """Each in an environment of its own, with files as large as they are meant."""
    folder = tmp_path / "environment"
    for command in (
        (sys.executable, "-m", "venv", str(folder)),
        (str(folder / "bin/python"), "-m", "pip", "install", "--quiet", f"openai=={version}"),
    ):
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
        said = (await process.communicate())[0].decode()
        assert process.returncode == 0, said
    await probe(folder / "bin/python", running, "--large")
