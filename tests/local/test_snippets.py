"""The commands of the README and the documents, run as they stand in a copy of the project."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, chdir
from pathlib import Path

import pytest

from local import running
from local.endpoint import Model, Settings, simulate
from local.endpoint.__main__ import _parser, _settings
from workers.settings import read_settings

from .conftest import PROJECT, blocks, clean

DEADLINE = 240.0
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project by links, so that what a command leaves is not left in the project.

    What `make` would install into are folders of the copy's own, and marked as installed.
    """
    own = (".venv", "node_modules")
    for each in PROJECT.iterdir():
        if each.name not in (".git", ".local", "out", *own):
            (tmp_path / each.name).symlink_to(each)
    for name in own:
        (tmp_path / name).mkdir()
        for each in (PROJECT / name).resolve().iterdir():
            if each.name != ".installed":
                (tmp_path / name / each.name).symlink_to(each)
        (tmp_path / name / ".installed").touch()
    return tmp_path


@asynccontextmanager
async def started(text: str, folder: Path) -> AsyncIterator[Process]:
    environment = clean() | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    # A user's make is not below another: that says which folder it enters.
    environment = {
        name: environment[name] for name in environment.keys() - {"MAKEFLAGS", "MAKELEVEL"}
    }
    process = await asyncio.create_subprocess_exec(
        *("bash", "-ec", f"exec 2>&1\n{text}"), cwd=folder, env=environment, stdout=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()  # and not wait(): its pipes close while there is a loop


async def done(text: str, folder: Path) -> str:
    async with started(text, folder) as process:
        out, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
    assert process.returncode == 0, f"{text}\n{out.decode()}"
    return out.decode()


def commands(block: str) -> list[str]:
    """The block's commands, one a line unless a line is continued."""
    return re.findall(r"(?:.*\\\n)*.+", block)


async def test_the_readme_can_be_tried(copy: Path) -> None:
    make_run = commands(blocks("README.md")[0])[0]
    assert make_run.startswith("make run")
    assert "completed · 500 of 500 rows · 500 succeeded" in await done(make_run, copy)


def own_files(copy: Path) -> list[str]:
    """README's commands about files of one's own, once there are such files."""
    (copy / "prompts.jsonl").write_text('{"prompt": "hello"}\n{"prompt": "again"}\n')
    (copy / "options.json").write_text('{"model": "phi3", "max_tokens": 8}')
    return commands(blocks("README.md")[1])


@pytest.fixture
def arguments(copy: Path) -> Path:
    """The copy, with a Python that does nothing but tell what it is given, and DEPLOYMENTS."""
    (copy / ".venv" / "bin").unlink()
    python = copy / ".venv" / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nfor each in "$DEPLOYMENTS" "$@"; do printf "%s\\0" "$each"; done')
    python.chmod(0o755)
    return copy


async def test_each_command_about_a_file_is_understood(arguments: Path) -> None:
    """What the others show by whole runs."""
    *own, local_up = own_files(arguments)
    (serving,) = commands(blocks("docs/simulator.md", "")[0])
    (job,) = blocks("docs/simulator.md")
    given = [*own, *commands(blocks("samples/README.md", "")[0])]
    served = []
    for command in (*given, f"PATH={arguments}/.venv/bin:$PATH\n{job}"):
        deployments, *words = (await done(command, arguments)).split("\0")[:-1]
        assert words[:3] == ["-m", "local", "run"]
        with chdir(arguments):
            assert running._arguments(words[3:]).file.exists()
        if deployments:
            served.append(read_settings({"DEPLOYMENTS": deployments}).deployments)
    assert [len(each) for each in served] == [1, 5]
    assert (await done(local_up, arguments)).split("\0")[1:-1] == ["-m", "local", "up"]
    assert _settings(_parser().parse_args(serving.split()[3:])).profile == "serverless"


@pytest.mark.long
async def test_the_readmes_own_files_can_be_run(copy: Path) -> None:
    with_options, from_file, elsewhere, local_up = own_files(copy)
    assert "2 of 2 rows" in await done(with_options, copy)
    assert (copy / "results" / "output.jsonl").exists()
    assert "every row failed" in await failing(from_file, copy), "nobody serves phi3 here"
    async with simulate(Settings(profile="openai", models=(Model.parse("phi3"),)), port=8000):
        assert "2 of 2 rows · 2 succeeded" in await done(elsewhere, copy)
    assert local_up.startswith(".venv/bin/python -m local up ")


async def failing(text: str, folder: Path) -> str:
    async with started(text, folder) as process:
        out, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
    assert process.returncode != 0
    return out.decode()


@pytest.mark.long
async def test_the_samples_can_be_run(copy: Path) -> None:
    (block,) = blocks("samples/README.md", "")
    template, dialects = commands(block)
    # The whole of it takes a minute and a half of the simulated quota: its first rows will do.
    sample = copy / "samples"
    lines = (sample / "gsm8k-test.jsonl").read_text().splitlines(keepends=True)[:20]
    sample.unlink()
    sample.mkdir()
    for each in (PROJECT / "samples").iterdir():
        (sample / each.name).symlink_to(each)
    (sample / "gsm8k-test.jsonl").unlink()
    (sample / "gsm8k-test.jsonl").write_text("".join(lines))
    assert "20 of 20 rows · 20 succeeded" in await done(template, copy)
    assert "16 of 16 rows · 16 succeeded" in await done(dialects, copy)


@pytest.mark.long
async def test_the_simulator_serves_a_job_with_each_kind_of_deployment(copy: Path) -> None:
    (serve,) = blocks("docs/simulator.md", "")[:1]
    (job,) = blocks("docs/simulator.md")
    async with started(f"exec {serve}", copy) as endpoint:
        assert endpoint.stdout is not None
        assert b"http://127.0.0.1:8090" in await endpoint.stdout.readline()
        assert "5 of 5 rows · 5 succeeded" in await done(job, copy)
