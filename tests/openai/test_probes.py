"""The probes, by each version of the SDK, against the running service."""

import json
import re
import sys
from pathlib import Path

import pytest

from local.stack import PROJECT
from tests.integration.processes import CHAT_MODEL, Processes
from tests.openai.serving import KEY, OTHER, python_with, run

PROBES = Path(__file__).parent / "probes.py"
DOCUMENT = PROJECT / "docs/openai.md"
ASKED = {"messages": [{"role": "user", "content": "Hi"}]}
# The newest is pinned in requirements-dev.txt, and is this environment's own.
OLDER = ("1.109.1", "2.54.0")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]


async def probe(python: str | Path, running: Processes, *options: str) -> None:
    url = await running.hosts.up()
    said = await run(python, "-I", PROBES, url, KEY, OTHER, CHAT_MODEL, *options)
    assert said.count("\nok probe_") == 25, said
    for line in running.log:
        assert not any(secret in line for secret in (KEY, OTHER, "probe r0")), line


async def test_the_newest_sdk_works_unchanged(running: Processes) -> None:
    await probe(sys.executable, running)


@pytest.mark.long
async def test_the_newest_sdk_in_an_event_loop_works_unchanged(running: Processes) -> None:
    """The same requests once more: of these, `make test` has what differs in a probe of its own."""
    await probe(sys.executable, running, "--async")


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
    await run(sys.executable, "-c", script, cwd=tmp_path)
    answers = (tmp_path / "answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["custom_id"] for line in answers] == ["good", "other"]


@pytest.mark.long
@pytest.mark.parametrize("version", OLDER)
async def test_older_sdks_work_unchanged(version: str, running: Processes, tmp_path: Path) -> None:
    """Each in an environment of its own, with files as large as they are meant."""
    python = await python_with(tmp_path / "environment", f"openai=={version}")
    await probe(python, running, "--large")
    await probe(python, running, "--async")
