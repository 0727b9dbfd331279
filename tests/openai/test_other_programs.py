"""Other people's programs, unchanged, each in an environment of its own: docs/openai.md."""

import shutil
from pathlib import Path

import pytest

from tests.integration.processes import CHAT_MODEL, Processes
from tests.openai.serving import KEY, PROGRAMS, python_with, run

LITELLM = "litellm==1.110.2"
PYDANTIC_AI = "pydantic-ai-slim[openai]==2.68.0"
NODE = "openai@7.57.0"

pytestmark = [pytest.mark.long, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]


async def test_litellm_in_both_dialects(running: Processes, tmp_path: Path) -> None:
    python = await python_with(tmp_path / "environment", LITELLM)
    url = await running.hosts.up()
    # Else it looks for the latest prices elsewhere, three times, before it does anything.
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    for dialect in ("openai", "azure"):
        said = await run(
            *(python, "-I", PROGRAMS / "litellm_batches.py", url, KEY, CHAT_MODEL, dialect),
            environment=environment,
        )
        assert said.splitlines()[-1] == f"ok {dialect}", said


async def test_pydantic_ai_is_told_at_once_what_it_may_ask(
    running: Processes, tmp_path: Path
) -> None:
    python = await python_with(tmp_path / "environment", PYDANTIC_AI)
    url = await running.hosts.up()
    said = await run(python, "-I", PROGRAMS / "pydantic_ai_batches.py", url, KEY, CHAT_MODEL)
    told = said.splitlines()[-1]
    assert told.startswith("refused with 400: "), said
    assert "/v1/chat/completions" in told, said


async def test_the_official_package_for_node(running: Processes, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    await run("npm", "install", "--silent", "--prefix", folder, NODE)
    script = shutil.copy(PROGRAMS / "node_batches.mjs", folder)
    url = await running.hosts.up()
    said = await run("node", script, url, KEY, CHAT_MODEL, cwd=folder)
    assert said.splitlines()[-1] == "ok", said
