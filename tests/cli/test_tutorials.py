"""The tutorials, run as they stand against a stack of their own.

That `phi3batch` loads the SDK in each process is not the point here.
"""

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from local.staying import PORTS
from tests.cli import warm
from tests.local.conftest import clean

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "docs" / "tutorials"
DEADLINE = 240.0
ADDRESS = "http://127.0.0.1:7071"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]


def blocks(name: str) -> list[tuple[str, str]]:
    """The language and text of each block."""
    text = (FOLDER / f"{name}.md").read_text("utf-8")
    return re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)


@asynccontextmanager
async def up(folder: Path) -> AsyncIterator[str]:
    """`phi3batch up` on free ports, which keeps its key in the folder's .local: its address."""
    ports = [each for name in PORTS for each in (f"--{name}-port", "0")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "phi3batch", "up", "--json", "--data", ".local", *ports),
        stdout=PIPE,
        cwd=folder,
        env=clean() | {"PYTHONPATH": str(PROJECT)},
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), DEADLINE)
        yield json.loads(line)["http"]
    finally:
        process.terminate()
        await process.communicate()


async def typed(text: str, folder: Path, address: str, commands: Path) -> str:
    """What one shell says in which all of a tutorial's blocks are typed, one after the other."""
    environment = clean() | {
        "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "PHI3BATCH_URL": address,
    }
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", f"exec 2>&1\n{text.replace(ADDRESS, address)}"),
        cwd=folder,
        env=environment,
        stdout=PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
    assert process.returncode == 0, out.decode()
    return out.decode()


def script(name: str, *, without: int = 0) -> str:
    """All blocks but the first few; Python runs as a reader would have it run."""
    parts = []
    for language, text in blocks(name)[without:]:
        parts.append(text if language == "sh" else f"python - <<'PYTHON'\n{text}PYTHON\n")
    return "".join(parts)


async def test_the_tutorials_run_as_they_stand(tmp_path: Path) -> None:
    folder = tmp_path / "typed"
    folder.mkdir()
    (_, first), *_ = blocks("data-scientist")
    assert first == "make setup\n.venv/bin/phi3batch up\n"
    async with up(folder) as address, warm.commands(tmp_path) as commands:
        shell = partial(typed, folder=folder, address=address, commands=commands)
        said = await shell(script("data-scientist", without=1))
        assert "completed · 8 of 8 rows · 6 succeeded · 2 failed" in said
        assert "3 of 4 rows answered; missing: 2 template_field" in said
        assert "no request could be made of what has no answer" in said
        said = await shell(script("back-end"))
        assert "completed 2 of 2" in said
        key = f"export PHI3BATCH_KEY={(folder / '.local' / 'api-key').read_text()}\n"
        said = await shell(key + script("nightly-operator"))
        assert "ended with status 3" in said
        assert "look at it: status 3" in said
        assert "invalid_json" in said
        assert await shell(f"{key}./night.sh") == "", "nothing is new"
        (folder / "night" / "more.jsonl").write_text('{"prompt": "Name a fish."}\n')
        said = await shell(f"{key}./night.sh")
        assert said.count("completed · 1 of 1 rows · 1 succeeded") == 1
        assert said.count("completed · ") == 1, "the first night's are not looked at again"
    assert len(list((folder / "night" / "done").glob("batch_*/output.jsonl"))) == 3
    assert not list((folder / "night" / "running").iterdir())
